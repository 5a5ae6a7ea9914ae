"""The selections over the host's own batches: the same decisions as over a state, and everything of a sample goes along."""

from __future__ import annotations

import math

import pytest
import torch
from host_stand_in import load_pack

from ttsvar_core.rng import selection_generator
from ttsvar_core.search.cluster import cluster
from ttsvar_core.search.potential import exponents
from ttsvar_core.search.resample import resample

SCORES = [0.1, 0.9, 0.3, 0.8, 0.2, 0.7]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    with load_pack(tmp_path_factory.mktemp("host")) as loaded:
        yield loaded


def latent(samples: int = 6) -> dict:
    return {"samples": torch.arange(samples).float()[:, None, None, None].expand(samples, 4, 8, 8).clone()}


def resampled(pack, **inputs):
    """Latent, images, scores and reason, of inputs as the host gives them to a node that takes lists."""
    node = pack.nodes["TTSVAR_ResampleBatch"]
    defaults = {one.id: one.default for one in node.define_schema().inputs if "default" in one.options}
    listed = {name: value if isinstance(value, list) else [value] for name, value in {**defaults, **inputs}.items()}
    return node.execute(**listed).args


@pytest.mark.parametrize("scheme", ["multinomial", "systematic", "stratified", "residual", "top-k"])
def test_rows_are_those_of_the_search(pack, scheme):
    history = torch.tensor([SCORES]).T
    expected = resample(10.0 * exponents("value", history, 0), 4, scheme, selection_generator(7, 0))
    given = {"latent": latent(), "images": torch.rand(6, 8, 8, 3), "scores": SCORES}
    out, images, scores, reason = resampled(pack, **given, keep=4, scheme=scheme, seed=7)
    rows = expected.ancestors.tolist()
    assert out["samples"][:, 0, 0, 0].tolist() == rows and torch.equal(images, given["images"][rows])
    assert scores == pytest.approx([SCORES[row] for row in rows]) and scheme in reason and "VALUE" in reason


