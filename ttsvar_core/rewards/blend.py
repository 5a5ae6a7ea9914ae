"""Several rewards as one.

Sources: TTS-VAR averages the softmax of each reward over the batch for "HPS+IR"; the search over tokens of SoTo (arXiv 2604.15453)
finds the rank ensemble best on average; the others are the usual ways to bring scores of different units together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..names import BLENDS
from ..vision.network import NetworkBacked
from .base import Answers, Reward, check_prompt, explained

RANGES: dict[str, tuple[float, float]] = {"softmax": (0.0, 1.0), "z-score": (-3.0, 3.0), "rank": (0.0, 1.0)}


@dataclass(frozen=True, eq=False, repr=False)
class Blend(NetworkBacked):
    """A weighted average of rewards after bringing them to one unit, or their plain weighted sum.

    how: "rank" (best on average of ten verifiers in SoTo), "softmax" (the paper's) and "z-score" compare the images of one batch
    with each other, so such a score means nothing outside its batch; "weighted" adds weight times raw score. weights: one per
    reward, None for all 1.
    Raises ValueError for no rewards, an unknown `how`, or weights that do not fit.
    """

    rewards: Sequence[Reward]
    how: str = "softmax"
    weights: Sequence[float] | None = None

    def __post_init__(self):
        if not self.rewards:
            raise ValueError("a blend needs at least one reward")
        if self.how not in BLENDS:
            raise ValueError(f"no blend {self.how!r}; expected one of {', '.join(BLENDS)}")
        if len(self._weights) != len(self.rewards):
            raise ValueError(f"{len(self._weights)} weights for {len(self.rewards)} rewards; give one for each")
        if self.how != "weighted" and (min(self._weights) < 0 or sum(self._weights) <= 0):
            raise ValueError(f"weights of an average must be positive, got {tuple(self._weights)}")

    @property
    def name(self) -> str:
        return f"{'+'.join(reward.name for reward in self.rewards)} ({self.how})"

    @property
    def range(self) -> tuple[float, float]:
        if self.how != "weighted":
            return RANGES[self.how]
        pairs = zip(self._weights, self.rewards, strict=True)
        ends = [sorted(weight * end for end in reward.range) for weight, reward in pairs]
        return sum(low for low, _ in ends), sum(high for _, high in ends)

    @property
    def compares(self) -> bool:
        """Whether a score is relative to its batch, and means nothing beside that of another."""
        return self.how != "weighted" or any(getattr(reward, "compares", False) for reward in self.rewards)

    @property
    def models(self) -> tuple[nn.Module, ...]:
        return tuple(model for reward in self.rewards for model in getattr(reward, "models", ()))

    def check_prompt(self, prompt: str) -> None:
        """Raise ValueError for a prompt that one of the rewards cannot judge."""
        for reward in self.rewards:
            check_prompt(reward, prompt)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """(B,) float32 of images (B, H, W, 3) in [0, 1]. Raises ValueError for a part that is not finite: no unit mends it."""
        return self.explain(images, prompt).scores.to(images.device)

    def explain(self, images: Tensor, prompt: str) -> Answers:
        """Every reward's own scores, each before the questions it asked. Raises ValueError as `score` does."""
        parts = [explained(reward, images, prompt) for reward in self.rewards]
        questions, columns = [], []
        for reward, part in zip(self.rewards, parts, strict=True):
            asked = part.questions if len(part.questions) > 1 else ()
            questions += [reward.name, *(f"{reward.name}: {question}" for question in asked)]
            columns += [part.scores[:, None], part.values[:, : len(asked)]]
        return Answers(tuple(questions), torch.cat(columns, dim=1), self.combine(torch.stack([part.scores for part in parts])))

    def combine(self, scores: Tensor) -> Tensor:
        """(B,) float32 of the rewards' scores (R, B) of one batch."""
        weights = torch.tensor(self._weights, dtype=torch.float32, device=scores.device)
        if self.how != "weighted":
            weights = weights / weights.sum()
        return weights @ _comparable(scores, self.how)

    @property
    def _weights(self) -> Sequence[float]:
        return [1.0] * len(self.rewards) if self.weights is None else self.weights


def _comparable(scores: Tensor, how: str) -> Tensor:
    """Scores (R, B) of R rewards in one unit; a batch of one, or of equal scores, gives each image the same."""
    if how == "softmax":
        return scores.softmax(dim=1)
    if how == "z-score":
        spread = scores.std(dim=1, correction=0, keepdim=True)
        standardised = (scores - scores.mean(dim=1, keepdim=True)) / spread
        return torch.where(spread > 0, standardised, torch.zeros_like(scores))
    if how == "rank":
        return _ranks(scores)
    return scores


def _ranks(scores: Tensor) -> Tensor:
    """(R, B) from 0 for the worst to 1 for the best image; ties share the middle of their ranks."""
    below = (scores[:, None, :] < scores[:, :, None]).sum(dim=-1)
    tied = (scores[:, None, :] == scores[:, :, None]).sum(dim=-1)
    return (below + (tied - 1) / 2) / (scores.shape[1] - 1) if scores.shape[1] > 1 else torch.full_like(scores, 0.5)
