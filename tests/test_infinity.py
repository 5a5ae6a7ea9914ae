"""The transformer and tokenizer against the reference numbers, and against themselves in every arrangement."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import GOLDEN, make_conditioning, make_tiny_model, reference_config

from ttsvar_core.bsq.autoencoder import Tokenizer
from ttsvar_core.bsq.bits import empty_features, encode_bits, fuse, next_scale_input
from ttsvar_core.config import PRESETS, ModelConfig, Sampling, TokenizerConfig
from ttsvar_core.infinity.cache import KVCache
from ttsvar_core.infinity.model import Infinity, scale_causal_mask
from ttsvar_core.infinity.rope import rotation
from ttsvar_core.infinity.text import Conditioning

REFERENCES = ["infinity_tiny_2b_style", "infinity_tiny_8b_style"]


def load_reference(name):
    config = ModelConfig.from_json(reference_config(name))
    transformer, tokenizer = Infinity(config.transformer).eval(), Tokenizer(config.tokenizer).eval()
    transformer.load_state_dict(
        {k: v for k, v in load_file(GOLDEN / f"{name}.transformer.safetensors").items() if "zero_k_bias" not in k}
    )
    tokenizer.load_state_dict({k: v for k, v in load_file(GOLDEN / f"{name}.vae.safetensors").items() if "quantize" not in k})
    return config, transformer, tokenizer, load_file(GOLDEN / f"{name}.golden.safetensors")


@pytest.mark.parametrize("name", REFERENCES)
@torch.inference_mode()
def test_logits_and_images_equal_the_reference(name):
    config, transformer, tokenizer, golden = load_reference(name)
    schedule, patchify = config.own_schedule, config.transformer.apply_spatial_patchify
    text = golden["text_features"]
    context = transformer.project_text([text, transformer.unconditional(len(text))])
    features, cache = empty_features(2, config.tokenizer.codebook_dim, schedule, patchify), KVCache()
    for scale in range(len(schedule)):
        logits, chunk = transformer.forward_scale(features, scale, schedule, context, cache, config.sampling.at(scale))
        assert (logits - golden[f"scale{scale:02d}.logits"]).abs().max() < 1e-4
        features = fuse(features, golden[f"scale{scale:02d}.bits"], scale, schedule, patchify)
        cache = cache.append(chunk)
    image = ((tokenizer.decode(features) + 1) / 2).permute(0, 2, 3, 1).mul(255).to(torch.uint8).flip(3)
    assert (image.int() - golden["image_uint8_bgr_BHWC"].int()).abs().max() <= 1


@pytest.mark.parametrize("name", REFERENCES)
@torch.inference_mode()
def test_encoder_equals_the_reference(name):
    config, _, tokenizer, golden = load_reference(name)
    patchify = config.transformer.apply_spatial_patchify
    features = tokenizer.encode(golden["encode.image_BCHW"])
    assert (features - golden["encode.features"]).abs().max() < 1e-4
    _, accumulated = encode_bits(golden["encode.features"], config.own_schedule, patchify)
    assert (accumulated - golden["encode.quantized"]).abs().max() < 1e-5
    assert (tokenizer.decode(accumulated) - golden["encode.reconstruction"]).abs().max() < 1e-4


CONSTANTS = ("zero_k_bias", "quantizer.lfq.mask", "quantize.lfq.mask")


@pytest.mark.parametrize(
    ("listing", "build"),
    [
        ("infinity_2b.transformer", lambda: Infinity(PRESETS["2b"].transformer)),
        ("infinity_8b.transformer", lambda: Infinity(PRESETS["8b"].transformer)),
        ("infinity_layer12_125m.transformer", lambda: Infinity(PRESETS["125m"].transformer)),
        ("vae_d32", lambda: Tokenizer(PRESETS["2b"].tokenizer)),
        ("vae_d14_patchify", lambda: Tokenizer(PRESETS["8b"].tokenizer)),
    ],
)
def test_full_size_models_have_the_published_names_and_shapes(listing, build):
    published = json.loads((GOLDEN / "checkpoints" / f"{listing}.json").read_text())
    with torch.device("meta"):
        ours = {name: list(tensor.shape) for name, tensor in build().state_dict().items()}
    theirs = {name: shape for name, (shape, _) in published["tensors"].items() if not name.endswith(CONSTANTS)}
    assert ours == theirs


def run_scales(model, texts, bits, sampling, samples=2, dtype=torch.float32):
    """Teacher-forced logits of all scales, one scale at a time."""
    transformer = model.transformer.in_precision(dtype)
    schedule = model.schedule()
    context = transformer.project_text(texts)
    features, cache, all_logits = empty_features(samples, 8, schedule, model.patchify), KVCache(), []
    for scale in range(len(schedule)):
        logits, chunk = transformer.forward_scale(features, scale, schedule, context, cache, sampling.at(scale))
        features, cache = fuse(features, bits[scale], scale, schedule, model.patchify), cache.append(chunk)
        all_logits.append(logits)
    return torch.cat(all_logits, dim=1)


def random_bits(model, samples=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = model.config.transformer.bits_per_token
    return [torch.randint(0, 2, (samples, n, z), generator=generator).to(torch.uint8) for n in model.schedule().tokens]


@pytest.mark.parametrize("patchify", [False, True])
@torch.inference_mode()
def test_one_scale_at_a_time_equals_the_whole_sequence(patchify):
    model = make_tiny_model(patchify=patchify)
    bits, text = random_bits(model), make_conditioning().text
    single = run_scales(model, [text], bits, Sampling(guidance=1.0, tau=1.0))
    features, inputs, schedule = empty_features(2, 8, model.schedule(), patchify), [], model.schedule()
    for scale in range(len(schedule) - 1):
        features = fuse(features, bits[scale], scale, schedule, patchify)
        inputs.append(next_scale_input(features, schedule.grids[scale + 1], patchify))
    whole = model.transformer.forward_sequence(inputs, schedule, model.transformer.project_text([text, text]))
    assert (single - whole).abs().max() < 1e-4


def test_the_scale_causal_mask_hides_later_scales_only():
    mask = scale_causal_mask(make_tiny_model().schedule().prefix(3))
    assert mask.shape == (14, 14)
    assert mask[0].tolist() == [True] + [False] * 13
    assert mask[1:5, :5].all() and not mask[1:5, 5:].any() and mask[5:].all()


@torch.inference_mode()
def test_cache_equals_no_cache():
    """Attending to cached keys gives what attending to all scales at once gives, with both guidance branches."""
    model = make_tiny_model()
    transformer, schedule = model.transformer, model.schedule()
    bits, conditioning = random_bits(model), make_conditioning()
    texts = transformer.guidance_texts(conditioning)
    guided = run_scales(model, texts, bits, Sampling(guidance=3.0, tau=0.5))
    features, inputs = empty_features(2, 8, schedule, False), []
    for scale in range(len(schedule) - 1):
        features = fuse(features, bits[scale], scale, schedule, False)
        inputs.append(next_scale_input(features, schedule.grids[scale + 1], False))
    conditional, unconditional = (
        transformer.forward_sequence(inputs, schedule, transformer.project_text([text, text])) for text in texts
    )
    expected = (unconditional + 3.0 * (conditional - unconditional)) / 0.5
    assert (guided - expected).abs().max() < 1e-4


@torch.inference_mode()
def test_inner_layer_guidance_changes_logits_and_is_nothing_at_guidance_one():
    model = make_tiny_model(depth=4)
    bits, texts = random_bits(model), model.transformer.guidance_texts(make_conditioning())
    plain = run_scales(model, texts, bits, Sampling(guidance=1.0, tau=1.0))
    assert torch.equal(run_scales(model, texts, bits, Sampling(guidance=1.0, tau=1.0, guidance_layers=(-2,))), plain)
    on_logits = run_scales(model, texts, bits, Sampling(guidance=3.0, tau=1.0))
    inner = run_scales(model, texts, bits, Sampling(guidance=3.0, tau=1.0, guidance_layers=(-2,)))
    both = run_scales(model, texts, bits, Sampling(guidance=3.0, tau=1.0, guidance_layers=(0, -2)))
    assert min((a - b).abs().max() for a, b in ((plain, inner), (on_logits, inner), (inner, both))) > 1e-3


@torch.inference_mode()
def test_a_negative_prompt_of_another_length_equals_its_own_unpadded_branch():
    model = make_tiny_model()
    bits, text, negative = random_bits(model), make_conditioning(7).text, make_conditioning(3, seed=5).text
    step = Sampling(guidance=2.0, tau=1.0)
    together = run_scales(model, [text, negative], bits, step)
    alone = [run_scales(model, [t], bits, Sampling(guidance=1.0, tau=1.0)) for t in (text, negative)]
    assert (together - (2.0 * alone[0] - alone[1])).abs().max() < 1e-4


@torch.inference_mode()
def test_bfloat16_follows_float32():
    model = make_tiny_model(schedule="1 2")
    bits, texts = random_bits(model), [make_conditioning().text]
    step = Sampling(guidance=1.0, tau=1.0)
    full = run_scales(model, texts, bits, step)
    half = run_scales(make_tiny_model(schedule="1 2"), texts, bits, step, dtype=torch.bfloat16)
    assert half.dtype == torch.float32
    relative = (half - full).norm() / full.norm()
    assert 0 < relative < 0.03


@torch.inference_mode()
def test_float16_follows_float32_where_the_residual_passes_what_it_can_hold():
    """One channel of the residual at 200,000, as trained transformers have them; the last layer's part alone would not fit."""
    logits = []
    for dtype in (torch.float32, torch.float16):
        model = make_tiny_model(schedule="1 2")
        for layer in model.transformer.layers:
            layer.ffn.fc2.bias[5], layer.ada_gss[..., 1, :] = 60_000, 2
        bits, texts = random_bits(model), [make_conditioning().text]
        logits.append(run_scales(model, texts, bits, Sampling(guidance=1.0, tau=1.0), dtype=dtype))
    assert (logits[1] - logits[0]).norm() / logits[0].norm() < 0.01


