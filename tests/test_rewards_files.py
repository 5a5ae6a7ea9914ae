"""Files that users bring: formats that load, and errors that say what to do."""

import json
import re

import pytest
import reward_files
import torch
from safetensors.torch import save_file

from ttsvar_core.extractors.dinov2 import load_dinov2
from ttsvar_core.reading import MissingFile, UnusableFile
from ttsvar_core.registry import WeightFile
from ttsvar_core.rewards.aesthetic import load_aesthetic
from ttsvar_core.rewards.clip import load_clip_score, load_hps, load_pick_score
from ttsvar_core.rewards.image_reward import load_image_reward
from ttsvar_core.rewards.package import load_packaged_image_reward
from ttsvar_core.weights.tensors import read_config, read_tensors

ANY = WeightFile("Anything", ("anything.pt",), "https://example.org/anything")
PAGES = [
    (load_image_reward, "ImageReward.pt", "https://huggingface.co/THUDM/ImageReward"),
    (load_hps, "HPS_v2.1_compressed.pt", "https://huggingface.co/xswu/HPSv2"),
    (load_clip_score, "the folder clip-vit-large-patch14", "https://huggingface.co/openai/clip-vit-large-patch14"),
    (load_pick_score, "the folder PickScore_v1", "https://huggingface.co/yuvalkirstain/PickScore_v1"),
    (load_dinov2, "dinov2_vitl14_reg4_pretrain.pth", "https://github.com/facebookresearch/dinov2"),
    (lambda path: load_aesthetic(path, path), "the folder siglip-so400m-patch14-384", "https://huggingface.co/google/siglip-so400m-patch14-384"),
]


@pytest.mark.parametrize(("loader", "file", "page"), PAGES)
def test_a_missing_file_names_file_folder_and_page(loader, file, page, tmp_path):
    with pytest.raises(MissingFile) as error:
        loader(tmp_path / "gone.pt")
    assert all(part in str(error.value) for part in (str(tmp_path / "gone.pt"), file, "models/reward_models", page))


@pytest.mark.parametrize(("loader", "file", "page"), PAGES)
def test_another_model_is_refused_with_the_same_directions(loader, file, page, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"unet.conv_in.weight": torch.zeros(3, 3)}, other)
    with pytest.raises(UnusableFile) as error:
        loader(other)
    assert str(other) in str(error.value) and "models/reward_models" in str(error.value)


def test_a_missing_and_a_misshaped_tensor_are_named(tmp_path):
    tensors = reward_files.image_reward()
    del tensors["blip.visual_encoder.blocks.1.mlp.fc1.bias"]
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UnusableFile, match=r"1 tensors.*encoder\.layers\.1\.mlp\.fc1\.bias.*THUDM"):
        load_image_reward(tmp_path / "a.safetensors")
    tensors = reward_files.dinov2()
    tensors["blocks.1.attn.proj.weight"] = torch.zeros(64, 32)
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(UnusableFile, match=r"encoder\.layer\.1\.attention.*facebookresearch"):
        load_dinov2(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "blip.visual_encoder.patch_embed.proj.weight",
        "blip.visual_encoder.blocks.0.mlp.fc1.weight",
        "blip.text_encoder.encoder.layer.0.intermediate.dense.weight",
        "mlp.layers.4.bias",
    ],
)
def test_a_tensor_that_sizes_are_read_from_is_named_too(name, tmp_path):
    tensors = reward_files.image_reward()
    del tensors[name]
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(UnusableFile, match=rf"{re.escape(name.split('.', 2)[2])}.*THUDM"):
        load_image_reward(tmp_path / "x.safetensors")


def test_a_head_that_lacks_a_layer_is_refused(tmp_path):
    tensors = reward_files.image_reward()
    del tensors["mlp.layers.2.weight"], tensors["mlp.layers.2.bias"]
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(UnusableFile, match=r"do not fit each other \(64 to 1024, 128 to 64"):
        load_image_reward(tmp_path / "x.safetensors")


def test_a_head_without_its_tensors_is_refused(tmp_path):
    save_file(reward_files.siglip(), tmp_path / "siglip.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "head.pth")
    with pytest.raises(UnusableFile, match=r"head of Aesthetic v2\.5.*discus0434"):
        load_aesthetic(tmp_path / "siglip.safetensors", tmp_path / "head.pth")


def test_a_text_tower_with_another_vocabulary_is_refused(tmp_path):
    save_file(reward_files.open_clip(vocabulary=1000), tmp_path / "clip.safetensors")
    with pytest.raises(UnusableFile, match="knows 1000 tokens, its tokenizer has 49408"):
        load_clip_score(tmp_path / "clip.safetensors")


def other_clip(vision, patch, grid, text):
    """A CLIP as meta tensors: its sizes without its memory."""
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in reward_files.open_clip_shapes(vision, text, patch, grid).items()}
    return tensors


