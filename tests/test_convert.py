"""Rewriting model files as safetensors with their configuration inside."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_files import assert_same_weights, old_spelling, paths, plain_model, weights
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ttsvar_core
from ttsvar_core.commands.convert import convert
from ttsvar_core.weights import UnusableFile, load_bundled, load_model


def test_converted_files_load_alone(tmp_path):
    transformer, tokenizer = (tmp_path / name for name in ("t.safetensors", "v.safetensors"))
    convert(paths()[0], transformer)
    torch.save({"vae": old_spelling(weights("vae"))}, tmp_path / "infinity_vae_d32reg.pth")
    convert(tmp_path / "infinity_vae_d32reg.pth", tokenizer)
    model = load_model(transformer, tokenizer)
    assert model.config == plain_model().config
    assert_same_weights(model, plain_model())
    with safe_open(tokenizer, "pt") as file:
        assert json.loads(file.metadata()["ttsvar"])["source"] == "infinity_vae_d32reg.pth"
    assert not list(tmp_path.glob("*.part"))


def test_a_converted_model_is_what_it_was(tmp_path):
    """All that its configuration states, what sketches are decoded at included; foresight has a file of its own."""
    bundled, _ = load_bundled()
    for part in ("transformer", "vae"):
        convert(Path(ttsvar_core.__file__).parent / "bundled" / f"scenes128.{part}.safetensors", tmp_path / f"{part}.safetensors")
    converted = load_model(tmp_path / "transformer.safetensors", tmp_path / "vae.safetensors")
    assert converted.config == replace(bundled.config, foresight=None)


def test_converting_to_half_size(tmp_path):
    size = convert(paths()[0], tmp_path / "t.safetensors", "bfloat16")
    stored = load_file(tmp_path / "t.safetensors")
    assert size == (tmp_path / "t.safetensors").stat().st_size
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
    assert torch.equal(stored["head.weight"], plain_model().transformer.head.weight.to(torch.bfloat16))


def test_converter_refuses(tmp_path):
    broken = weights("transformer")
    broken["head.bias"][0] = float("nan")
    save_file(broken, tmp_path / "m.safetensors")
    with pytest.raises(UnusableFile, match=r"head\.bias .* NaN"):
        convert(tmp_path / "m.safetensors", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists() and not list(tmp_path.glob("*.part"))
    with pytest.raises(FileExistsError, match="there already"):
        convert(tmp_path / "m.safetensors", tmp_path / "m.safetensors")
    with pytest.raises(UnusableFile, match="should end in"):
        convert(tmp_path / "m.safetensors", tmp_path / "out.pth")
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UnusableFile, match="no Infinity transformer or tokenizer"):
        convert(tmp_path / "x.safetensors", tmp_path / "out.safetensors")
    whole = {**weights("transformer"), "head.bias": weights("transformer")["head.bias"].to(torch.int8)}
    save_file(whole, tmp_path / "quantised.safetensors")
    with pytest.raises(UnusableFile, match=r"head\.bias of quantised\.safetensors is torch\.int8, no floating-point number"):
        convert(tmp_path / "quantised.safetensors", tmp_path / "out.safetensors", "float32")
    mixed = {**weights("transformer")}
    mixed["head.bias"] = mixed["head.bias"].half()
    save_file(mixed, tmp_path / "mixed.safetensors")
    with pytest.raises(UnusableFile, match="types float16, float32; choose one with --dtype"):
        convert(tmp_path / "mixed.safetensors", tmp_path / "out.safetensors")
