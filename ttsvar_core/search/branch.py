"""Candidates from one forward pass: a sample goes on as several that differ from one scale on (LSRS, arXiv 2512.03796)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .view import View


@dataclass(frozen=True)
class Branch:
    """Draw `candidates` maps of the scale for each sample from the same logits; whoever selects next chooses among all of them.

    It acts while the scale is sampled, see `sampling.sample`, so it stands first of the stages there.
    """

    kind: ClassVar[str] = "branch"
    keep: ClassVar[None] = None
    scale: int
    candidates: int

    def sees(self, samples: int) -> str:
        """Nothing."""
        return "nothing"

    def check(self, samples: int, scored: bool) -> None:
        """Raise ValueError for fewer than two candidates."""
        if self.candidates < 2:
            raise ValueError(f"{self.candidates} candidates of each sample are no branching; draw at least 2, or leave it out")

    def select(self, view: View) -> None:
        """Nothing is left to do: the samples have branched."""
