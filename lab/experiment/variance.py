"""How much of the end a scale has fixed: prefixes drawn through it, each completed several times, and the variance between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.stats import rankdata

from ttsvar_core.search.plan import Plan
from ttsvar_core.selection import Selection, unweighted

from .arms import Arm
from .stats import Interval, ratio_interval

COMPLETIONS = 2  # of each prefix: for a given number of pictures more prefixes tell more than more completions


@dataclass(frozen=True)
class Complete:
    """Go on with ``keep`` samples, every one that is there as often as the others: their copies draw apart from here on."""

    kind: ClassVar[str] = "complete"
    scale: int
    keep: int

    def sees(self, samples: int) -> str:
        return "nothing"

    def check(self, samples: int, scored: bool) -> None:
        """Raise ValueError unless every sample can go on equally often."""
        if self.keep % samples:
            raise ValueError(f"{samples} samples cannot go on as {self.keep}; name a multiple")

    def select(self, view: Any) -> Selection:
        """Each row so many times in turn."""
        times = self.keep // view.state.samples
        return unweighted(np.repeat(np.arange(view.state.samples), times), view.state.samples, f"each {times} times")


def completed(prefixes: int, scale: int) -> Arm:
    """So many samples through ``scale``, each completed `COMPLETIONS` times."""
    return Arm(f"fixed-{prefixes}-at-{scale}", Plan("fixed", prefixes, (Complete(scale, COMPLETIONS * prefixes),)))


def fixed_shares(results: dict[str, Any], arms: Sequence[Arm]) -> dict[int, Interval]:
    """Per scale the share of the variance of final ranks within a prompt that lies between prefixes (one-way random effects)."""
    found = {}
    for arm in arms:
        if arm.plan.stages and arm.plan.stages[0].kind == Complete.kind:
            final = np.array([unit["arms"][arm.name]["scores"] for unit in results["units"]])
            ranks = rankdata(final, axis=1).reshape(len(final), arm.plan.samples, -1)
            between, whole = components(ranks)
            found[arm.plan.stages[0].scale] = ratio_interval(between, whole, [unit["prompt"] for unit in results["units"]])
    return found


def components(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(U,) variance between prefixes, and in all, of values (U, prefixes, completions); unbiased, so the first may be negative."""
    within = values.var(axis=2, ddof=1).mean(axis=1)
    between = values.mean(axis=2).var(axis=1, ddof=1) - within / values.shape[2]
    return between, between + within
