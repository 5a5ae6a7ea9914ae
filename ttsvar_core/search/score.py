"""Scores: noting them on the way, and keeping the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..selection import Selection, check_keep, unweighted
from .potential import exponents
from .resample import top_k

if TYPE_CHECKING:
    from ..state import SearchState
    from .view import View


@dataclass(frozen=True)
class Score:
    """Score all samples and keep them all: for potentials that look back, and for the record."""

    kind: ClassVar[str] = "score"
    keep: ClassVar[None] = None
    scale: int

    def sees(self, samples: int) -> str:
        """Scores."""
        return "scores"

    def check(self, samples: int, scored: bool) -> None:
        """It can always act."""

    def select(self, view: View) -> None:
        """Nothing is selected; the scores are noted in the state."""
        view.scored()


@dataclass(frozen=True)
class Best:
    """Keep the `keep` samples scored highest, each once, best first."""

    kind: ClassVar[str] = "best"
    scale: int
    keep: int

    def sees(self, samples: int) -> str:
        """Scores."""
        return "scores"

    def check(self, samples: int, scored: bool) -> None:
        """Raise ValueError for more than there are."""
        check_keep(self.keep, samples)

    def select(self, view: View) -> Selection:
        """See `best`."""
        return best(view.scored(), self.keep)


def best(state: SearchState, keep: int = 1) -> Selection:
    """The `keep` samples scored highest at the state's last finished scale, best first.

    Raises ValueError where a sample has no score there, and for more than there are samples.
    """
    check_keep(keep, state.samples)
    scores = exponents("value", state.scores, state.last_scale)
    ancestors = top_k(scores, keep)
    reason = f"best {keep} of {state.samples}, score {float(scores[ancestors[0]]):.4f}"
    return unweighted(ancestors.copy(), state.samples, reason)._replace(log_weights=scores)
