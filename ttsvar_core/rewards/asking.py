"""What rewards that ask have in common: what they ask, and how the answers become a score. Who answers is their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..names import MEANS
from ..vision.network import check_images
from .base import Answers
from .questions import PART, TEMPLATES, questions_of

SPELLINGS = "{}", " {}"
"""How an answer may begin; both in capitals and not (GenEval 2)."""
YES, NO = ("Yes", "yes"), ("No", "no")


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Asking:
    """A reward with a name and a method `answer(images, questions)` that gives (B, Q) probabilities of yes.

    template: what a prompt is asked with, {} standing for it. questions: asked in place of the prompt. parts: ask about each part
    of a prompt that the rules of `questions` read. mean: of several answers.
    Raises ValueError for a template without its one {}, and for an unknown mean.
    """

    template: str = TEMPLATES["geneval2"]
    questions: tuple[str, ...] = ()
    parts: bool = False
    mean: str = MEANS[0]
    range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        if self.template.count("{}") != 1:
            raise ValueError(f"a template holds {{}} once, where the prompt goes; got {self.template!r:.80}")
        if self.mean not in MEANS:
            raise ValueError(f"no mean {self.mean!r}; expected one of {', '.join(MEANS)}")

    def asked(self, prompt: str) -> tuple[str, ...]:
        """The questions a prompt is scored by."""
        parts = self.questions or (questions_of(prompt) if self.parts else ())
        return tuple(PART.replace("{}", part) for part in parts) or (self.template.replace("{}", prompt),)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """(B,) float32 on the images' device, of images (B, H, W, 3) in [0, 1]."""
        return self.explain(images, prompt).scores

    def combine(self, values: Tensor) -> Tensor:
        """(B,) of every picture's answers (B, Q)."""
        return values.mean(dim=1) if self.mean == "arithmetic" else values.log().mean(dim=1).exp()

    @torch.no_grad()
    def explain(self, images: Tensor, prompt: str) -> Answers:
        """Every question asked, and every picture's answer to it."""
        check_images(images, self.name)
        questions = self.asked(prompt)
        values = self.answer(images, questions).to(images.device)
        return Answers(questions, values, self.combine(values))


@dataclass(frozen=True, repr=False, eq=False)
class AskedReward(Asking):
    """A reward whose questions somebody else's model answers."""

    answer: Callable[[Tensor, tuple[str, ...]], Tensor]
    name: str


def yes_against_no(logits: Tensor, yes: list[int], no: list[int]) -> Tensor:
    """(B,) probability that an answer begins with one of the tokens of yes and not of no, from logits (B, vocabulary)."""
    logits = logits.float()
    return (logits[:, yes].logsumexp(dim=1) - logits[:, no].logsumexp(dim=1)).sigmoid()
