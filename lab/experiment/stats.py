"""Intervals and paired comparisons of per-prompt results.

Prompts are the units that vary: seeds of one prompt are averaged first, and the bootstrap draws prompts. Everything is
deterministic: the generator of the resampling is keyed, not global.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, permutation_test

RESAMPLES = 2000  # enough for two digits of a 95% interval (Efron and Tibshirani 1993, section 13.3)
CONFIDENCE = 0.95
_KEY = 20250718


class Interval(NamedTuple):
    """A mean over prompts with its bootstrap interval; ``count`` prompts."""

    mean: float
    low: float
    high: float
    count: int

    def told(self, form: str = ".3f") -> str:
        """As tables show it."""
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


class Comparison(NamedTuple):
    """One way of searching minus another on equal prompts and seeds.

    wins, ties, losses: of the single (prompt, seed) pairs. p: two-sided, of the sign-flip permutation test over prompts.
    """

    difference: Interval
    wins: int
    ties: int
    losses: int
    p: float

    @property
    def resolved(self) -> bool:
        """Whether the interval of the difference leaves out zero."""
        return self.difference.low > 0 or self.difference.high < 0


Values = Mapping[tuple[Hashable, int], float]  # (prompt, seed) -> value


def mean_interval(values: Values) -> Interval:
    """Mean over prompts and its percentile bootstrap interval. Raises ValueError without values."""
    return _interval(_per_prompt(values))


def compare(values: Values, baseline: Values) -> Comparison:
    """``values`` minus ``baseline`` on the pairs (prompt, seed) both have. Raises ValueError if they share none."""
    shared = [key for key in values if key in baseline]
    if not shared:
        raise ValueError("nothing to compare: the two have no prompt and seed in common")
    pairs = {key: values[key] - baseline[key] for key in shared}
    differences = np.array(list(pairs.values()))
    means = _per_prompt(pairs)
    return Comparison(
        _interval(means), int((differences > 0).sum()), int((differences == 0).sum()), int((differences < 0).sum()),
        sign_flip_p(means),
    )


def ratio_interval(parts: np.ndarray, wholes: np.ndarray, prompts: Sequence[Hashable]) -> Interval:
    """Sum of (n,) parts over sum of wholes with its percentile bootstrap interval over ``prompts`` (n,); 0 where that is 0."""
    keys = [(prompt, row) for row, prompt in enumerate(prompts)]
    sums = [_per_prompt(dict(zip(keys, map(float, values), strict=True))) for values in (parts, wholes)]
    if not sums[1].sum():
        return Interval(0.0, 0.0, 0.0, len(sums[0]))
    rows = np.random.default_rng([_KEY, 2]).integers(len(sums[0]), size=(RESAMPLES, len(sums[0])))
    above, below = (of[rows].sum(axis=1) for of in sums)
    drawn = above[below != 0] / below[below != 0]
    low, high = np.percentile(drawn, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return Interval(float(sums[0].sum() / sums[1].sum()), float(low), float(high), len(sums[0]))


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of the hypothesis that each of (n,) paired differences is as likely to have the other sign.

    All 2^n sign patterns where these are no more than the bootstrap draws, otherwise as many random ones as that.
    """
    if len(differences) == 1:
        return 1.0  # of two patterns, both are as far from zero
    generator = np.random.default_rng([_KEY, 1])
    found = permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=RESAMPLES, rng=generator)
    return float(found.pvalue)


def _per_prompt(values: Values) -> np.ndarray:
    """(prompts,) means over seeds, in the order prompts first appear."""
    if not values:
        raise ValueError("no values to average: run the experiment for at least one prompt and seed")
    prompts: dict[Hashable, list[float]] = {}
    for (prompt, _), value in values.items():
        prompts.setdefault(prompt, []).append(value)
    return np.array([np.mean(of_prompt) for of_prompt in prompts.values()])


def _interval(means: np.ndarray) -> Interval:
    """The percentile interval of the mean of (n,) values; of a single value nothing is known but itself."""
    mean = float(means.mean())
    if np.ptp(means) == 0:
        return Interval(mean, mean, mean, len(means))
    found = bootstrap(
        (means,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile",
        rng=np.random.default_rng([_KEY, 0]),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), len(means))
