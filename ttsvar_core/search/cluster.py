"""Clustering-based diversity selection (TTS-VAR paper, section 3.2): keep samples that differ."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..rng import selection_generator
from ..selection import Selection, check_keep, unweighted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..extractors.base import FeatureExtractor
    from .view import View

N_INIT = 10  # restarts of K-Means++; pinned, because scikit-learn's default has changed between versions


@dataclass(frozen=True)
class Cluster:
    """Keep `keep` samples that differ, by the extractor's vectors. All are kept unseen where there are no more than that."""

    kind: ClassVar[str] = "cluster"
    scale: int
    keep: int

    def sees(self, samples: int) -> str:
        """The extractor's vectors; nothing where all samples are kept."""
        return "vectors" if self.keep < samples else "nothing"

    def check(self, samples: int, scored: bool) -> None:
        """Raise ValueError for more than there are."""
        check_keep(self.keep, samples)

    def select(self, view: View) -> Selection:
        """See `draw`."""
        state = view.state
        generator = selection_generator(state.seed, state.last_scale, state.selections_here)
        return self.draw(state.samples, view.vectors, view.extractor, generator)

    def draw(
        self, samples: int, vectors: Callable[[], Tensor], extractor: FeatureExtractor | None, generator: np.random.Generator
    ) -> Selection:
        """The selection among the samples of a state or of any other batch, by their vectors: see `cluster`."""
        if self.sees(samples) == "nothing":
            return unweighted(range(samples), samples, f"all {samples} samples kept, nothing to cluster")
        selection = cluster(vectors(), self.keep, generator)
        return selection._replace(reason=f"{selection.reason} ({extractor.name})")


def cluster(vectors: Tensor, keep: int, generator: np.random.Generator) -> Selection:
    """Keep `keep` of P samples: the one nearest (L2) to each centre of a K-Means++ clustering.

    vectors: (P, F), one feature vector per sample. The ancestors are distinct and in rising order; when there are fewer
    distinct vectors than clusters, the places left go to the samples farthest from those already kept.
    Raises ValueError for a non-finite vector (naming the sample) and for keep outside 1..P.
    """
    points = _checked(vectors)
    samples = len(points)
    check_keep(keep, samples)
    if keep == samples:
        return unweighted(np.arange(samples), samples, f"all {samples} samples kept, nothing to cluster")
    points = _unit_range(points)
    centres = min(keep, len(np.unique(points, axis=0)))
    labels, distances = _k_means(points, centres, generator)
    chosen, sizes = _nearest_to_each_centre(labels, distances)
    reason = f"K-Means++ over {samples} vectors, {len(sizes)} clusters of {min(sizes)} to {max(sizes)}"
    if len(chosen) < keep:
        reason += f"; {keep - len(chosen)} filled up, only {len(chosen)} distinct clusters"
    return unweighted(sorted(_filled_up(chosen, points, keep)), samples, reason)


def _checked(vectors: Tensor) -> np.ndarray:
    points = np.asarray(torch.as_tensor(vectors).detach().cpu().double())
    if points.ndim != 2 or points.size == 0:
        raise ValueError(f"feature vectors must have shape (samples, features), got {tuple(points.shape)}")
    wrong = ~np.isfinite(points).all(axis=1)
    if wrong.any():
        raise ValueError(f"feature vector of sample {int(np.argmax(wrong))} is not finite; check the feature extractor")
    return points


def _unit_range(points: np.ndarray) -> np.ndarray:
    """Centred points with a largest coordinate of 1: clusters do not depend on the features' units, rounding does."""
    centred = points - points.mean(axis=0)
    largest = np.abs(centred).max()
    return centred / largest if largest > 0 else centred


def _k_means(points: np.ndarray, centres: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(P,) labels and (P,) distances to the own centre."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    model = KMeans(centres, init="k-means++", n_init=N_INIT, random_state=int(generator.integers(2**31)))
    with threadpool_limits(1), warnings.catch_warnings():  # a few dozen points: more threads only wait for each other
        warnings.simplefilter("ignore", ConvergenceWarning)  # near-duplicates; the caller fills the empty clusters
        labels = model.fit(points).labels_
    return labels, np.linalg.norm(points - model.cluster_centers_[labels], axis=1)


def _nearest_to_each_centre(labels: np.ndarray, distances: np.ndarray) -> tuple[list[int], list[int]]:
    """The row nearest to each centre among its own members (so no row is taken twice), and the clusters' sizes."""
    rows, sizes = [], []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows.append(int(members[np.argmin(distances[members])]))
        sizes.append(len(members))
    return rows, sizes


def _filled_up(chosen: list[int], points: np.ndarray, keep: int) -> list[int]:
    """`chosen` and, until there are `keep`, the remaining row farthest from all chosen ones (ties: the lowest)."""
    rows = list(chosen)
    while len(rows) < keep:
        rest = np.setdiff1d(np.arange(len(points)), rows)
        nearest = np.linalg.norm(points[rest, None] - points[None, rows], axis=2).min(axis=1)
        rows.append(int(rest[np.argmax(nearest)]))
    return rows
