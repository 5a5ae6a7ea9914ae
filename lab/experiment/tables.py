"""From raw results to the numbers of a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch

from ttsvar_core.search.potential import exponents

from .arms import Experiment, Pair
from .offline import pools_of
from .stats import Comparison, Interval, Values, compare, mean_interval
from .world import VERDICT

POTENTIAL_KINDS = ("value", "max", "sum", "diff")


Row = Sequence[tuple[str, str]]  # a table's cells, each with what stands above it


class Section(NamedTuple):
    """A heading, a paragraph, a table and a figure, each of which may be missing."""

    title: str
    text: str = ""
    rows: Sequence[Row] = ()
    figure: bytes = b""


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows with equal heads as a Markdown table."""
    lines = [[head for head, _ in rows[0]], ["---"] * len(rows[0]), *([cell for _, cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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
    return ArmRow(
        arm,
        {metric: mean_interval(metric_values(results, arm, metric)) for metric in shown_metrics(results)},
        mean_interval({_unit(unit): fmean(unit["arms"][arm]["scores"]) for unit in results["units"]}),
        costs[0]["token_forwards"] / whole,
        mean_cost(results, arm, "flops"),
        costs[0]["decodes"],
        mean_cost(results, arm, "seconds"),
        mean_cost(results, arm, "pictures"),
    )


def mean_cost(results: dict[str, Any], arm: str, what: str) -> float:
    """The mean of a cost over the units where it was measured; NaN where it never was."""
    costs = [unit["arms"][arm]["cost"] for unit in results["units"]]
    known = [cost[what] for cost in costs if what in cost]
    return fmean(known) if known else math.nan


def cost_cells(results: dict[str, Any], pair: Pair) -> Row:
    """Of a comparison at equal cost: what the two cost in pictures, and whether the arm's operations are no more than its
    baseline's for every prompt and seed."""
    ours, theirs = (mean_cost(results, name, "pictures") for name in (pair.arm, pair.baseline))
    spent = [[unit["arms"][name]["cost"]["flops"] for name in (pair.arm, pair.baseline)] for unit in results["units"]]
    no_more = all(arm <= baseline for arm, baseline in spent)
    return [("cost in pictures", f"{ours:.2f} of {theirs:.2f}"), ("at most its cost", "yes" if no_more else "no")]


def compared(results: dict[str, Any], pair: Pair) -> dict[str, Comparison]:
    """One comparison, by metric."""
    found = {metric: [metric_values(results, arm, metric) for arm in pair[:2]] for metric in shown_metrics(results)}
    return {metric: compare(*values) for metric, values in found.items()}


def agreement(found: Comparison, published: float | None) -> str:
    """What a comparison says of the paper's: "agrees", "contradicts", or that it cannot tell."""
    if not found.resolved:
        return "not resolved"
    gains = found.difference.mean > 0
    if published is None:
        return "better" if gains else "worse"
    return "agrees" if gains == (published > 0) else "contradicts"


def category_rows(results: dict[str, Any], arms: Sequence[str], metric: str) -> list[Row]:
    """Per category, the metric of every arm; none if prompts have no categories."""
    rows = []
    for category in sorted({unit["category"] for unit in results["units"]} - {""}):
        part = {**results, "units": [unit for unit in results["units"] if unit["category"] == category]}
        means = ((arm, mean_interval(metric_values(part, arm, metric)).mean) for arm in arms)
        rows.append([("category", category), *((arm, f"{mean:.2f}") for arm, mean in means)])
    return rows


class Consistency(NamedTuple):
    """Per potential and scale: how often the best sample there is the best in the end. chance: the same of a sample picked
    blindly. gain: how much higher the final score of VALUE's pick at a scale is than that of a blind pick; most: of the best."""

    hits: dict[str, dict[int, Interval]]
    chance: Interval
    gain: dict[int, Interval]
    most: Interval

    def rows(self, gained: str, hit: Callable[[Interval], str], gain: Callable[[Interval], str]) -> list[Row]:
        """By scale, hits and gains as told so; gained: what stands above the gains."""
        return [
            [("scale", str(scale)), *((kind.upper(), hit(of[scale]) if scale in of else "") for kind, of in self.hits.items()),
             (gained, gain(self.gain[scale]))]
            for scale in self.gain
        ]


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
