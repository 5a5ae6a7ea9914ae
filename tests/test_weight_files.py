"""Weight files as strangers send them: what must not run, claim or pass, and what must be accepted."""

import json
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import reward_files
import torch
from attacks.harness import Kind, open_it
from checkpoint_files import assert_same_weights, paths, plain_model, weights, with_config
from safetensors.torch import load_file, save_file

import ttsvar_core
from ttsvar_core.extractors.dinov2 import load_dinov2
from ttsvar_core.infinity.text import load_text_encoder
from ttsvar_core.rewards.aesthetic import load_aesthetic
from ttsvar_core.rewards.clip import load_clip_score
from ttsvar_core.rewards.image_reward import load_image_reward
from ttsvar_core.weights import UnusableFile, load_model, read_checkpoint

T5 = Path(ttsvar_core.__file__).parent / "bundled" / "scenes128.t5"


def refused(load, path, match):
    """Opening is refused in these words, in under two seconds and 256 MiB."""
    answer = open_it(Kind("", lambda _: path, load, lambda _: True), path)
    assert isinstance(answer.error, UnusableFile), answer
    assert match in str(answer.error) and path.name in str(answer.error)
    assert answer.seconds < 2 and answer.memory < 256 * 2**20


# Code ------------------------------------------------------------------------------------------------------------------------


def test_torchscript_is_refused_by_its_contents(tmp_path):
    scripted = torch.jit.script(torch.nn.Linear(2, 2))
    for name in ("model.pth", "model.safetensors"):
        torch.jit.save(scripted, tmp_path / name)
        refused(read_checkpoint, tmp_path / name, "TorchScript archive, which holds code")


def test_a_text_encoder_folder_runs_no_code_and_asks_nothing(tmp_path, monkeypatch):
    shutil.copytree(T5, tmp_path / "t5")
    for file in ("config.json", "tokenizer_config.json"):
        stated = json.loads((T5 / file).read_text())
        stated |= {"auto_map": {"AutoModel": "owned.Owned", "AutoConfig": "owned.Owned", "AutoTokenizer": ["owned.Owned", None]}}
        stated |= {"tokenizer_class": "Owned"} if "tokenizer" in file else {}
        (tmp_path / "t5" / file).write_text(json.dumps(stated))
    (tmp_path / "t5" / "owned.py").write_text(f"open({str(tmp_path / 'owned.txt')!r}, 'w')\nclass Owned: pass\n")
    asked = []
    monkeypatch.setattr("builtins.input", lambda *_: asked.append(1) or "y")
    loaded = load_text_encoder(tmp_path / "t5")
    assert torch.equal(loaded.encode("a red circle"), load_text_encoder(T5).encode("a red circle"))
    assert not asked and not (tmp_path / "owned.txt").exists()


# Claims ----------------------------------------------------------------------------------------------------------------------


def rewritten(path, content, compression=zipfile.ZIP_STORED):
    """A .pth archive with every tensor's record filled by ``content(record)`` and another compression."""
    source = zipfile.ZipFile(path)
    records = [(name, source.read(name)) for name in source.namelist()]
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in records:
            target.writestr(name, content(data) if "/data/" in name else data)
    return path


