"""What a reward is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..state import SearchState

FORETELLING = ("foretell", "check_state", "foretelling_flops")
"""What a reward has besides where it scores unfinished samples by their features."""


@runtime_checkable
class Reward(Protocol):
    """Anything that says how well an image answers a prompt; docs/own-reward.md shows how to write one.

    name: for reports and errors. range: the values ordinary images get, so that a temperature can be judged.
    A reward that owns networks also lists them in `models`, so that a host can place and offload them. One that cannot judge
    every prompt has a method `check_prompt(prompt)` as well, which raises ValueError for those it cannot. One whose score is made
    of several has a method `explain(images, prompt)` that gives `Answers`.
    """

    name: str
    range: tuple[float, float]

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """(B,) float32 scores, higher is better, of images (B, H, W, 3) in [0, 1]."""
        ...


@runtime_checkable
class Foreteller(Reward, Protocol):
    """A reward that scores unfinished samples by what is sampled so far, so that nothing is decoded for it; finished ones are
    scored as pictures. foretelling_flops: the scales it does that after, with the operations per sample."""

    foretelling_flops: tuple[tuple[int, int], ...]

    def check_state(self, state: SearchState, scales: Iterable[int]) -> None:
        """Raise ValueError, with the remedy, unless it can foretell such states after these scales."""
        ...

    def foretell(self, state: SearchState) -> Tensor:
        """(P,) float32 scores of an unfinished state's samples, higher is better. Raises ValueError as `check_state`."""
        ...


def foretells(reward: Reward | None) -> bool:
    """Whether `reward` scores unfinished samples by their features."""
    return hasattr(reward, "foretell")


class Answers(NamedTuple):
    """What scores are made of, for people to see why a picture lost.

    questions: what was asked, or which reward was blended. values: (B, Q), every picture's answers (the probability of yes) or that
    reward's score. scores: (B,).
    """

    questions: tuple[str, ...]
    values: Tensor
    scores: Tensor

    def select(self, rows: Tensor) -> Answers:
        """Those of some pictures."""
        return self._replace(values=self.values[rows], scores=self.scores[rows])

    def table(self) -> list[dict]:
        """As JSON: every question with the pictures' answers in their order; empty where a single answer is the score itself."""
        if len(self.questions) < 2:
            return []
        columns = self.values.T.tolist()
        return [{"question": question, "answers": column} for question, column in zip(self.questions, columns, strict=True)]


def foretold(reward: Foreteller, state: SearchState, where: str = "") -> Answers:
    """Scores of an unfinished state's samples, float32 on the CPU; they are made of nothing that could be told.

    Raises ValueError as `check_scores`, which tells of `where`.
    """
    scores = torch.as_tensor(reward.foretell(state)).detach().float().cpu()
    check_scores(scores, state.samples, reward.name, "sample", where)
    return Answers((), torch.empty(len(scores), 0), scores)


def explained(reward: Reward, images: Tensor, prompt: str, sample: str = "image", where: str = "") -> Answers:
    """Scores as `Reward.score` gives them, float32 on the CPU, and what they are made of where the reward can tell.

    Raises ValueError as `check_scores`, which tells of `sample` and `where`.
    """
    if hasattr(reward, "explain"):
        questions, *numbers = reward.explain(images, prompt)
    else:
        questions, numbers = (), [torch.empty(len(images), 0), reward.score(images, prompt)]
    answers = Answers(questions, *(torch.as_tensor(those).detach().float().cpu() for those in numbers))
    check_scores(answers.scores, len(images), reward.name, sample, where)
    return answers


def answer_lines(answers: Answers, rows: Sequence[int] | None = None) -> list[str]:
    """The table in words, a question on a line behind the pictures' answers to it; ``rows``: in that order."""
    order = range(len(answers.scores)) if rows is None else rows
    return ["  ".join(f"{line['answers'][row]:.2f}" for row in order) + f"  {line['question']}" for line in answers.table()]


def check_prompt(reward: Reward | None, prompt: str) -> None:
    """Raise ValueError, before anything runs, for a prompt that `reward` says it cannot judge, or that holds half a character."""
    prompt.encode()
    if hasattr(reward, "check_prompt"):
        reward.check_prompt(prompt)


def check_scores(scores: Tensor, count: int, name: str, sample: str = "image", where: str = "") -> None:
    """Raises ValueError, naming the reward and the row, for scores that are not one finite number for each of `count` pictures: one
    NaN would take every other sample's weight with it.

    sample, where: what a row is called in the message, and where it was scored.
    """
    if scores.shape != (count,):
        came = f"{len(scores)} scores" if scores.ndim == 1 else f"scores of shape {tuple(scores.shape)}"
        raise ValueError(f"reward {name} gave {came} for {count} images; expected one per image")
    wrong = ~scores.isfinite()
    if wrong.any():
        row = int(wrong.int().argmax())
        raise ValueError(
            f"reward {name} gave {float(scores[row])} for {sample} {row}{where}; expected a finite number. Look at that "
            f"{sample}, and at the reward's weights and precision"
        )
