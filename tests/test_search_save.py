"""States on disk: small, whole, and refused where they do not belong."""

import math
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import make_conditioning, make_tiny_model

from lab.training.common import export
from lab.training.publish import halve
from ttsvar_core.config import Sampling
from ttsvar_core.decoding import decode
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.infinity.text import Conditioning
from ttsvar_core.sampling import sample
from ttsvar_core.search.cluster import Cluster
from ttsvar_core.search.resample import Resample
from ttsvar_core.search.save import describe_file, load_state, save_state
from ttsvar_core.search.view import act
from ttsvar_core.state import start
from ttsvar_core.weights.write import CHECKSUM, NO_CHECKSUM, write_safetensors


@pytest.fixture(scope="module")
def grown(tiny_model, conditioning):
    """Six samples, scored after scale 1, their weights kept, cut to three, and sampled through scale 3 with per-scale settings."""
    state = sample(start(tiny_model, conditioning, 6, 2**64 - 1), 1)
    state = state.with_scores(torch.linspace(0, 1, 6))
    state, _ = act(state, Resample(1, 6, lam=1.0, ess_threshold=0.5))
    state, _ = act(state, Cluster(1, 3), extractor=LatentPool(grid=2))
    return sample(state, 3, Sampling(guidance=(9.0, 9.0, 3.0, 1.5), tau=0.7, guidance_layers=(-1,)))


def assert_same(loaded, state):
    assert loaded.seed == state.seed and loaded.next_scale == state.next_scale and loaded.schedule == state.schedule
    assert all(torch.equal(a, b) for a, b in zip(loaded.bits, state.bits, strict=True))
    assert torch.equal(loaded.features, state.features) and torch.equal(decode(loaded), decode(state))
    assert torch.equal(loaded.scores, state.scores) or torch.equal(loaded.scores.nan_to_num(7), state.scores.nan_to_num(7))
    assert torch.equal(loaded.log_weights, state.log_weights) and loaded.log_weights.dtype == torch.float64
    assert loaded.steps == state.steps and repr(loaded.lineage) == repr(state.lineage)


def test_a_state_comes_back_bit_for_bit_in_a_few_kilobytes(grown, tiny_model, conditioning, tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(grown, path)
    assert path.stat().st_size < 6000
    loaded = load_state(path, tiny_model, conditioning)
    assert_same(loaded, grown)
    assert len(set(loaded.log_weights.tolist())) == 3 and (loaded.log_weights > 0).any()
    assert loaded.cache is None and math.isnan(loaded.lineage[0].scores[0]) == math.isnan(grown.lineage[0].scores[0])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions of owner, group and others")
@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_files_have_the_permissions_any_new_file_gets(grown, tmp_path, umask):
    before = os.umask(umask)
    try:
        save_state(grown, tmp_path / "state.safetensors")
        export(torch.nn.Linear(1, 1), tmp_path / "export.safetensors")
        halve(tmp_path / "export.safetensors", tmp_path / "halved.safetensors")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}
    assert len(list(tmp_path.iterdir())) == 3


def test_going_on_with_the_cache_kept_is_bit_equal(grown, tiny_model, conditioning, tmp_path):
    save_state(grown, tmp_path / "kept", with_cache=True)
    loaded = load_state(tmp_path / "kept", tiny_model, conditioning)
    assert_same(loaded, grown)
    assert loaded.cache.nbytes == grown.cache.nbytes - 3 * grown.cache.chunks[0].nbytes // 6 * 5  # scales 0, 1: 6 -> 3
    on, expected = sample(loaded, 4), sample(grown, 4)
    assert torch.equal(on.bits[-1], expected.bits[-1]) and torch.equal(decode(on), decode(expected))


@pytest.mark.parametrize("rows", [[2, 0, 1], [0, 1, 2, 2]])
def test_rows_that_all_scales_share_are_saved(tiny_model, conditioning, tmp_path, rows):
    """A permutation and a growth: nothing to compact, so every chunk keeps the very indices of the selection."""
    state = sample(start(tiny_model, conditioning, 3, 0), 2).select(rows)
    save_state(state, tmp_path / "kept", with_cache=True)
    on, expected = sample(load_state(tmp_path / "kept", tiny_model, conditioning), 4), sample(state, 4)
    assert torch.equal(on.bits[-1], expected.bits[-1])


def test_scales_kept_in_different_precisions_are_saved(tiny_model, conditioning, tmp_path):
    """A sampler of float8 and then one that keeps them as they are: earlier scales stay in one byte per number."""
    state = sample(sample(start(tiny_model, conditioning, 3, 0), 1, cache_policy="float8"), 3)
    save_state(state, tmp_path / "kept", with_cache=True)
    on, expected = sample(load_state(tmp_path / "kept", tiny_model, conditioning), 4), sample(state, 4)
    assert torch.equal(on.bits[-1], expected.bits[-1])


