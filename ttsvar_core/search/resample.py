"""Resampling-based potential selection (TTS-VAR paper, section 3.3): from scores to weights to ancestor rows.

Every scheme with replacement is unbiased: sample i has keep * w_i copies in expectation. They differ in the variance
of that count, which is never larger than multinomial's for residual and stratified and smallest for systematic, where a
count never leaves floor and ceiling (Douc, Cappé and Moulines 2005, "Comparison of resampling schemes for particle
filtering").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from ..names import POTENTIALS, SCHEMES
from ..rng import selection_generator
from ..selection import Selection, as_log_weights, check_keep, effective_sample_size, normalised_weights
from .potential import NEEDS_EARLIER_SCORES, exponents, solve_lambda

if TYPE_CHECKING:
    from torch import Tensor

    from .view import View


@dataclass(frozen=True)
class Resample:
    """Draw `keep` samples by a potential of their scores.

    lam: the paper's lambda. target_ess: a share of the samples in (0, 1]; lambda is then solved for, so that the potential alone
    leaves that effective sample size, and lam ignored. ess_threshold: see `resample`.
    """

    kind: ClassVar[str] = "resample"
    scale: int
    keep: int
    potential: str = "value"
    lam: float = 10.0
    scheme: str = "multinomial"
    ess_threshold: float | None = None
    target_ess: float | None = None

    def sees(self, samples: int) -> str:
        """Scores."""
        return "scores"

    def check(self, samples: int, scored: bool) -> None:
        """Raise ValueError for a setting that is none, and for a potential that looks back where nothing is scored earlier."""
        if self.potential not in POTENTIALS:
            raise ValueError(f"unknown potential {self.potential!r}; use {', '.join(POTENTIALS)}")
        if self.potential in NEEDS_EARLIER_SCORES and not scored:
            raise ValueError(f"{self.potential.upper()} looks back and no earlier scale is scored; score one, or use VALUE here")
        check_scheme(self.scheme, self.keep, samples)
        if not (math.isfinite(self.lam) and self.lam >= 0):
            raise ValueError(f"lambda is {self.lam}; expected a finite number of at least 0")
        for name in ("ess_threshold", "target_ess"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} is {share}; it is a share of the samples, above 0 and at most 1")

    def select(self, view: View) -> Selection:
        """See `resample`; the weights are the potential times what earlier selections have not spent.

        Raises ValueError where `exponents` and `resample` do.
        """
        state = view.scored()
        generator = selection_generator(state.seed, state.last_scale, state.selections_here)
        selection = self.draw(state.scores, state.last_scale, generator, state.log_weights)
        view.state = state._replace(log_weights=selection.log_weights)
        return selection

    def draw(
        self, history: Tensor, scale: int, generator: np.random.Generator, unspent: Tensor | float = 0.0
    ) -> Selection:
        """The selection among P samples with rewards (P, S), as `exponents` takes them; of a state or of any other batch.

        unspent: (P,) log-weights from before. Raises ValueError where `exponents` and `resample` do.
        """
        exponent, lam = exponents(self.potential, history, scale), self.lam
        if self.target_ess is not None:
            lam = solve_lambda(exponent, max(1.0, self.target_ess * len(history)))
        selection = resample(unspent + lam * exponent, self.keep, self.scheme, generator, self.ess_threshold)
        return selection._replace(reason=f"{self.potential.upper()}, lambda {lam:.4g}, {selection.reason}")


def resample(
    log_weights, keep: int, scheme: str, generator: np.random.Generator, ess_threshold: float | None = None
) -> Selection:
    """Choose `keep` survivors among P samples by their weights.

    log_weights: (P,), unnormalised; -inf is a weight of zero. generator: see `rng.selection_generator`.
    ess_threshold: a share of P; while the effective sample size is at least that, the weights say too little to be
    worth the noise and the copies of resampling. Nothing is drawn then if keep is P; a cut that the schedule asks for
    is still made, by weight but without replacement, so that the survivors stay distinct.
    Raises ValueError for a NaN or +inf log-weight (naming the sample), when all are -inf, for an unknown scheme, and
    for more survivors than samples.
    """
    values = as_log_weights(log_weights)
    check_scheme(scheme, keep, values.size)
    ess = effective_sample_size(values)
    idle = False
    if ess_threshold is not None and ess >= ess_threshold * values.size and keep <= np.isfinite(values).sum():
        idle = keep == values.size
        ancestors = np.arange(keep) if idle else draw_without_replacement(values, keep, generator)
        how = f"ess {ess:.2f} has not fallen below {ess_threshold:g} x {values.size}: "
        how += "all kept with their weights, nothing drawn" if idle else "cut without replacement"
    else:
        ancestors = _DRAW[scheme](values, keep, generator)
        how = f"{scheme}, ess {ess:.2f} of {values.size}"
    return Selection(torch.from_numpy(ancestors.astype(np.int64)), torch.from_numpy(values.copy()), ess, how, not idle)


def check_scheme(scheme: str, keep: int, samples: int) -> None:
    """Raise ValueError unless `scheme` exists and can choose `keep` of `samples`."""
    if scheme not in SCHEMES:
        raise ValueError(f"unknown resampling scheme {scheme!r}; choose one of {', '.join(SCHEMES)}")
    check_keep(keep, samples)


def multinomial(log_weights, keep: int, generator: np.random.Generator) -> np.ndarray:
    """(keep,) independent draws, the scheme of the TTS-VAR paper (section 3.3)."""
    return _rows_at(normalised_weights(log_weights), generator.random(keep))


def stratified(log_weights, keep: int, generator: np.random.Generator) -> np.ndarray:
    """(keep,) draws, one from each of keep equal strata of the cumulative weights (Kitagawa 1996)."""
    return _rows_at(normalised_weights(log_weights), (np.arange(keep) + generator.random(keep)) / keep)


def systematic(log_weights, keep: int, generator: np.random.Generator) -> np.ndarray:
    """(keep,) draws with one uniform shared by all strata (Carpenter, Clifford and Fearnhead 1999)."""
    return _rows_at(normalised_weights(log_weights), (np.arange(keep) + generator.random()) / keep)


def residual(log_weights, keep: int, generator: np.random.Generator) -> np.ndarray:
    """(keep,) rows: floor(keep * w_i) certain copies, the rest multinomial over what is left (Liu and Chen 1998)."""
    expected = keep * normalised_weights(log_weights)
    certain = np.floor(expected * (1 + 8 * np.finfo(float).eps)).astype(np.int64)  # 49 x (1 / 49) is one copy
    rows = np.repeat(np.arange(expected.size), certain)
    left = keep - rows.size
    if left == 0:
        return rows
    rest = np.clip(expected - certain, 0, None)
    return np.concatenate([rows, _rows_at(rest / rest.sum(), generator.random(left))])


def top_k(log_weights, keep: int, generator: np.random.Generator | None = None) -> np.ndarray:
    """(keep,) rows with the largest weights, best first; among equals the lower row comes first. Draws nothing."""
    return np.argsort(-as_log_weights(log_weights), kind="stable")[:keep]


def draw_without_replacement(log_weights, keep: int, generator: np.random.Generator) -> np.ndarray:
    """(keep,) distinct rows in rising order, drawn one after another by weight among those left.

    The largest log-weights with Gumbel noise are such draws (Kool, van Hoof and Welling 2019, "Stochastic beams").
    Raises ValueError where fewer than `keep` have a positive weight.
    """
    values = as_log_weights(log_weights)
    positive = int(np.isfinite(values).sum())
    if keep > positive:
        raise ValueError(f"cannot draw {keep} samples without replacement: only {positive} have a positive weight; keep fewer")
    return np.sort(np.argsort(-(values + generator.gumbel(size=values.size)), kind="stable")[:keep])


def _rows_at(weights: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Rows where the cumulative `weights` (P,) pass each of `points` in [0, 1); a row of weight zero is never hit."""
    cumulative = np.cumsum(weights)
    last = np.flatnonzero(weights)[-1]
    return np.minimum(np.searchsorted(cumulative, points * cumulative[-1], side="right"), last)


_DRAW = {
    "multinomial": multinomial,
    "systematic": systematic,
    "stratified": stratified,
    "residual": residual,
    "top-k": top_k,
    "without-replacement": draw_without_replacement,
}
