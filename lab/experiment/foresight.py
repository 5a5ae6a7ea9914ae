"""What each scale knows of the end, and what it costs to ask: one table for every reward that looked on the way.

How much of the end a scale has fixed is told from prefixes drawn through it, each completed several times, and the variance between
them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.stats import rankdata

from ttsvar_core.search.plan import Plan, raw
from ttsvar_core.selection import Selection, unweighted

from .arms import Arm, Experiment
from .offline import Pools, gain_of, pools_of, rank_correlations
from .prices import FIRST, Prices, Scorer
from .stats import Interval, ratio_interval
from .tables import Row, Section, watched_arms

COMPLETIONS = 2  # of each prefix: for a given number of pictures more prefixes tell more than more completions
BEST = 3
_WORDS = (
    "Within a prompt: the rank correlation of the score at a scale with the final score; of what the best of {samples} samples "
    "gains over a blind pick, the share that the scale's pick gains, and of what it gains over the best of {best} blind ones, the "
    "share that the best of its {best} highest gains. {fixed}Spent: operations of the transformer through the scale, and of one "
    "look there (decode and reward), as shares of one picture drawn, decoded and scored."
)
_FIXED = (
    "Fixed: the share of the variance of final ranks that is drawn by then ({prefixes} prefixes, {completions} completions each). "
)


def foresight_tables(results: dict[str, Any], experiment: Experiment) -> Iterator[Section]:
    """A section for every arm that was scored on the way."""
    prices, arms = Prices.from_json(results["prices"]), {arm.name: arm for arm in experiment.arms}
    for name in watched_arms(experiment):
        samples = arms[name].plan.samples
        if samples > 1:
            fixed = fixed_shares(results, [arm for arm in experiment.arms if arm.plan.samples == samples])
            yield _table(results, arms[name], prices, fixed)


def _table(results: dict[str, Any], arm: Arm, prices: Prices, fixed: dict[int, Interval]) -> Section:
    first = results["world"]["rewards"][0]
    scorer = Scorer(arm.reward or first, arm.plan.foreseen)
    pools = pools_of(results, {scorer.name: arm.name})
    if scorer.reward != first:  # what counts in the end is the first reward's word
        answered = arm.name.removesuffix(scorer.name) + first
        pools = pools_of(results, {first: answered, scorer.name: arm.name}) if answered in results["units"][0]["arms"] else pools
    told = _FIXED.format(prefixes=arm.plan.samples, completions=COMPLETIONS) if fixed else ""
    words = _WORDS.format(samples=arm.plan.samples, best=BEST, fixed=told)
    return Section(f"What a scale knows of the end, {arm.name}", words, list(_rows(pools, scorer, prices, fixed)))


def _rows(pools: Pools, scorer: Scorer, prices: Prices, fixed: dict[int, Interval]) -> Iterator[Row]:
    (spent, look), correlations = cost_shares(prices, scorer), rank_correlations(pools, scorer.name)
    for scale in pools.scales(scorer.name):
        pick, three = (gain_of(pools, scorer.name, scale, keep).share for keep in (1, BEST))
        yield [
            ("scale", str(scale)), ("rank correlation", _told(correlations, scale)), ("pick's share of the gain", _share(pick)),
            (f"best {BEST}'s share", _share(three)), *([("fixed", _told(fixed, scale))] if fixed else ()),
            ("spent so far", f"{spent[scale]:.1%}"), ("one look", f"{look[scale]:.1%}"),
        ]


def cost_shares(prices: Prices, scorer: Scorer = FIRST) -> tuple[list[float], list[float]]:
    """Per scale: operations of the transformer through it, and of one look there, as shares of one picture drawn and scored."""
    search = prices.search(replace(raw(), foreseen=scorer.foreseen), scorer.reward)
    whole, so_far, spent = search.total.flops, 0, []
    for scale in search.scales:
        so_far += scale.transformer
        spent.append(so_far / whole)
    return spent, [search.look(scale) / whole for scale in range(len(spent))]


def _told(intervals: dict[int, Interval], scale: int) -> str:
    return intervals[scale].told() if scale in intervals else ""


def _share(share: float) -> str:
    return "" if math.isnan(share) else f"{share:.0%}"


# How much of the end is fixed -----------------------------------------------------------------------------------------


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
