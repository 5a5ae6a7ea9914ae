"""Sizes read off the published shapes, and which tokenizer belongs to which transformer. No weights are involved."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_models import GOLDEN
from torch import nn

from ttsvar_core.bsq.autoencoder import Tokenizer
from ttsvar_core.config import PRESETS, TokenizerConfig
from ttsvar_core.infinity.model import Infinity
from ttsvar_core.weights import RawCheckpoint, UnusableFile, load_model
from ttsvar_core.weights.names import model_tensors
from ttsvar_core.weights.shapes import assemble, json_beside, tokenizer_sizes, transformer_sizes

PUBLISHED = {"2b": "infinity_2b", "8b": "infinity_8b", "125m": "infinity_layer12_125m"}


def listed(name):
    """A file's tensors without storage, from the list of its names and shapes."""
    tensors = json.loads((GOLDEN / "checkpoints" / f"{name}.json").read_text())["tensors"]
    return {key: torch.empty(shape, dtype=getattr(torch, kind), device="meta") for key, (shape, kind) in tensors.items()}


def on_meta(kind, config):
    with torch.device("meta"):
        return dict(kind(config, nn).state_dict())


def names_of(raw_tensors, kind, tmp_path):
    return model_tensors(RawCheckpoint(tmp_path / "file.pth", raw_tensors, {}, True), kind)


@pytest.mark.parametrize("preset, file", PUBLISHED.items())
def test_published_transformers(preset, file, tmp_path):
    vae = "vae_d14_patchify" if preset == "8b" else "vae_d32"
    tensors = names_of(listed(file + ".transformer"), "transformer", tmp_path)
    cells = names_of(listed(vae), "tokenizer", tmp_path)
    config = assemble({**transformer_sizes(tensors), **tokenizer_sizes(cells)}, {}, "some file")
    assert config == PRESETS[preset]
    built = on_meta(Infinity, config.transformer)
    assert {name: t.shape for name, t in built.items()} == {name: t.shape for name, t in tensors.items()}
    assert {name: t.shape for name, t in on_meta(Tokenizer, config.tokenizer).items()} == {
        name: t.shape for name, t in cells.items()
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_sizes_of_the_whole_family(preset):
    config = PRESETS[preset]
    sizes = {
        **transformer_sizes(on_meta(Infinity, config.transformer)),
        **tokenizer_sizes(on_meta(Tokenizer, config.tokenizer)),
    }
    assert assemble(sizes, {}, "some file") == config


@pytest.mark.parametrize("stated", [{"cfg": 4.0}, {"top_p": 0.9}, {"cfg": 4.0, "tau": 0.7}, {"cfg_insertion_layer": [-5]}])
def test_what_is_stated_of_a_published_model_leaves_the_rest_as_it_was(stated):
    """Of the 8B's temperature above all, which is not the usual one."""
    config = PRESETS["8b"]
    parts = on_meta(Infinity, config.transformer), on_meta(Tokenizer, config.tokenizer)
    found = assemble({**transformer_sizes(parts[0]), **tokenizer_sizes(parts[1])}, stated, "some file").sampling
    fields = {"cfg": "guidance", "cfg_insertion_layer": "guidance_layers"}
    told = {fields.get(key, key): tuple(value) if isinstance(value, list) else value for key, value in stated.items()}
    assert found == replace(config.sampling, **told)


@pytest.mark.parametrize("config", [
    TokenizerConfig(codebook_dim=5, base_ch=8, ch_mult=(1, 2), num_res_blocks=3, patch_size=2),
    TokenizerConfig(codebook_dim=16, base_ch=24, ch_mult=(1, 2, 2, 4), num_res_blocks=1, patch_size=8),
])
def test_sizes_of_other_tokenizers(config):
    sizes = tokenizer_sizes(on_meta(Tokenizer, config))
    assert sizes == {
        "codebook_dim": config.codebook_dim, "vae_base_ch": config.base_ch, "vae_ch_mult": list(config.ch_mult),
        "vae_num_res_blocks": config.num_res_blocks, "patch_size": config.patch_size,
    }


# Pairing: only shapes and names are looked at before anything is read, so tensors without storage do -----------------------


def pair(transformer, tokenizer, t_name="model.pth", v_name="vae.pth", metadata=None):
    contents = {t_name: transformer, v_name: tokenizer}

    def reader(path):
        return RawCheckpoint(path, contents[path.name], (metadata or {}).get(path.name, {}), False)

    return load_model(t_name, v_name, reader=reader)


def tokenizer_of(bits, stride=16):
    mult = (1, 1, 1, 1, 1) if stride == 16 else (1, 1, 1, 1)
    return on_meta(Tokenizer, TokenizerConfig(codebook_dim=bits, base_ch=8, ch_mult=mult, num_res_blocks=1, patch_size=stride))


@pytest.mark.parametrize("bits, stride, match", [
    (16, 16, r"16 bits per cell.*wants 32 bits per token.*infinity_vae_d32reg\.pth"),
    (64, 16, r"64 bits per cell.*wants 32"),
    (32, 8, r"8x8 pixels; published models have 16x16"),
    (8, 16, r"stride 16, 2x2 patchify.*32x32 pixels"),
])
def test_2b_wants_its_tokenizer(bits, stride, match):
    with pytest.raises(UnusableFile, match=match):
        pair(listed("infinity_2b.transformer"), tokenizer_of(bits, stride))


def test_8b_wants_the_patchify_tokenizer():
    with pytest.raises(UnusableFile, match=r"32 bits per cell.*56 bits per token.*infinity_vae_d56_f8_14_patchify\.pth"):
        pair(listed("infinity_8b.transformer"), listed("vae_d32"))


@pytest.mark.parametrize("t_name, v_name, refused", [
    ("infinity_2b_reg.pth", "infinity_vae_d32.pth", True),
    ("renamed.pth", "infinity_vae_d32.pth", True),
    ("infinity_2b_reg.pth", "Infinity_VAE_D32_rot.pth", True),
    ("infinity_2b_reg.pth", "infinity_vae_d32reg.pth", False),
    ("infinity_2b_reg.pth", "infinity_vae_d32_reg.pth", False),
    ("infinity_2b_reg.pth", "vae.safetensors", False),
])
def test_d32_is_not_d32reg(t_name, v_name, refused):
    """Both have the same shapes; only the name can tell. What is not refused fails later, for want of storage."""
    with pytest.raises(Exception) as caught:
        pair(listed("infinity_2b.transformer"), listed("vae_d32"), t_name, v_name)
    assert ("d32reg" in str(caught.value)) == refused


def test_d32_is_seen_through_a_conversion():
    metadata = {"vae.safetensors": {"ttsvar": json.dumps({"source": "infinity_vae_d32.pth"})}}
    with pytest.raises(UnusableFile, match=r"infinity_vae_d32\.pth is by its name"):
        pair(listed("infinity_2b.transformer"), listed("vae_d32"), "a.pth", "vae.safetensors", metadata)


def test_damaged_metadata():
    with pytest.raises(UnusableFile, match=r"configuration inside vae\.safetensors is not JSON"):
        pair(listed("infinity_2b.transformer"), listed("vae_d32"), "a.pth", "vae.safetensors", {"vae.safetensors": {"ttsvar": "{"}})


def test_json_of_another_purpose_is_ignored(tmp_path):
    (tmp_path / "m.json").write_text('{"architectures": ["Other"]}')
    assert json_beside(tmp_path / "m.safetensors") is None
    assert json_beside(tmp_path) is None
