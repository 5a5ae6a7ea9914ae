"""What each scale knows of the end, and what it costs to ask: one table for every reward that looked on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ttsvar_core.search.plan import raw

from .arms import Arm, Experiment
from .offline import Pools, gain_of, pools_of, rank_correlations
from .prices import Prices
from .scorers import FIRST, Scorer
from .stats import Interval
from .tables import Section, watched_arms
from .variance import COMPLETIONS, fixed_shares

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
    """A section for every arm that was scored on the way. Nothing without prices, as in results of early versions."""
    if "prices" not in results:
        return
    prices, arms = Prices.from_json(results["prices"]), {arm.name: arm for arm in experiment.arms}
    fixed = fixed_shares(results, experiment.arms)
    for name in watched_arms(experiment):
        if arms[name].plan.samples > 1:
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
    header = ("scale", "rank correlation", "pick's share of the gain", f"best {BEST}'s share", *(["fixed"] if fixed else []),
              "spent so far", "one look")
    return Section(f"What a scale knows of the end, {arm.name}", words, (header, *_rows(pools, scorer, prices, fixed)))


def _rows(pools: Pools, scorer: Scorer, prices: Prices, fixed: dict[int, Interval]) -> Iterator[tuple[str, ...]]:
    spent, look = cost_shares(prices, scorer)
    correlations = rank_correlations(pools, scorer.name)
    for scale in pools.scales(scorer.name):
        pick, three = (gain_of(pools, scorer.name, scale, keep) for keep in (1, BEST))
        cells = [_told(fixed, scale)] if fixed else []
        yield (
            str(scale), _told(correlations, scale), _share(pick.share), _share(three.share), *cells, f"{spent[scale]:.1%}",
            f"{look[scale]:.1%}",
        )


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
