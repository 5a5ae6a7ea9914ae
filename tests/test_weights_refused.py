"""Files that are not a model, not all of one, or not the right one: the error says so before any heavy work."""

import struct

import pytest
import torch
from checkpoint_files import assert_same_weights, paths, plain_model, shards, weights, with_config
from safetensors.torch import save_file

from ttsvar_core.weights import UnusableFile, load_model


def refuse(match, transformer=None, tokenizer=None, **options):
    default = paths()
    with pytest.raises(UnusableFile, match=match):
        load_model(transformer or default[0], tokenizer or default[1], **options)


def test_no_file(tmp_path):
    refuse(r"no file .*nowhere\.pth", tmp_path / "nowhere.pth")


@pytest.mark.parametrize("content, match", [
    (b"", "is empty"),
    (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    (b"GGUF\x03\0\0\0", "GGUF"),
    (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "neither"),
    (b"\x80\x02garbage", "no PyTorch file|more than tensors"),
    (b"PK\x03\x04" + b"\0" * 200, "truncated or no PyTorch file"),
    (struct.pack("<Q", 20) + b"{not json at all    }", "damaged safetensors header"),
    (struct.pack("<Q", 5000) + b'{"a":', "truncated"),
])
def test_files_that_are_no_models(tmp_path, content, match):
    file = tmp_path / "model.pth"
    file.write_bytes(content)
    refuse(match, file)


@pytest.mark.parametrize("share", [0.999, 0.5, 0.01])
def test_truncated_files(tmp_path, share):
    tensors = weights("transformer")
    torch.save(tensors, tmp_path / "whole.pth")
    save_file(tensors, tmp_path / "whole.safetensors")
    for whole in ("whole.pth", "whole.safetensors"):
        data = (tmp_path / whole).read_bytes()
        (tmp_path / f"cut_{whole}").write_bytes(data[: int(len(data) * share)])
        refuse("truncated", tmp_path / f"cut_{whole}")


class Payload:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (open, ("owned.txt", "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_never_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    content = {**weights("transformer"), "payload": Payload()}
    torch.save(content, "model.pth", _use_new_zipfile_serialization=zipped)
    refuse("could run code", tmp_path / "model.pth")
    assert not (tmp_path / "owned.txt").exists()


@pytest.mark.parametrize("name, what", [
    ("model.diffusion_model.input_blocks.0.0.weight", "Stable Diffusion"),
    ("double_blocks.0.img_mod.lin.weight", "Flux"),
    ("encoder.block.0.layer.0.SelfAttention.q.weight", "T5 text encoder"),
    ("blip.visual_encoder.cls_token", "ImageReward"),
    ("something.else", "no Infinity transformer. It starts with: something.else"),
])
def test_models_of_others_are_named(tmp_path, name, what):
    save_file({name: torch.zeros(2, 2)}, tmp_path / "m.safetensors")
    refuse(what, tmp_path / "m.safetensors")


def test_swapped_files():
    transformer, tokenizer = paths()
    refuse("holds a tokenizer; expected a transformer. Were the two files swapped", tokenizer, transformer)


def test_missing_tensors_are_listed(tmp_path):
    cut = {k: v for k, v in weights("transformer").items() if "ffn.fc2" not in k}
    save_file(cut, tmp_path / "m.safetensors")
    with_config(tmp_path, name="m")
    refuse(r"lacks 8 of \d+ tensors: .*ffn\.fc2\.weight; .* and 3 more.*infinity_2b_reg\.pth", tmp_path / "m.safetensors")


def test_misshaped_tensors_are_listed(tmp_path):
    wrong = weights("transformer")
    wrong["head.weight"] = torch.zeros(64, 32)
    save_file(wrong, tmp_path / "m.safetensors")
    with_config(tmp_path, name="m")
    refuse(r"1 tensors of the wrong shape: head\.weight is \(64, 32\), expected \(64, 64\)", tmp_path / "m.safetensors")


def test_integer_weights_are_refused(tmp_path):
    wrong = weights("transformer")
    wrong["head.weight"] = torch.zeros(64, 64, dtype=torch.int8)
    save_file(wrong, tmp_path / "m.safetensors")
    with_config(tmp_path, name="m")
    refuse("no floating-point numbers: head.weight is torch.int8", tmp_path / "m.safetensors")


def test_quantised_files_are_refused(tmp_path):
    save_file({**weights("transformer"), "head.scale_weight": torch.ones(1)}, tmp_path / "m.safetensors")
    refuse("quantised file", tmp_path / "m.safetensors")


def test_surplus_tensors_are_one_warning(tmp_path):
    save_file({**weights("transformer"), "extra.a": torch.ones(1), "extra.b": torch.ones(1)}, tmp_path / "m.safetensors")
    with_config(tmp_path, name="m")
    with pytest.warns(UserWarning, match=r"2 tensors this model does not use: extra\.a; extra\.b") as caught:
        model = load_model(tmp_path / "m.safetensors", paths()[1])
    assert len(caught) == 1
    assert_same_weights(model, plain_model())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_weights_that_are_not_finite(tmp_path, bad, part):
    tensors = weights(part)
    name = "head.weight" if part == "transformer" else "decoder.conv_in.conv.weight"
    tensors[name].view(-1)[17] = bad
    save_file(tensors, tmp_path / "m.safetensors")
    with_config(tmp_path, name="m")
    files = {"transformer" if part == "transformer" else "tokenizer": tmp_path / "m.safetensors"}
    refuse(f"{name} of m.safetensors holds NaN or infinity", **files)


def test_weights_beyond_the_precision_asked_for(tmp_path):
    tensors = weights("transformer")
    tensors["word_embed.weight"][0, 0] = 1e6
    save_file(tensors, tmp_path / "m.safetensors")
    with_config(tmp_path, name="m")
    refuse("does not fit the range of torch.float16. Choose bfloat16", tmp_path / "m.safetensors", dtype=torch.float16)


def test_missing_shard(tmp_path):
    shards(tmp_path, weights("transformer"), "safetensors")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    refuse("1 of 2 shards .* missing: model-00002-of-00002", tmp_path)


def test_shards_elsewhere_are_not_followed(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    refuse("outside its own folder", tmp_path)


def test_folder_that_holds_several_models(tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / name)
    refuse("found: a.safetensors, b.safetensors. Choose a file", tmp_path)


def test_broken_configuration_beside_the_file(tmp_path):
    save_file(weights("transformer"), tmp_path / "m.safetensors")
    (tmp_path / "m.json").write_text("{")
    refuse("configuration m.json is not JSON", tmp_path / "m.safetensors")
