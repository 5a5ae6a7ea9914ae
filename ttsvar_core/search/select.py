"""The steps of a search: score, keep diverse samples, resample by potential, keep the best.

Each takes a state and returns a new one; `run` and the nodes are made of these functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..rewards.base import check_finite
from ..rng import selection_generator
from .cluster import cluster
from .features import FeatureExtractor, describe_state
from .potential import exponents, log_potential, solve_lambda
from .resample import check_scheme, resample, top_k
from .selection import Selection, unweighted

if TYPE_CHECKING:
    from ..rewards.base import Reward
    from .state import SearchState


def score(state: SearchState, reward: Reward, images: Tensor | None = None) -> tuple[SearchState, Tensor]:
    """The state with the rewards of its samples at the last finished scale, and those rewards (P,) float32.

    images: (P, H, W, 3) in [0, 1] of this very state when they are decoded already; decoded here otherwise.
    Raises ValueError, naming the reward and the sample, for a reward that is not a finite number: one NaN would take
    every other sample's weight with it.
    """
    scale = _last_scale(state, "score")
    if images is None:
        from ..decoding import decode

        images = decode(state)
    scores = torch.as_tensor(reward.score(images, state.conditioning.prompt)).detach().float().cpu()
    if scores.shape != (state.samples,):
        raise ValueError(
            f"reward {reward.name} gave shape {tuple(scores.shape)} for {state.samples} images; expected one per image"
        )
    check_finite(scores, reward.name, "sample", f" at scale {scale}")
    return state.with_scores(scores), scores


def cluster_select(
    state: SearchState, extractor: FeatureExtractor | None, keep: int, images: Tensor | None = None
) -> tuple[SearchState, Selection]:
    """The state cut to `keep` samples that differ (`cluster.cluster`), and the Selection.

    extractor: not asked when all samples are kept. images: of this very state, as in `score`.
    """
    scale = _last_scale(state, "cluster")
    if keep == state.samples:
        selection = unweighted(range(keep), keep, f"all {keep} samples kept, nothing to cluster")
        return state.select(selection), selection
    if keep > state.samples or keep < 1:
        raise ValueError(f"clustering cannot keep {keep} of {state.samples} samples; keep 1 to {state.samples}")
    selection = cluster(describe_state(state, extractor, images), keep, state.seed, scale)
    selection = selection._replace(reason=f"{selection.reason} ({extractor.name})")
    return state.select(selection), selection


def potential_select(
    state: SearchState,
    keep: int,
    potential: str = "value",
    lam: float = 10.0,
    scheme: str = "multinomial",
    ess_threshold: float | None = None,
    target_ess: float | None = None,
) -> tuple[SearchState, Selection]:
    """The state resampled to `keep` samples by their potential, and the Selection.

    lam: the paper's lambda. target_ess: a share of the samples in (0, 1]; lambda is then solved for, and lam ignored.
    ess_threshold: see `resample.resample`. Raises ValueError where `log_potential` and `resample` do.
    """
    scale = _last_scale(state, "select")
    check_scheme(scheme, keep, state.samples)
    if target_ess is not None:
        target = max(1.0, target_ess * state.samples)
        lam = solve_lambda(exponents(potential, state.scores, scale), target)
    weights = log_potential(potential, state.scores, scale, lam)
    selection = resample(weights, keep, scheme, selection_generator(state.seed, scale), ess_threshold)
    selection = selection._replace(reason=f"{potential.upper()}, lambda {lam:.4g}, {selection.reason}")
    return state.select(selection), selection


def best(state: SearchState, keep: int = 1) -> tuple[SearchState, Selection]:
    """The state cut to the `keep` samples scored highest at its last finished scale, best first, and the Selection."""
    scale = _last_scale(state, "choose the best")
    check_scheme("top-k", keep, state.samples)
    scores = exponents("value", state.scores, scale)
    ancestors = top_k(scores, keep)
    reason = f"best {keep} of {state.samples}, score {float(scores[ancestors[0]]):.4f}"
    selection = unweighted(ancestors.copy(), state.samples, reason)._replace(log_weights=scores)
    return state.select(selection), selection


def _last_scale(state: SearchState, what: str) -> int:
    """The last finished scale of `state`; raises ValueError when there is none yet."""
    if state.next_scale == 0:
        raise ValueError(f"nothing to {what}: no scale has been sampled yet; sample at least scale 0 first")
    return state.last_scale
