"""What a reward is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


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
        """As JSON: every question with the pictures' answers in their order. None where a single answer is the score itself."""
        if len(self.questions) < 2:
            return []
        columns = self.values.T.tolist()
        return [{"question": question, "answers": column} for question, column in zip(self.questions, columns, strict=True)]


def explained(reward: Reward, images: Tensor, prompt: str) -> Answers:
    """Scores as `Reward.score` gives them, float32 on the CPU, and what they are made of where the reward can tell."""
    if hasattr(reward, "explain"):
        questions, *numbers = reward.explain(images, prompt)
    else:
        questions, numbers = (), [torch.empty(len(images), 0), reward.score(images, prompt)]
    return Answers(questions, *(torch.as_tensor(those).detach().float().cpu() for those in numbers))


def answer_lines(answers: Answers, rows: Sequence[int] | None = None) -> list[str]:
    """The table in words, a question on a line behind the pictures' answers to it; ``rows``: in that order."""
    order = range(len(answers.scores)) if rows is None else rows
    return ["  ".join(f"{line['answers'][row]:.2f}" for row in order) + f"  {line['question']}" for line in answers.table()]


def check_prompt(reward: Reward, prompt: str) -> None:
    """Raise ValueError, before anything runs, for a prompt that `reward` says it cannot judge."""
    if hasattr(reward, "check_prompt"):
        reward.check_prompt(prompt)


def check_finite(scores: Tensor, name: str, sample: str = "image", where: str = "") -> None:
    """Raises ValueError, naming the reward and the row, for scores (B,) that are not all finite numbers.

    sample, where: what a row is called in the message, and where it was scored.
    """
    wrong = ~scores.isfinite()
    if wrong.any():
        row = int(wrong.int().argmax())
        raise ValueError(
            f"reward {name} gave {float(scores[row])} for {sample} {row}{where}; expected a finite number. Look at that "
            f"{sample}, and at the reward's weights and precision"
        )
