"""verify finds models equal to their reference ok, and anything that was changed wrong."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import GOLDEN, make_tiny_model

from ttsvar_core.bsq.bits import cell_grid, empty_features, encode_bits, fuse
from ttsvar_core.commands.verify import verify_directory
from ttsvar_core.config import Sampling
from ttsvar_core.infinity.cache import KVCache


def only(folder):
    (result,) = verify_directory(folder)
    return result


# guided_inside: guidance of another strength at every scale (1 among them), on the second layer from the end and on the
# logits, another tau at every scale, a negative prompt longer than the prompt, three heads, three chunks, 16 bits, 4:7.
REFERENCES = {"infinity_tiny_2b_style": True, "infinity_tiny_8b_style": True, "infinity_tiny_guided_inside": False}


@pytest.mark.parametrize("name, has_encoder", REFERENCES.items())
def test_reference_models_are_ok(name, has_encoder, tmp_path):
    for file in GOLDEN.glob(name + "*"):
        (tmp_path / file.name).symlink_to(file)
    result = only(tmp_path)
    assert result.ok and result.name == name
    assert result.measures["logits"] < 1e-4 and result.measures["image"] <= 1
    assert result.measures.get("bits") == (1 if has_encoder else None)
    assert result.line().startswith(f"{name}  logits ") and result.line().endswith("  ok")


# A tiny model checked against itself, so that each kind of damage can be tried in milliseconds --------------------------------


GUIDED_INSIDE = {"cfg": [1.0, 2.0, 3.0, 2.5, 1.5], "tau": 0.7, "cfg_insertion_layer": [-1, 0]}


@torch.no_grad()
def golden_of(model, negative_tokens):
    """What verify compares with, computed by the model itself."""
    config, schedule = model.config, model.config.own_schedule
    generator = torch.Generator().manual_seed(3)
    golden = {"text_features": torch.randn(4, 128, generator=generator)}
    texts = [golden["text_features"], model.transformer.unconditional(4)]
    if negative_tokens:
        texts[1] = golden["negative_text_features"] = torch.randn(negative_tokens, 128, generator=generator)
    context = model.transformer.project_text(texts)
    features, cache = empty_features(2, config.tokenizer.codebook_dim, schedule, model.patchify), KVCache()
    for scale, (h, w) in enumerate(schedule.grids):
        logits, chunk = model.transformer.forward_scale(features, scale, schedule, context, cache, config.sampling.at(scale))
        bits = torch.randint(0, 2, (2, h * w, config.transformer.bits_per_token), generator=generator, dtype=torch.uint8)
        golden |= {f"scale{scale:02d}.logits": logits, f"scale{scale:02d}.bits": bits}
        features, cache = fuse(features, bits, scale, schedule, model.patchify), cache.append(chunk)
    golden["image_uint8_bgr_BHWC"] = to_bytes(model.tokenizer.decode(features)).flip(3)
    return golden | encoder_golden(model, generator)


def encoder_golden(model, generator):
    schedule, stride = model.config.own_schedule, model.config.tokenizer.patch_size
    side = [stride * n for n in cell_grid(schedule.final, model.patchify)]
    image = torch.rand(1, 3, *side, generator=generator) * 2 - 1
    features = model.tokenizer.encode(image)
    bits, quantized = encode_bits(features, schedule, model.patchify)
    golden = {"encode.image_BCHW": image, "encode.features": features, "encode.quantized": quantized}
    golden["encode.reconstruction"] = model.tokenizer.decode(quantized)
    for scale, (grid, one) in enumerate(zip(schedule.grids, bits, strict=True)):
        cells = one.transpose(1, 2).reshape(1, -1, *grid)
        cells = torch.nn.functional.pixel_shuffle(cells, 2) if model.patchify else cells
        golden[f"encode.scale{scale:02d}.bits"] = cells.permute(0, 2, 3, 1)[:, None]
    return golden


def to_bytes(images):
    return ((images + 1) / 2).permute(0, 2, 3, 1).mul(255).to(torch.uint8)


def store(folder, patchify=False, negative_tokens=0, schedule="1 2 3 4 6"):
    """Write a tiny model and its reference numbers in the layout verify reads."""
    model, sampling = make_tiny_model(patchify=patchify, schedule=schedule), GUIDED_INSIDE
    settings = Sampling(
        guidance=sampling["cfg"], tau=sampling["tau"], guidance_layers=tuple(sampling["cfg_insertion_layer"])
    )
    object.__setattr__(model, "config", replace(model.config, sampling=settings))
    model.tokenizer.to(memory_format=torch.channels_last)  # as it is when loaded, so that pictures can be compared exactly
    sizes = model.config.transformer
    data = {
        "kind": "infinity", "name": "tiny", "embed_dim": sizes.embed_dim, "depth": sizes.depth, "num_heads": sizes.num_heads,
        "block_chunks": sizes.block_chunks, "text_channels": 128, "text_maxlen": sizes.text_maxlen, "codebook_dim": 8,
        "vae_base_ch": 8, "vae_ch_mult": [1, 1], "vae_num_res_blocks": 1, "patch_size": 2,
        "apply_spatial_patchify": patchify, "scale_schedule": [list(grid) for grid in model.config.own_schedule.grids],
        **sampling,
    }
    (folder / "tiny.json").write_text(json.dumps(data))
    for part, module in (("transformer", model.transformer), ("vae", model.tokenizer)):
        tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
        save_file(tensors, folder / f"tiny.{part}.safetensors")
    golden = {name: tensor.contiguous() for name, tensor in golden_of(model, negative_tokens).items()}
    save_file(golden, folder / "tiny.golden.safetensors")
    return model, golden


@pytest.mark.parametrize("patchify, negative_tokens", [(False, 0), (True, 0), (False, 2), (True, 7)])
def test_settings_of_the_model_are_honoured(tmp_path, patchify, negative_tokens):
    store(tmp_path, patchify, negative_tokens)
    result = only(tmp_path)
    assert result.ok, result.line()
    assert result.measures["logits"] < 1e-5 and result.measures["bits"] == 1 and result.measures["image"] == 0


@pytest.mark.parametrize("changed", [
    {"cfg": 2.0}, {"tau": 0.71}, {"cfg_insertion_layer": [0]}, {"num_heads": 1}, {"h_div_w": 1.0, "pixel_budget": "0.06M"},
])
def test_other_settings_fail(tmp_path, changed):
    store(tmp_path)
    data = json.loads((tmp_path / "tiny.json").read_text())
    (tmp_path / "tiny.json").write_text(json.dumps({**data, **changed}))
    result = only(tmp_path)
    assert not result.ok and result.line().split("  ").count("FAIL") == 1


def test_another_negative_prompt_fails(tmp_path):
    _, golden = store(tmp_path, negative_tokens=3)
    del golden["negative_text_features"]
    save_file(golden, tmp_path / "tiny.golden.safetensors")
    assert not only(tmp_path).ok


@pytest.mark.parametrize("name, measure", [
    ("scale03.logits", "logits"), ("image_uint8_bgr_BHWC", "image"), ("encode.reconstruction", "image"),
    ("encode.scale02.bits", "bits"),
])
def test_a_changed_reference_number_fails(tmp_path, name, measure):
    _, golden = store(tmp_path)
    before = only(tmp_path).measures[measure]
    flat = golden[name].view(-1)
    number = int(flat.float().abs().argmin()) if measure == "image" and flat.dtype.is_floating_point else 5
    flat[number] = 1 - flat[number] if measure == "bits" else flat[number] + (20 if flat.dtype == torch.uint8 else 0.1)
    save_file(golden, tmp_path / "tiny.golden.safetensors")
    result = only(tmp_path)
    assert not result.ok and result.measures[measure] != before


def test_not_a_number_fails(tmp_path):
    _, golden = store(tmp_path)
    golden["scale01.logits"][0, 0, 0, 0] = float("nan")
    save_file(golden, tmp_path / "tiny.golden.safetensors")
    assert only(tmp_path).measures["logits"] == float("inf") and not only(tmp_path).ok


@pytest.mark.parametrize("size, ok", [(1e-9, True), (1e-4, False)])
def test_a_bit_may_differ_only_within_rounding(tmp_path, size, ok):
    """One token whose features are almost 0, and stored bits that are the other way round."""
    model, golden = store(tmp_path, patchify=True, schedule="1")
    weights = load_file(tmp_path / "tiny.vae.safetensors")
    weights["encoder.conv_out.conv.weight"] *= 0
    weights["encoder.conv_out.conv.bias"].fill_(size)
    save_file(weights, tmp_path / "tiny.vae.safetensors")
    golden["encode.features"] = torch.full((1, 8, 2, 2), -size)
    golden["encode.scale00.bits"] = torch.zeros(1, 1, 2, 2, 8, dtype=torch.uint8)
    golden["encode.reconstruction"] = model.tokenizer.decode(torch.full((1, 8, 2, 2), -(8**-0.5))).contiguous()
    save_file(golden, tmp_path / "tiny.golden.safetensors")
    result = only(tmp_path)
    assert result.measures["bits"] == 0 and result.measures["image"] == 0 and result.ok == ok


@pytest.mark.parametrize("absent", ["tiny.transformer.safetensors", "tiny.vae.safetensors", "tiny.golden.safetensors"])
def test_a_missing_file_fails_and_the_others_are_checked(tmp_path, absent):
    store(tmp_path)
    (tmp_path / absent).unlink()
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "notes.json").write_text('{"about": "no model"}')
    (tmp_path / "strange.json").write_text('{"kind": "unheard of"}')
    results = {result.name: result for result in verify_directory(tmp_path)}
    assert list(results) == ["broken", "strange", "tiny"]
    assert not any(result.ok for result in results.values())
    assert absent in results["tiny"].note and "cannot be read" in results["broken"].note
    assert "unheard of" in results["strange"].note


def test_scales_must_match(tmp_path):
    _, golden = store(tmp_path)
    save_file({n: t for n, t in golden.items() if not n.startswith("scale04")}, tmp_path / "tiny.golden.safetensors")
    assert "logits of 4 scales, the schedule 5" in only(tmp_path).note
