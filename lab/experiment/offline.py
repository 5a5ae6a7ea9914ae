"""What any early cut would have got, told from pools of finished samples that were scored at every scale; nothing is drawn.

A pool is n samples of one prompt and seed. Of a plan with M starts, cut once to K by the scores at a scale, and answered by the
best of the K: the expectation over all M of the n, drawn without replacement, is exact. With the pool in the order of its scores,
the last of the K stands at place t with probability C(t, K-1) C(n-1-t, M-K) / C(n, M), whoever is chosen, and the other K-1 are any
of the t before it; of those the j-th best in the end is the best with probability C(t-1-j, K-2) / C(t, K-1).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.special import comb
from scipy.stats import rankdata

from .stats import Interval, mean_interval
from .world import VERDICT

NEARLY_ALL = 0.995  # right answers among those that are good enough
TIED_ORDERS = 8  # random orders over which samples of equal score are averaged
_KEY = 20251124


class Pools(NamedTuple):
    """Finished samples with their past. units: (prompt, seed's number) of U pools. final: (U, n) by the reward that answers, named
    ``first``. correct: (U, n) verdicts, None without any. scores: by scorer (U, n, S), NaN where it did not score."""

    units: tuple[tuple[str, int], ...]
    first: str
    final: np.ndarray
    correct: np.ndarray | None
    scores: dict[str, np.ndarray]

    @property
    def samples(self) -> int:
        return self.final.shape[1]

    @property
    def prompts(self) -> int:
        """How many there are."""
        return len({prompt for prompt, _ in self.units})

    def by_unit(self, values: np.ndarray) -> dict[tuple[str, int], float]:
        """Values (U,) by prompt and seed, as `stats` takes them."""
        return dict(zip(self.units, map(float, values), strict=True))

    @property
    def metrics(self) -> tuple[str, ...]:
        """What an answer is measured by: the reward, and the verdict if there is one."""
        return (self.first, VERDICT) if self.correct is not None else (self.first,)

    def scales(self, scorer: str) -> tuple[int, ...]:
        """The scales before the last that a scorer scored."""
        scored = ~np.isnan(self.scores[scorer][:, :, :-1]).any(axis=(0, 1))
        return tuple(np.flatnonzero(scored).tolist())

    def values(self, metric: str) -> np.ndarray:
        """(U, n) of a metric."""
        return self.final if metric == self.first else self.correct


def pools_of(results: dict[str, Any], arms: dict[str, str]) -> Pools:
    """The pools in an experiment's results. arms: the watched Best-of-N arm of each scorer, the one that answers first."""
    units, first = results["units"], next(iter(arms))

    def history(arm: str) -> np.ndarray:
        rows = [unit["arms"][arm]["history"] for unit in units]
        return np.array([[[math.nan if value is None else value for value in row] for row in pool] for pool in rows])

    scores = {scorer: history(arm) for scorer, arm in arms.items()}
    judged = [unit["arms"][arms[first]].get("correct") for unit in units]
    correct = None if None in judged else np.array(judged)
    return Pools(tuple((unit["prompt"], unit["number"]) for unit in units), first, scores[first][:, :, -1], correct, scores)


def spent(pools: Pools, metric: str, scorer: str | None, scale: int, starts: int, finishers: int) -> np.ndarray:
    """(U,) what the answer of a plan gets on average: ``finishers`` of ``starts`` samples by the scores at ``scale``, then the best
    by the final reward. scorer: None for no cut, where starts and finishers are equal."""
    values, scores = pools.values(metric), None if scorer is None else pools.scores[scorer][:, :, scale]
    found = [
        expected(values, pools.final, scores, starts, finishers, np.random.default_rng([_KEY, order]))
        for order in range(TIED_ORDERS if _tied(pools.final) or (scores is not None and _tied(scores)) else 1)
    ]
    return np.mean(found, axis=0)


def expected(
    values: np.ndarray, final: np.ndarray, scores: np.ndarray | None, starts: int, finishers: int, generator: np.random.Generator
) -> np.ndarray:
    """(U,) expectation of ``values`` (U, n) at the answer; equal scores in a random order. See the module's first lines."""
    samples = values.shape[1]
    if not 1 <= finishers <= starts <= samples:
        raise ValueError(f"{finishers} of {starts} of {samples} samples: finishers, starts and samples must not fall in this order")
    shuffled = generator.random(values.shape)
    order = np.lexsort((shuffled, shuffled if scores is None else -scores), axis=1)
    values, final = np.take_along_axis(values, order, 1), np.take_along_axis(final, order, 1)
    place = np.lexsort((generator.random(values.shape), final), axis=1).argsort(axis=1)  # of each sample in the end, all distinct
    return _at_last(values, place, finishers) @ _last_place(samples, starts, finishers)


def _at_last(values: np.ndarray, place: np.ndarray, finishers: int) -> np.ndarray:
    """(U, n): what the answer gets if the last finisher is the t-th by score, for every t (0 where there are too few before it)."""
    if finishers == 1:
        return values
    samples = values.shape[1]
    better = place[:, :, None] > place[:, None, :]  # [u, i, k]: i ends above k
    before = np.cumsum(better, axis=1) - better  # [u, t, k]: of the first t, how many end above k
    chosen = _best_chosen(samples, finishers)[np.arange(samples)[:, None], before]
    chosen = chosen * np.tri(samples, k=-1)
    above = np.swapaxes(better, 1, 2)  # [u, t, k]: k ends above t
    return (chosen * np.where(above, values[:, None, :], values[:, :, None])).sum(axis=2)


@lru_cache(maxsize=64)
def _best_chosen(samples: int, finishers: int) -> np.ndarray:
    """[t, j]: that of t samples the j-th best in the end is the best among finishers - 1 chosen at random."""
    many, behind = np.arange(samples)[:, None], np.arange(samples)[:, None] - 1 - np.arange(samples)
    return comb(behind, finishers - 2) / np.maximum(comb(many, finishers - 1), 1)


@lru_cache(maxsize=4096)
def _last_place(samples: int, starts: int, finishers: int) -> np.ndarray:
    """(n,): that the last finisher is the t-th of the pool by score."""
    places = np.arange(samples)
    return comb(places, finishers - 1) * (comb(samples - 1 - places, starts - finishers) / comb(samples, starts))


def _tied(values: np.ndarray) -> bool:
    return bool((np.diff(np.sort(values, axis=1), axis=1) == 0).any())


# How well a score foretells -------------------------------------------------------------------------------------------


def rank_correlations(pools: Pools, scorer: str) -> dict[int, Interval]:
    """Per scale: Spearman's rank correlation of the scores there and the final reward within a prompt, on average; a prompt whose
    samples all end equal says nothing and is left out, scores that are all equal correlate by 0."""
    found = {}
    for scale in pools.scales(scorer):
        each = rank_correlation(pools.scores[scorer][:, :, scale], pools.final)
        told = {unit: value for unit, value in pools.by_unit(each).items() if not math.isnan(value)}
        if told:
            found[scale] = mean_interval(told)
    return found


def rank_correlation(scores: np.ndarray, final: np.ndarray) -> np.ndarray:
    """(U,) Spearman's rank correlation within each row of (U, n); NaN where all ``final`` are equal, 0 where all scores are."""
    ours, theirs = (rankdata(values, axis=1) for values in (scores, final))
    ours, theirs = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (ours, theirs))
    spread = np.sqrt((ours**2).sum(axis=1) * (theirs**2).sum(axis=1))
    found = np.divide((ours * theirs).sum(axis=1), spread, out=np.zeros(len(ours)), where=spread > 0)
    return np.where((theirs**2).sum(axis=1) > 0, found, np.nan)