def test_a_small_archive_that_claims_much(tmp_path):
    torch.save({"a": torch.zeros(2**27, dtype=torch.uint8)}, tmp_path / "bomb.pth")
    rewritten(tmp_path / "bomb.pth", bytes, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb.pth").stat().st_size < 2**20
    refused(read_checkpoint, tmp_path / "bomb.pth", "compressed archive")


def test_a_tensor_that_is_larger_than_its_file(tmp_path):
    torch.save({"a": torch.zeros(1).expand(2**20, 2**10)}, tmp_path / "wide.pth")
    refused(read_checkpoint, tmp_path / "wide.pth", "claims tensors of 4,294,967,")


def test_a_header_of_a_million_empty_tensors(tmp_path):
    empty = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    for count, match in ((1_000_000, "claims a header of "), (50_000, "names 50,000 tensors")):
        text = ("{" + ",".join(f'"t{i}":{empty}' for i in range(count)) + "}").encode()
        (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
        refused(read_checkpoint, tmp_path / "m.safetensors", match)


def test_a_dictionary_that_holds_itself(tmp_path):
    content = {"x": torch.zeros(2)}
    content["model"] = content
    torch.save(content, tmp_path / "self.pth")
    for load in (load_clip_score, load_image_reward, load_dinov2, lambda path: load_model(path, paths()[1])):
        refused(load, tmp_path / "self.pth", "self.pth")


@pytest.mark.parametrize("number", ["999999", "9" * 30])
def test_a_block_number_is_no_size(tmp_path, number):
    def renumbered(tensors, old):
        return {name.replace(old, old.replace("1", number)): t.contiguous() for name, t in tensors.items()}

    cases = {
        "dino.safetensors": (reward_files.dinov2(), "blocks.1.", load_dinov2),
        "clip.safetensors": (reward_files.open_clip(), "resblocks.1.", load_clip_score),
        "t5.safetensors": (load_file(T5 / "model.safetensors"), "block.1.", load_text_encoder),
        "m.safetensors": (weights("transformer"), "block_chunks.1.", lambda path: load_model(path, paths()[1])),
    }
    shutil.copy(T5 / "tokenizer.json", tmp_path)
    for name, (tensors, old, load) in cases.items():
        save_file(renumbered(tensors, old), tmp_path / name)
        refused(load, tmp_path / name, name)


def test_configurations_do_not_make_another_model(tmp_path):
    save_file(weights("transformer"), tmp_path / "m.safetensors")
    with_config(tmp_path, "m")
    stated = json.loads((tmp_path / "m.json").read_text())
    for key, value in (("depth", 10**9), ("embed_dim", 10**6), ("vae_ch_mult", [10**6])):
        (tmp_path / "m.json").write_text(json.dumps(stated | {key: value}))
        refused(lambda path: load_model(path, paths()[1]), tmp_path / "m.safetensors", f"{key} {value}"[:20])
    grids = {"scale_schedule": [[1, 1, 1], [1, 10**9, 10**9]]}
    (tmp_path / "m.json").write_text(json.dumps(stated | grids))
    refused(lambda path: load_model(path, paths()[1]), tmp_path / "m.safetensors", "grids")


# Numbers ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path, bad):
    shutil.copy(T5 / "tokenizer.json", tmp_path)
    save_file(reward_files.siglip(), tmp_path / "tower.safetensors")
    query = "encoder.block.1.layer.0.SelfAttention.q.weight"
    cases = {
        "t5.safetensors": (load_file(T5 / "model.safetensors"), query, load_text_encoder),
        "clip.safetensors": (reward_files.open_clip(), "text_model.final_layer_norm.weight", load_clip_score),
        "ImageReward.pt": (reward_files.image_reward(), "encoder.layer.1.output.dense.bias", load_image_reward),
        "dino.pth": (reward_files.dinov2(), "embeddings.register_tokens", load_dinov2),
        "siglip.safetensors": (reward_files.siglip(), "vision_model.post_layernorm.bias",
                               lambda path: load_aesthetic(path, tmp_path / "head.pth")),
        "head.pth": (reward_files.aesthetic_head(), "2.weight", lambda path: load_aesthetic(tmp_path / "tower.safetensors", path)),
    }
    torch.save(reward_files.aesthetic_head(), tmp_path / "head.pth")
    for file, (tensors, name, load) in cases.items():
        mark = name.removeprefix("text_model.").replace("final_layer_norm", "ln_final").removeprefix("embeddings.")
        (spoiled,) = [key for key in tensors if key.endswith(mark)]
        tensors[spoiled].view(-1)[1] = bad
        keep = save_file if file.endswith("safetensors") else torch.save
        keep({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / file)
        refused(load, tmp_path / file, f"{name} of ")


def test_an_attention_mask_may_hold_infinity(tmp_path):
    """Some files carry CLIP's causal mask, which is no weight."""
    tensors = reward_files.open_clip() | {"attn_mask": torch.full((77, 77), float("-inf"))}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "clip.safetensors")
    load_clip_score(tmp_path / "clip.safetensors")


def test_whole_numbers_are_no_weights(tmp_path):
    tensors = reward_files.dinov2()
    tensors["blocks.1.mlp.fc1.weight"] = tensors["blocks.1.mlp.fc1.weight"].to(torch.int8)
    torch.save(tensors, tmp_path / "dino.pth")
    refused(load_dinov2, tmp_path / "dino.pth", "encoder.layer.1.mlp.fc1.weight")


def test_a_reward_with_nan_says_where_a_good_one_is(tmp_path):
    torch.save({name: tensor * float("nan") for name, tensor in reward_files.dinov2().items()}, tmp_path / "dino.pth")
    with pytest.raises(UnusableFile, match=r"holds NaN or infinity.*get dinov2_vitl14_reg4_pretrain\.pth from https"):
        load_dinov2(tmp_path / "dino.pth")


# Accepted --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low", [0x80, 0x50, 0x3C])
def test_any_length_of_header(tmp_path, low):
    """The first byte of a .safetensors is the low byte of a length: any value may come, also those that begin other files."""
    tensors = {"word": torch.arange(3.0)}
    save_file(tensors, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    text = data[8 : 8 + size].ljust(256 + low)
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    assert (tmp_path / "m.safetensors").read_bytes()[0] == low
    assert torch.equal(read_checkpoint(tmp_path / "m.safetensors").content["word"], tensors["word"])


def wrapped(name, wrapper):
    """A name as a model has it whose blocks were wrapped one by one."""
    return name.replace("block_chunks.0.module.", f"block_chunks.0.{wrapper}module.").replace("blocks.", f"blocks.{wrapper}")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", ["_orig_mod.", "_fsdp_wrapped_module.", "_fsdp_wrapped_module._checkpoint_wrapped_module."])
def test_names_with_wrappers_inside(tmp_path, wrapper, prefix):
    torch.save({prefix + wrapped(name, wrapper): t for name, t in weights("transformer").items()}, tmp_path / "model.pth")
    with_config(tmp_path)
    assert_same_weights(load_model(tmp_path / "model.pth", paths()[1]), plain_model())


@pytest.mark.parametrize("place", [("trainer", "gpt_ema_fsdp"), ("trainer", "gpt_ema"), ("gpt_ema",)])
def test_a_checkpoint_with_only_the_average(tmp_path, place):
    content = weights("transformer")
    for key in reversed(place):
        content = {key: content}
    torch.save({"epoch": 1, **content}, tmp_path / "model.pth")
    torch.save({"ema": weights("vae")}, tmp_path / "vae.pth")
    with_config(tmp_path)
    assert_same_weights(load_model(tmp_path / "model.pth", tmp_path / "vae.pth"), plain_model())


def test_the_weights_come_before_their_average(tmp_path):
    other = {name: tensor + 1 for name, tensor in weights("transformer").items()}
    torch.save({"trainer": {"gpt_ema_fsdp": other, "gpt_fsdp": weights("transformer")}}, tmp_path / "model.pth")
    with_config(tmp_path)
    assert_same_weights(load_model(tmp_path / "model.pth", paths()[1]), plain_model())


def test_a_truncated_text_encoder_folder_says_so(tmp_path):
    shutil.copytree(T5, tmp_path / "t5")
    whole = (T5 / "model.safetensors").read_bytes()
    for share in range(1, 90):
        (tmp_path / "t5" / "model.safetensors").write_bytes(whole[: len(whole) * share // 90])
        with pytest.raises(UnusableFile, match=r"t5 .*: model\.safetensors is truncated.*Download it again\."):
            load_text_encoder(tmp_path / "t5")


def test_a_tokenizer_of_another_encoder(tmp_path):
    shutil.copytree(T5, tmp_path / "t5")
    content = json.loads((T5 / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {"strange": 5000} if isinstance(content["model"]["vocab"], dict) else {}
    (tmp_path / "t5" / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UnusableFile, match="gives token 5000, the text encoder knows 44"):
        load_text_encoder(tmp_path / "t5").encode("strange")
