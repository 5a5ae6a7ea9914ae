"""Clustering: diverse, seeded, and always exactly as many distinct survivors as asked for."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttsvar_core.extractors.base import FeatureExtractor
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.rng import selection_generator
from ttsvar_core.search.cluster import cluster
from ttsvar_core.search.view import View


def clustered(vectors, keep, seed=0):
    """As the selection of this seed at scale 2."""
    return cluster(vectors, keep, selection_generator(seed, 2))


def groups(centres, per_group=3, spread=0.01):
    generator = np.random.default_rng(0)
    points = np.repeat(np.asarray(centres, float), per_group, axis=0)
    return torch.from_numpy(points + spread * generator.normal(size=points.shape)).float()


def test_one_survivor_per_group_and_it_is_the_nearest_to_the_centre():
    vectors = groups([(0, 0), (5, 0), (0, 5), (9, 9)])
    kept = clustered(vectors, 4, seed=1).ancestors
    assert [row // 3 for row in kept.tolist()] == [0, 1, 2, 3]
    for row in kept.tolist():
        members = vectors[row // 3 * 3 : row // 3 * 3 + 3]
        distances = (members - members.mean(dim=0)).norm(dim=1)
        assert distances[row % 3] == distances.min()


def test_same_seed_same_survivors_and_units_do_not_matter():
    vectors = torch.randn(12, 5, generator=torch.Generator().manual_seed(3))
    first = clustered(vectors, 5, seed=7)
    assert first.ancestors.equal(clustered(vectors, 5, seed=7).ancestors)
    for unit in (2.0**-60, 2.0**60):
        assert first.ancestors.equal(clustered(vectors * unit, 5, seed=7).ancestors)


def test_keeping_all_is_the_identity():
    assert clustered(torch.randn(4, 3), 4).ancestors.tolist() == [0, 1, 2, 3]
    assert clustered(torch.zeros(1, 3), 1).ancestors.tolist() == [0]


def test_fewer_distinct_vectors_than_clusters():
    vectors = torch.tensor([[0.0, 0.0]] * 4 + [[1.0, 1.0]] * 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selection = clustered(vectors, 6)
    assert len(set(selection.ancestors.tolist())) == 6
    assert {row // 4 for row in selection.ancestors.tolist()} == {0, 1}
    assert "only 2 distinct" in selection.reason and selection.ess == 8


@given(
    st.integers(1, 9).flatmap(
        lambda samples: st.tuples(
            st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), min_size=samples, max_size=samples),
            st.integers(1, samples),
            st.sampled_from([1e-30, 1.0, 1e30]),
        )
    )
)
@settings(max_examples=40, deadline=None)
def test_always_exactly_keep_distinct_ancestors(case):
    points, keep, unit = case
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = clustered(torch.tensor(points, dtype=torch.float64) * unit, keep).ancestors.tolist()
    assert len(kept) == len(set(kept)) == keep
    assert kept == sorted(kept) and kept[0] >= 0 and kept[-1] < len(points)
    distinct = len({tuple(point) for point in points})
    assert len({tuple(points[row]) for row in kept}) == min(keep, distinct)


def test_what_cannot_be_clustered_is_refused():
    with pytest.raises(ValueError, match="keep is 5, but only 4 samples are there; keep at most 4"):
        clustered(torch.zeros(4, 2), 5)
    with pytest.raises(ValueError, match="cannot keep 0 samples; keep at least 1"):
        clustered(torch.zeros(4, 2), 0)
    with pytest.raises(ValueError, match="vector of sample 1 is not finite"):
        clustered(torch.tensor([[0.0], [float("nan")], [1.0]]), 2)
    with pytest.raises(ValueError, match=r"shape \(samples, features\), got \(4,\)"):
        clustered(torch.zeros(4), 2)


class FakeState:
    samples, next_scale = 3, 1
    features = torch.arange(3.0 * 2 * 8 * 8).reshape(3, 2, 8, 8)


def test_latent_pool_averages_features_over_a_coarse_grid():
    vectors = View(FakeState, extractor=LatentPool(grid=2)).vectors()
    assert vectors.shape == (3, 8)
    assert vectors[1, 0] == FakeState.features[1, 0, :4, :4].mean()
    assert isinstance(LatentPool(), FeatureExtractor)


class Images:
    name = "red"
    looks_at = "images"

    def describe(self, x):
        return x[..., 0].flatten(1)


def seen(extractor, images):
    return View(FakeState, extractor=extractor, decode=lambda state: images).vectors()


def test_images_are_shown_to_an_extractor_that_looks_at_them():
    images = torch.rand(3, 4, 4, 3)
    assert seen(Images(), images).equal(images[..., 0].flatten(1))


def test_a_wrong_extractor_is_named():
    class Wrong(Images):
        looks_at = "pixels"

    class Scalar(Images):
        def describe(self, x):
            return x.mean(dim=(1, 2, 3))

    with pytest.raises(ValueError, match="red looks at 'pixels'"):
        seen(Wrong(), torch.rand(3, 4, 4, 3))
    with pytest.raises(ValueError, match="red gave shape"):
        seen(Scalar(), torch.rand(3, 4, 4, 3))