@pytest.mark.parametrize("loader", [load_hps, load_pick_score])
@pytest.mark.parametrize(
    ("vision", "patch", "grid", "text"),
    [((768, 12), 32, 7, (512, 12)), ((1024, 24), 14, 16, (768, 12)), ((1280, 32), 14, 27, (1024, 24)),
     ((1280, 32), 14, 16, (768, 24)), ((1664, 48), 14, 16, (1280, 32))],
)
def test_a_clip_of_another_size_is_refused(loader, vision, patch, grid, text, tmp_path, monkeypatch):
    """ViT-B/32, ViT-L/14, ViT-H/14 for 378 pixels, one with another text tower, ViT-bigG/14."""
    monkeypatch.setattr("ttsvar_core.rewards.clip.read_tensors", lambda *_: other_clip(vision, patch, grid, text))
    with pytest.raises(UnusableFile) as error:
        loader(tmp_path / "clip.safetensors")
    found = f"width {vision[0]} with {vision[1]} layers for {patch * grid} pixels in patches of {patch}"
    expected = "width 1280 with 32 layers for 224 pixels in patches of 14, and a text tower of width 1024 with 24 layers"
    parts = ("clip.safetensors", found, f"width {text[0]} with {text[1]} layers", expected, "CLIPScore", "https://")
    assert all(part in str(error.value) for part in parts)


class Payload:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_objects_are_never_unpickled(tmp_path, capsys):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(UnusableFile, match=r"evil\.pt cannot be read as tensors.*https://example\.org"):
        read_tensors(tmp_path / "evil.pt", ANY)
    assert "unpickled" not in capsys.readouterr().out


def test_cut_short_and_empty_files(tmp_path):
    save_file({"a": torch.zeros(100)}, tmp_path / "a.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:80])
    (tmp_path / "page.pt").write_text("<html>login</html>")
    torch.save({}, tmp_path / "empty.pt")
    for name in ("cut.safetensors", "page.pt", "empty.pt"):
        with pytest.raises(UnusableFile, match=rf"{name}.*example\.org"):
            read_tensors(tmp_path / name, ANY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"", "is empty"),
        (b"PK\x03\x04", "truncated or no PyTorch file"),
    ],
)
def test_what_a_file_is_instead_is_said(content, message, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(UnusableFile, match=rf"x\.safetensors.*{message}.*example\.org"):
        read_tensors(tmp_path / "x.safetensors", ANY)


def test_the_first_bytes_decide_and_not_the_ending(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.pt")
    torch.save({"b": torch.zeros(1)}, tmp_path / "b.pt")
    (tmp_path / "b.pt").rename(tmp_path / "b.safetensors")
    assert set(read_tensors(tmp_path / "a.pt", ANY)) == {"a"} and set(read_tensors(tmp_path / "b.safetensors", ANY)) == {"b"}


@pytest.mark.parametrize("index", ['{"weight_map": {"a": "../out.safetensors"}}', '{"weights": {}}', '{"weight_map": {"a": 1}}'])
def test_a_damaged_index_and_shards_elsewhere_are_refused(index, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "out.safetensors")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UnusableFile, match=r"outside its own folder|no index of shards"):
        read_tensors(tmp_path / "folder", ANY)


def test_an_open_clip_folder_with_its_torch_file_too(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    torch.save({"b": torch.zeros(1)}, tmp_path / "open_clip_pytorch_model.bin")
    assert set(read_tensors(tmp_path, ANY)) == {"a"}


def with_module(tensors):
    return {"model": {f"module.{name}": tensor for name, tensor in tensors.items()}}


@pytest.mark.parametrize("wrap", [dict, lambda tensors: {"state_dict": tensors}, with_module])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_plain_and_wrapped(wrap, zipped, tmp_path):
    tensors = {"a.weight": torch.rand(3), "b": torch.rand(2, 2)}
    torch.save(wrap(tensors), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    read = read_tensors(tmp_path / "x.pt", ANY)
    assert list(read) == list(tensors) and all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_folders_whole_and_sharded(tmp_path):
    save_file({"a": torch.zeros(1), "b": torch.ones(1)}, tmp_path / "model.safetensors")
    assert set(read_tensors(tmp_path, ANY)) == {"a", "b"}
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    save_file({"a": torch.zeros(1)}, sharded / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnusableFile, match=r"missing: two\.safetensors.*example\.org"):
        read_tensors(sharded, ANY)
    save_file({"b": torch.ones(1)}, sharded / "two.safetensors")
    assert set(read_tensors(sharded, ANY)) == {"a", "b"}
    (tmp_path / "bare").mkdir()
    with pytest.raises(UnusableFile, match=r"model files found: none.*example\.org"):
        read_tensors(tmp_path / "bare", ANY)


def test_configuration_from_folder_or_beside_the_file(tmp_path):
    save_file(reward_files.open_clip(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"vision_cfg": {}, "quick_gelu": True}}))
    assert load_clip_score(tmp_path).model.clip.config.vision_config.hidden_act == "quick_gelu"
    assert read_config(tmp_path / "open_clip_model.safetensors") == {}
    (tmp_path / "open_clip_model.json").write_text('{"activation": "quick_gelu"}')
    assert read_config(tmp_path / "open_clip_model.safetensors") == {"activation": "quick_gelu"}


def test_surplus_tensors_are_named_and_tolerated(tmp_path, caplog):
    tensors = reward_files.dinov2() | {"ema.decay": torch.zeros(1)}
    save_file(tensors, tmp_path / "x.safetensors")
    load_dinov2(tmp_path / "x.safetensors")
    assert "ema.decay" in caplog.text


def test_package_that_cannot_be_imported_points_to_the_built_in_scorer(tmp_path):
    pytest.importorskip("transformers", minversion="4.56")
    with pytest.raises(ImportError, match="built-in ImageReward"):
        load_packaged_image_reward(tmp_path / "ImageReward.pt")