def test_all_that_is_a_samples_own_goes_along_and_copies_get_numbers_of_their_own(pack):
    masks = torch.arange(6).float()[:, None, None].expand(6, 8, 8)
    more = {"batch_index": [10, 11, 12, 13, 14, 15], "names": list("abcdef"), "type": "audio"}
    given = {**latent(), "noise_mask": masks, **more}
    out, *_ = resampled(pack, latent=given, scores=SCORES, lambda_=30.0, seed=3)
    rows = out["samples"][:, 0, 0, 0].long().tolist()
    assert len(rows) == 6 and len(set(rows)) < 6, "nothing was copied, so nothing is tested"
    assert out["noise_mask"][:, 0, 0].long().tolist() == rows and out["names"] == [given["names"][row] for row in rows]
    assert len(set(out["batch_index"])) == 6 and out["type"] == "audio"
    assert [out["batch_index"][rows.index(row)] for row in set(rows)] == [10 + row for row in set(rows)]
    assert given["batch_index"] == [10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("potential", ["diff", "max", "sum"])
def test_two_looks_count_as_two_scales(pack, potential):
    earlier = [0.5, 0.0, 0.4, 0.9, 0.1, 0.0]
    expected = resample(
        4.0 * exponents(potential, torch.tensor([earlier, SCORES]).T, 1), 3, "multinomial", selection_generator(5, 1)
    )
    given = {"latent": latent(), "scores": SCORES, "earlier_scores": earlier}
    out, *_ = resampled(pack, **given, potential=potential, lambda_=4.0, keep=3, seed=5)
    assert out["samples"][:, 0, 0, 0].tolist() == expected.ancestors.tolist()
    with pytest.raises(ValueError, match="looks back"):
        resampled(pack, latent=latent(), scores=SCORES, potential=potential)


def test_a_target_finds_lambda_and_a_seed_decides(pack):
    reason = resampled(pack, latent=latent(), scores=SCORES, target_ess=0.5)[-1]
    assert "ess 3.00 of 6" in reason
    drawn = [tuple(resampled(pack, latent=latent(), scores=SCORES, lambda_=1.0, seed=seed)[2]) for seed in (1, 1, *range(2, 8))]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 4


def test_what_does_not_belong_together_is_refused(pack):
    for inputs, words in (
        ({"latent": latent(5)}, "5 latents, 6 scores"), ({}, "wire a latent"), ({"latent": latent(), "keep": 7}, "keep at most 6"),
        ({"images": torch.rand(6, 4, 4, 3), "latent": [latent(), latent()]}, "2 batches"),
        ({"latent": latent(), "earlier_scores": [1.0]}, "6 scores, 1 earlier scores"),
        ({"latent": latent(), "scores": [1.0, float("nan"), 1, 1, 1, 1]}, "score of sample 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            resampled(pack, **{"scores": SCORES, **inputs})


def test_pictures_that_differ_are_kept(pack):
    (pool,) = pack.run("TTSVAR_ExtractorLoader")
    colours = torch.tensor([[1.0, 0, 0], [0.98, 0, 0], [0, 1, 0], [0, 0.97, 0], [0, 0, 1], [0, 0, 0.99]])
    images = colours[:, None, None, :].expand(6, 16, 16, 3)
    _, kept, reason = pack.run("TTSVAR_ClusterBatch", images=images, extractor=pool, keep=3, seed=2)
    assert kept[:, 0, 0].round().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]] and "latent-pool" in reason
    expected = cluster(pool.describe(images.movedim(-1, 1)), 3, selection_generator(2, 0))
    assert torch.equal(kept, images[expected.ancestors])
    nothing, all_of_them, reason = pack.run("TTSVAR_ClusterBatch", images=images, extractor=pool, keep=6)
    assert nothing is None and torch.equal(all_of_them, images) and "all 6" in reason


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 3, 8, 8), (4, 16)], ids=["picture", "video", "sound"])
def test_latents_of_any_kind_are_compared(pack, shape):
    (pool,) = pack.run("TTSVAR_ExtractorLoader")
    samples = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, dim=0)
    kept, pictures, _ = pack.run("TTSVAR_ClusterBatch", latent={"samples": samples}, extractor=pool, keep=3)
    assert pictures is None and kept["samples"].unique(dim=0).shape == (3, *shape)


def test_an_extractor_of_pictures_asks_for_them(pack):
    class Eye:
        name, looks_at = "eye", "images"

    with pytest.raises(ValueError, match="decode the latents"):
        pack.run("TTSVAR_ClusterBatch", latent=latent(), extractor=Eye(), keep=2)


def test_scores_in_the_order_of_the_latents(pack):
    class Brightness:
        name, range = "brightness", (0.0, 1.0)

        def score(self, images, prompt):
            return images.mean((1, 2, 3))

    images = torch.tensor([0.2, 0.9, 0.5])[:, None, None, None].expand(3, 4, 4, 3)
    same, scores, report = pack.run("TTSVAR_ScoreImages", images=images, reward=Brightness(), prompt="", sort=False)
    assert torch.equal(same, images) and scores == pytest.approx([0.2, 0.9, 0.5]) and report.splitlines()[1] == "1. image 1: 0.9000"


@pytest.mark.parametrize(("given", "words"), [
    ([0.2, 0.9], "reward brief gave 2 scores for 3 images; expected one per image"),
    ([0.2, math.nan, 0.9], "reward brief gave nan for image 1; expected a finite number"),
])
def test_pictures_that_a_reward_leaves_out_are_not_lost_in_silence(pack, given, words):
    class Brief:
        name, range = "brief", (0.0, 1.0)

        def score(self, images, prompt):
            return torch.tensor(given)

    with pytest.raises(ValueError, match=words):
        pack.run("TTSVAR_ScoreImages", images=torch.rand(3, 4, 4, 3), reward=Brief(), prompt="")
