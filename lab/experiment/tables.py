"""From raw results to the numbers of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from ttsvar_core.search.potential import exponents

from .arms import Experiment, Pair
from .offline import pools_of
from .stats import Comparison, Interval, Values, compare, mean_interval
from .world import VERDICT

POTENTIAL_KINDS = ("value", "max", "sum", "diff")


class Section(NamedTuple):
    """A heading, a paragraph, a table (first row: header) and a figure, each of which may be missing."""

    title: str
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()
    figure: bytes = b""


class ArmRow(NamedTuple):
    """One arm: its metrics' means over prompts, the mean score of all its survivors, and what it costs.

    images: token-forwards in whole images. flops: of every network that runs, mean over prompts. seconds, pictures: means as well,
    NaN where they were not measured; pictures: the cost in pictures drawn in full and judged."""

    name: str
    metrics: dict[str, Interval]
    survivors: Interval
    images: float
    flops: float
    decodes: int
    seconds: float = math.nan
    pictures: float = math.nan


class PairRow(NamedTuple):
    """One comparison, per metric; published: the paper's differences in GenEval and ImageReward."""

    pair: Pair
    metrics: dict[str, Comparison]
    published: tuple[float, float] | None


def metric_values(results: dict[str, Any], arm: str, metric: str) -> Values:
    """What each prompt and seed's answer got."""
    return {_unit(unit): unit["arms"][arm]["answer"][metric] for unit in results["units"]}


def shown_metrics(results: dict[str, Any]) -> tuple[str, ...]:
    """The metrics tables show: the reward that searches, the verdict if there is one, other rewards."""
    first, *others = results["world"]["metrics"]
    return (first, *sorted(others, key=lambda name: name != VERDICT))


def arm_row(results: dict[str, Any], arm: str) -> ArmRow:
    costs = [unit["arms"][arm]["cost"] for unit in results["units"]]
    whole = sum(height * width for height, width in results["world"]["schedule"])
    survivors = {_unit(unit): _mean(unit["arms"][arm]["scores"]) for unit in results["units"]}
    return ArmRow(
        arm,
        {metric: mean_interval(metric_values(results, arm, metric)) for metric in shown_metrics(results)},
        mean_interval(survivors),
        costs[0]["token_forwards"] / whole,
        _mean(cost["flops"] for cost in costs),
        costs[0]["decodes"],
        *(mean_cost(results, arm, what) for what in ("seconds", "pictures")),
    )


def mean_cost(results: dict[str, Any], arm: str, what: str) -> float:
    """The mean of a cost over the units where it was measured; NaN where it never was."""
    costs = [unit["arms"][arm]["cost"] for unit in results["units"]]
    known = [cost[what] for cost in costs if what in cost]
    return _mean(known) if known else math.nan


def cost_cells(results: dict[str, Any], pair: Pair) -> tuple[str, str]:
    """Of a comparison at equal cost: what the two cost in pictures, and whether the arm costs at most what its baseline does."""
    ours, theirs = (mean_cost(results, name, "pictures") for name in (pair.arm, pair.baseline))
    return f"{ours:.2f} of {theirs:.2f}", "yes" if costs_no_more(results, pair) else "no"


def costs_no_more(results: dict[str, Any], pair: Pair) -> bool:
    """Whether an arm's operations are no more than its baseline's, for every prompt and seed."""
    return all(unit["arms"][pair.arm]["cost"]["flops"] <= unit["arms"][pair.baseline]["cost"]["flops"] for unit in results["units"])


def pair_row(results: dict[str, Any], pair: Pair) -> PairRow:
    metrics = {
        metric: compare(metric_values(results, pair.arm, metric), metric_values(results, pair.baseline, metric))
        for metric in shown_metrics(results)
    }
    published = None
    if pair.published and pair.published_baseline:
        published = tuple(ours - theirs for ours, theirs in zip(pair.published, pair.published_baseline, strict=True))
    return PairRow(pair, metrics, published)


def agreement(found: Comparison, published: float | None) -> str:
    """What a comparison says of the paper's: "agrees", "contradicts", or that it cannot tell."""
    if not found.resolved:
        return "not resolved"
    gains = found.difference.mean > 0
    if published is None:
        return "better" if gains else "worse"
    return "agrees" if gains == (published > 0) else "contradicts"


def category_rows(results: dict[str, Any], arms: Iterable[str], metric: str) -> dict[str, dict[str, Interval]]:
    """Per category, the metric of every arm; empty if prompts have no categories."""
    categories = sorted({unit["category"] for unit in results["units"]} - {""})
    rows = {}
    for category in categories:
        part = {**results, "units": [unit for unit in results["units"] if unit["category"] == category]}
        rows[category] = {arm: mean_interval(metric_values(part, arm, metric)) for arm in arms}
    return rows


class Consistency(NamedTuple):
    """Per potential and scale: how often the best sample there is the best in the end. chance: the same of a sample picked
    blindly. gain: how much higher the final score of VALUE's pick at a scale is than that of a blind pick; most: of the best."""

    hits: dict[str, dict[int, Interval]]
    chance: Interval
    gain: dict[int, Interval]
    most: Interval


def consistency(results: dict[str, Any], arm: str) -> Consistency:
    """Of one watched Best-of-N arm. Ties share: one of three best counts a third if one of them is the best in the end."""
    pools = pools_of(results, {arm: arm})
    scales, final, blind = pools.scales(arm), pools.final, pools.final.mean(axis=1)
    top = _shares(final) > 0
    table = torch.tensor(pools.scores[arm], dtype=torch.float32).flatten(0, 1)  # a row per sample

    def picked(kind: str, scale: int) -> np.ndarray:
        return _shares(exponents(kind, table, scale).reshape(final.shape).numpy())

    def over_prompts(values: np.ndarray) -> Interval:
        return mean_interval(pools.by_unit(values))

    hits = {
        kind: {scale: over_prompts((picked(kind, scale) * top).sum(axis=1)) for scale in scales[kind == "diff" :]}
        for kind in POTENTIAL_KINDS  # of which DIFF needs an earlier scale
    }
    gain = {scale: over_prompts((picked("value", scale) * final).sum(axis=1) - blind) for scale in scales}
    return Consistency(hits, over_prompts(top.mean(axis=1)), gain, over_prompts(final.max(axis=1) - blind))


def _shares(values: np.ndarray) -> np.ndarray:
    """(U, n) of the best of each row of values (U, n), one in all: the best, or several that share it."""
    best = values == values.max(axis=1, keepdims=True)
    return best / best.sum(axis=1, keepdims=True)


def watched_arms(experiment: Experiment) -> list[str]:
    """The arms that recorded scores at every scale."""
    return [arm.name for arm in experiment.arms if arm.watched and not arm.plan.selects(math.inf)]


def _unit(record: dict[str, Any]) -> tuple[str, int]:
    return record["prompt"], record["number"]


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