def test_a_loaded_state_no_longer_needs_its_file(grown, tiny_model, conditioning, tmp_path):
    """What is written over the file does not reach the scores, keys and values: nothing of it is mapped."""
    path = tmp_path / "kept"
    save_state(grown, path, with_cache=True)
    loaded = load_state(path, tiny_model, conditioning)
    before = [tensor.clone() for tensor in (loaded.scores, *loaded.cache.chunks[2].keys)]
    with path.open("r+b") as file:
        file.write(b"\x7f" * path.stat().st_size)
    after = [loaded.scores, *loaded.cache.chunks[2].keys]
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(after, before, strict=True))


def test_going_on_from_bits_alone_uses_the_same_draws(grown, tiny_model, conditioning, tmp_path):
    save_state(grown, tmp_path / "bits")
    on = sample(load_state(tmp_path / "bits", tiny_model, conditioning), 4)
    assert (on.bits[-1] != sample(grown, 4).bits[-1]).float().mean() < 1e-3


@pytest.mark.parametrize("through", [None, 4])
def test_states_before_the_first_and_after_the_last_scale(tiny_model, conditioning, tmp_path, through):
    state = start(tiny_model, conditioning, 2, 0)
    state = state if through is None else sample(state, through)
    save_state(state, tmp_path / "state", with_cache=True)
    assert_same(load_state(tmp_path / "state", tiny_model, conditioning), state)


def test_a_patchified_model(tmp_path):
    model, conditioning = make_tiny_model(patchify=True), make_conditioning()
    state = sample(start(model, conditioning, 2, 0), 3)
    save_state(state, tmp_path / "state")
    assert_same(load_state(tmp_path / "state", model, conditioning), state)


def test_another_model_or_prompt_is_refused_with_the_difference_named(grown, tiny_model, conditioning, tmp_path):
    path = tmp_path / "state"
    save_state(grown, path)
    with pytest.raises(ValueError, match=r"made with model tiny \(fingerprint tiny-0\).*given is tiny \(fingerprint tiny-3\)"):
        load_state(path, make_tiny_model(seed=3), conditioning)
    with pytest.raises(ValueError, match="for the prompt 'a tiny prompt', given is 'another'"):
        load_state(path, tiny_model, make_conditioning(prompt="another"))
    negative = Conditioning(conditioning.prompt, conditioning.text, "blurry", conditioning.text)
    with pytest.raises(ValueError, match="for the negative prompt None, given is 'blurry'"):
        load_state(path, tiny_model, negative)
    for other in (make_conditioning(seed=8), make_conditioning(tokens=4)):
        with pytest.raises(ValueError, match="text features of the prompt are not those"):
            load_state(path, tiny_model, other)


def test_text_features_in_half_precision_are_the_same_prompt(grown, tiny_model, conditioning, tmp_path):
    save_state(grown, tmp_path / "state")
    half = conditioning._replace(text=conditioning.text.bfloat16().float())
    assert load_state(tmp_path / "state", tiny_model, half).samples == grown.samples


def test_what_is_not_a_whole_state_is_refused(grown, tiny_model, conditioning, tmp_path):
    path = tmp_path / "state"
    save_state(grown, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_state(path, tiny_model, conditioning)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not a saved state"):
        load_state(path, tiny_model, conditioning)


def test_a_file_tells_what_it_is_without_a_model(grown, tmp_path):
    save_state(grown, tmp_path / "state")
    about = describe_file(tmp_path / "state")
    assert (about["prompt"], about["samples"], about["next_scale"]) == ("a tiny prompt", 3, 4)
    assert about["lineage"][0]["scale"] == 1


def test_a_file_of_the_first_version_has_equal_weights(grown, tiny_model, conditioning, tmp_path):
    """It holds none, and no resampling had left any."""
    save_state(grown, path := tmp_path / "state")
    tensors = {name: tensor for name, tensor in load_file(path).items() if name != "log_weights"}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    write_safetensors(path, tensors, metadata | {CHECKSUM: NO_CHECKSUM})
    loaded = load_state(path, tiny_model, conditioning)
    assert_same(loaded, grown._replace(log_weights=torch.zeros(3, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.zeros(3), "log_weights is F32"), (torch.zeros(4, dtype=torch.float64), r"expected F64 \(3,\)"),
        (torch.tensor([0.0, math.nan, 0.0]).double(), "log-weight of sample 1 is nan"),
        (torch.tensor([0.0, math.inf, 0.0]).double(), "log-weight of sample 1 is inf"),
        (torch.full((3,), -math.inf).double(), "all 3 log-weights are -inf"),
    ],
)
def test_weights_that_are_none_are_refused(grown, tiny_model, conditioning, tmp_path, weights, message):
    save_state(grown, path := tmp_path / "state")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    write_safetensors(path, load_file(path) | {"log_weights": weights}, metadata | {CHECKSUM: NO_CHECKSUM})
    with pytest.raises(ValueError, match=message):
        load_state(path, tiny_model, conditioning)
