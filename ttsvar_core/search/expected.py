"""The best of a few that were kept by their scores: what it should be.

Score z and final reward r are taken as jointly normal within a prompt, of correlation rho: r = rho z + sqrt(1 - rho^2) e. M samples
are scored, the K best go on, the best of these by r is the answer. Given the (K+1)th largest score t, those kept are independent
draws of z above t, and the share of all scores beyond t is Beta(K + 1, M - K) distributed (David and Nagaraja, Order
Statistics, 2003, section 2.5). So the answer is two integrals over fixed nodes, and one of 1 - F(r)^K over r.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_TAILS, _SCORES, _REWARDS = 10, 12, np.linspace(-6.0, 8.0, 71)  # nodes of t and of z above it, and the grid of r: exact to .002
_MOST_RHO = 0.99  # that so few nodes can tell


def expected_best(starts: ArrayLike, finish: ArrayLike, rho: ArrayLike) -> np.ndarray:
    """The expected final reward, in standard deviations, of the best of the `finish` best-scored of `starts` samples.

    rho: the correlation of scores with final rewards, 0 to 1. All three are numbers, or as many of each as there are answers.
    """
    from scipy.special import betaincinv, ndtr, ndtri

    starts, finish, rho = np.broadcast_arrays(*(np.asarray(values, float) for values in (starts, finish, rho)))
    cut, (quantiles, weights), (roots, within) = starts > finish, _unit_nodes(_TAILS), _unit_nodes(_SCORES)
    shares, within = roots**2, 2 * roots * within  # more nodes where scores are high
    rho = np.where(cut, np.clip(rho, 0, _MOST_RHO), 0)[..., None, None, None]
    beyond = betaincinv(finish[..., None] + 1, np.maximum(starts - finish, 1)[..., None], quantiles)
    scores = -ndtri(beyond[..., None] * shares)[..., None]
    below = np.einsum("s,...sr->...r", within, ndtr((_REWARDS - rho * scores) / np.sqrt(1 - rho**2)))
    below = below ** finish[..., None, None]
    missed = (below[..., 1:] + below[..., :-1]).sum(-1) / 2 * (_REWARDS[1] - _REWARDS[0])
    return _REWARDS[-1] - missed @ weights


def _unit_nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2