@torch.inference_mode()
def test_what_a_layer_adds_is_held_at_the_largest_float16():
    block = make_tiny_model().transformer.layers[0].half()
    block.ca_norm.float()
    block.ffn.fc2.bias[5] = float("inf")
    text = (torch.zeros(1, 2, 3, 32, dtype=torch.float16),) * 2
    turn = rotation((1, 1), (1, 1), 32)
    x, _, _ = block(torch.zeros(1, 1, 1, 64), torch.zeros(1, 1, 1, 6, 64), (*text, None), turn, ((), ()))
    assert x.isfinite().all() and x.abs().max() > 1000


@torch.inference_mode()
def test_head_and_modulation_stay_in_float32():
    """Nothing of a prompt's modulation or of a finished residual is rounded to the precision of the blocks."""
    model, exact = make_tiny_model(), make_tiny_model()
    half = model.transformer.in_precision(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    x, pooled = torch.randn(1, 1, 3, 64), torch.randn(1, 64)
    assert torch.equal(half.head(half.head_nm(x, pooled)), exact.transformer.head(exact.transformer.head_nm(x, pooled)))
    assert torch.equal(half.shared_ada_lin(pooled), exact.transformer.shared_ada_lin(pooled))


def test_an_empty_prompt_is_the_unconditional_text():
    transformer = make_tiny_model().transformer
    empty = Conditioning("", torch.empty(0, 128), None, None)
    text, negative = transformer.guidance_texts(empty)
    assert torch.equal(text, transformer.cfg_uncond[:1]) and torch.equal(negative, text)
    text, negative = transformer.guidance_texts(make_conditioning(5))
    assert torch.equal(negative, transformer.cfg_uncond[:5])


def test_text_of_another_encoder_is_refused():
    transformer = make_tiny_model().transformer
    with pytest.raises(ValueError, match=r"\(3, 64\).*128"):
        transformer.project_text([torch.zeros(3, 64)])


def test_images_of_odd_sizes_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        Tokenizer(TokenizerConfig(codebook_dim=8, base_ch=8, ch_mult=(1,) * 5, num_res_blocks=1)).encode(torch.zeros(1, 3, 40, 64))