def good_enough(pools: Pools) -> float | None:
    """The lowest final score from which on `NEARLY_ALL` samples are right; None without verdicts, and where no score says that."""
    if pools.correct is None:
        return None
    falling = np.argsort(-pools.final, axis=None)
    right = np.cumsum(pools.correct.ravel()[falling]) / np.arange(1, falling.size + 1)
    sure = np.flatnonzero(right >= NEARLY_ALL)
    return float(pools.final.ravel()[falling[sure[-1]]]) if sure.size else None


class Gain(NamedTuple):
    """What the best of the ``keep`` samples of the highest scores ends above the best of as many blind ones: the gain, and the most
    there is, of the pool's best. share: the one in the other, of the means over prompts."""

    gain: Interval
    most: Interval
    share: float


def gain_of(pools: Pools, scorer: str, scale: int, keep: int) -> Gain:
    """Of a scorer's choice at a scale."""
    metric, keep = pools.first, min(keep, pools.samples)
    blind = spent(pools, metric, None, 0, keep, keep)
    chosen = spent(pools, metric, scorer, scale, pools.samples, keep)
    best = spent(pools, metric, None, 0, pools.samples, pools.samples)
    gain, most = (mean_interval(pools.by_unit(values - blind)) for values in (chosen, best))
    return Gain(gain, most, gain.mean / most.mean if most.mean else math.nan)
