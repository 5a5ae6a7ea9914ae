"""Keyed uniforms, closed-form bits, rotary positions, and the settings that are refused."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import squares

from ttsvar_core.bsq.autoencoder import norm_groups
from ttsvar_core.bsq.bits import (
    bits_to_codes,
    codes_to_bits,
    encode_bits,
    fuse,
    map_to_tokens,
    next_scale_input,
    tokens_to_map,
)
from ttsvar_core.config import PRESETS, ModelConfig, Sampling, TokenizerConfig, TransformerConfig
from ttsvar_core.infinity.rope import rotate, rotation
from ttsvar_core.rng import selection_generator, uniforms
from ttsvar_core.sampling import draw_bits


def test_a_slot_draws_the_same_whatever_batch_it_is_in():
    batch = uniforms(7, 3, range(8), (4, 5))
    assert torch.equal(uniforms(7, 3, [5, 2], (4, 5)), batch[[5, 2]])
    assert batch.dtype == torch.float32 and batch.min() >= 0 and batch.max() < 1


def test_keys_differ_in_every_part():
    draws = [uniforms(*key, (64,))[0] for key in itertools.product((0, 1, 2**64 - 1), (0, 1), ([0], [1]))]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(draws, 2))
    bits_stream = uniforms(3, 2, [0], (64,))[0].numpy()
    assert not np.array_equal(selection_generator(3, 2).random(64, dtype=np.float32), bits_stream)


def test_uniforms_are_uniform():
    draws = uniforms(0, 0, range(50), (1000,)).numpy().ravel()
    histogram = np.histogram(draws, bins=20, range=(0, 1))[0]
    expected = draws.size / 20
    assert ((histogram - expected) ** 2 / expected).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_impossible_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        uniforms(seed, 0, [0], (1,))


def reference_probability(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Nucleus sampling by sorting, written out: the probability of a set bit."""
    probability = logits.softmax(-1)
    ascending, order = probability.sort(dim=-1, stable=True)
    removed = ascending.cumsum(-1) <= 1 - top_p
    removed[..., -1] = False
    kept = probability.masked_fill(torch.zeros_like(removed).scatter(-1, order, removed), 0)
    return (kept / kept.sum(-1, keepdim=True))[..., 1]


@pytest.mark.parametrize("top_p", [0.3, 0.5, 0.9, 0.97, 1.0])
def test_closed_form_bits_follow_nucleus_sampling(top_p):
    logits = torch.randn(40, 50, 16, 2, generator=torch.Generator().manual_seed(0)) * 3
    p = reference_probability(logits, top_p)
    for level in (0.001, 0.25, 0.5, 0.75, 0.999):
        bits = draw_bits(logits, torch.full(p.shape, level), top_p)
        clear = (p - level).abs() > 1e-5
        assert torch.equal(bits[clear].bool(), (level < p)[clear])
        assert clear.float().mean() > 0.99


def test_extreme_logits_give_certain_bits():
    logits = torch.tensor([[[[0.0, 90.0], [90.0, 0.0]]]])
    for draw in (0.0, 1 - 2**-24):
        assert draw_bits(logits, torch.full((1, 1, 2), draw), 1.0).flatten().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 0.0}, "tau"),
        ({"tau": -1.0}, "tau"),
        ({"tau": (0.5, 0.0)}, "tau"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance_layers": (3,)}, "layers"),
        ({"guidance_layers": ()}, "no layer is guided: name one"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)


def test_a_list_of_settings_must_cover_the_scale():
    sampling = Sampling(guidance=[1, 2, 3])
    assert sampling.at(2).guidance == 3.0
    with pytest.raises(ValueError, match="3 values"):
        sampling.at(3)


def test_presets_have_the_published_sizes():
    sizes = {n: (c.transformer.depth, c.transformer.embed_dim, c.transformer.num_heads) for n, c in PRESETS.items()}
    assert sizes["2b"] == (32, 2048, 16) and sizes["8b"] == (40, 3584, 28) and sizes["125m"] == (12, 768, 8)
    assert PRESETS["8b"].transformer.bits_per_token == 56 and PRESETS["8b"].pixels_per_token == 16


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="heads"):
        TransformerConfig(embed_dim=30, depth=2, num_heads=4)
    with pytest.raises(ValueError, match="chunks"):
        TransformerConfig(embed_dim=64, depth=5, num_heads=2, block_chunks=2)
    with pytest.raises(ValueError, match="belong"):
        ModelConfig("x", TransformerConfig(64, 2, 2, codebook_dim=16), TokenizerConfig(codebook_dim=32))


def test_norm_groups_are_the_published_ones_where_those_exist():
    assert [norm_groups(c) for c in (128, 512, 24, 48, 96)] == [32, 32, 24, 24, 32]
    assert all(c % norm_groups(c) == 0 for c in range(1, 300))


def test_rotation_keeps_lengths_and_depends_on_distance_only():
    turn = rotation((4, 6), (4, 6), 16)
    q, k = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(1)).unbind(0)
    turned_q, turned_k = rotate(q.expand(24, 16), turn), rotate(k.expand(24, 16), turn)
    assert torch.allclose(turned_q.norm(dim=-1), q.norm().expand(24), atol=1e-5)
    products = (turned_q @ turned_k.T).view(4, 6, 4, 6)
    assert torch.allclose(products[0, 0, 1, 2], products[2, 3, 3, 5], atol=1e-5)
    assert not torch.allclose(products[0, 0, 1, 2], products[0, 0, 2, 1], atol=1e-3)


def test_a_place_keeps_its_position_at_every_scale():
    small, large = rotation((2, 2), (8, 8), 16), rotation((8, 8), (8, 8), 16)
    assert torch.equal(small.cos.view(2, 2, -1)[1, 1], large.cos.view(8, 8, -1)[4, 4])


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_tokens_and_maps_are_inverse(height, width, samples, patchify):
    channels = 8 if patchify else 2
    tokens = torch.arange(samples * height * width * channels).float().view(samples, height * width, channels)
    assert torch.equal(map_to_tokens(tokens_to_map(tokens, (height, width), patchify), patchify), tokens)


def test_bits_and_codes_are_inverse_and_codes_lie_on_the_sphere():
    bits = torch.randint(0, 2, (3, 5, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    codes = bits_to_codes(bits, 8)
    assert torch.equal(codes_to_bits(codes), bits)
    assert torch.allclose(codes.norm(dim=-1), torch.ones(3, 5))


@pytest.mark.parametrize("patchify", [False, True])
def test_encoded_bits_fuse_back_to_the_accumulated_features(patchify):
    schedule = squares("1 2 3 5")
    side = 10 if patchify else 5
    features = torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(0))
    bits, accumulated = encode_bits(features, schedule, patchify)
    rebuilt = torch.zeros_like(features)
    for scale, scale_bits in enumerate(bits):
        rebuilt = fuse(rebuilt, scale_bits, scale, schedule, patchify)
    assert torch.equal(rebuilt, accumulated)
    assert next_scale_input(rebuilt, (3, 3), patchify).shape == (2, 9, 16 if patchify else 4)
    error = [(features - encode_bits(features, schedule, patchify, n)[1]).pow(2).mean() for n in (0, 2, 4)]
    assert error[0] > error[2]


def test_encoding_on_another_grid_is_refused():
    with pytest.raises(ValueError, match="ends on"):
        encode_bits(torch.zeros(1, 4, 6, 6), squares("1 2 5"), False)
