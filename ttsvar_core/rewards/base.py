"""What a reward is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

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
    every prompt has a method `check_prompt(prompt)` as well, which raises ValueError for those it cannot.
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
