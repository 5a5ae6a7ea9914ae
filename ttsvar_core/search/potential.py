"""Potentials: how much a sample's reward so far speaks for it (TTS-VAR paper, section 3.3).

With r_i the reward at scale i and k the present scale, in log space:
VALUE lam * r_k, DIFF lam * (r_k - r_(k-1)), MAX lam * max_(i<=k) r_i, SUM lam * sum_(i<=k) r_i,
where only scored scales count and the history is the sample's own (it moves along when samples are selected).
"""

import numpy as np
import torch
from torch import Tensor

from ..names import POTENTIALS
from ..selection import effective_sample_size

NEEDS_EARLIER_SCORES = frozenset({"diff", "max", "sum"})
_UNDERFLOW = 745.0  # exp(-746) is zero in float64


def exponents(kind: str, history: Tensor, scale: int) -> Tensor:
    """(P,) float64: the log-weights of the samples after `scale` at lambda = 1, which every other lambda multiplies.

    history: (P, S) rewards, NaN where a scale was not scored.
    Raises ValueError for an unknown potential, a sample without a score at `scale`, and DIFF without an earlier score.
    """
    if kind not in POTENTIALS:
        raise ValueError(f"unknown potential {kind!r}; choose one of {', '.join(POTENTIALS)}")
    scores = torch.as_tensor(history)[:, : scale + 1].double()
    now = scores[:, scale]
    if now.isnan().any():
        sample = int(now.isnan().int().argmax())
        raise ValueError(f"sample {sample} has no score at scale {scale}; score the state, then select by potential")
    if kind == "value":
        return now
    if kind == "diff":
        return now - _previous_scores(scores, scale)
    if kind == "max":
        return scores.nan_to_num(nan=-torch.inf).max(dim=1).values
    return scores.nan_to_num(nan=0.0).sum(dim=1)


def _previous_scores(scores: Tensor, scale: int) -> Tensor:
    """(P,) score at the last scored scale before `scale`, per sample."""
    earlier = scores[:, :scale]
    scored = ~earlier.isnan()
    without = ~scored.any(dim=1) if scale else torch.ones(len(scores), dtype=torch.bool)
    if without.any():
        sample = int(without.int().argmax())
        raise ValueError(
            f"DIFF at scale {scale} compares with an earlier score and sample {sample} has none; "
            "score an earlier scale or use VALUE here"
        )
    last = (scored * torch.arange(1, scale + 1)).argmax(dim=1)
    return earlier.gather(1, last[:, None])[:, 0]


def solve_lambda(exponent: Tensor, target_ess: float) -> float:
    """The lambda whose weights exp(lambda * exponent) have an effective sample size of `target_ess`.

    exponent: (P,) float64, see `exponents`. target_ess: between 1 and P. The effective sample size falls from P as
    lambda grows from 0, so the root is bracketed and found (adaptive tempering; Del Moral, Doucet and Jasra 2012).
    It never falls below the number of samples tied at the top; where the target lies below that, the lambda returned is
    the one past which nothing changes. With all exponents equal no lambda changes anything, and 0 is returned.
    """
    from scipy.optimize import brentq

    values = np.asarray(torch.as_tensor(exponent, dtype=torch.float64))
    if not 1 <= target_ess <= values.size:
        raise ValueError(f"target effective sample size is {target_ess:g}; expected 1 to {values.size}, the samples")
    behind = values.max() - values
    gaps = behind[behind > 0]
    if not np.isfinite(values).all():
        raise ValueError("exponents must be finite to solve for lambda")
    if gaps.size == 0 or target_ess == values.size:
        return 0.0
    most = _UNDERFLOW / gaps.min()

    def excess(lam: float) -> float:
        return effective_sample_size(-lam * behind) - target_ess

    if excess(most) >= 0:
        return float(most)
    return float(brentq(excess, 0.0, most, xtol=1e-12 / behind.max(), rtol=1e-12, maxiter=500))
