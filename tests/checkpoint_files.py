"""Model files in every published layout, made from the reference models."""

import json
from functools import cache

import torch
from safetensors.torch import load_file, save_file
from tiny_models import GOLDEN

from ttsvar_core.weights import load_model

NAME = "infinity_tiny_2b_style"


def weights(part):
    return load_file(GOLDEN / f"{NAME}.{part}.safetensors")


def paths():
    return GOLDEN / f"{NAME}.transformer.safetensors", GOLDEN / f"{NAME}.vae.safetensors"


@cache
def plain_model():
    """The model as loaded from the files it comes in."""
    return load_model(*paths())


def assert_same_weights(model, other):
    for module in ("transformer", "tokenizer"):
        ours, theirs = getattr(model, module).state_dict(), getattr(other, module).state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert model.fingerprint == other.fingerprint


def with_config(folder, name="model"):
    """The configuration of the reference model beside ``name`` in ``folder``."""
    (folder / f"{name}.json").write_text((GOLDEN / f"{NAME}.json").read_text())


def old_spelling(tensors):
    """The tokenizer's names without the inner .conv and .norm, as some published files have them."""
    renamed = {}
    for name, tensor in tensors.items():
        stem, leaf = name.rsplit(".", 1)
        shortened = stem.removesuffix(".conv").removesuffix(".norm") if name.startswith(("encoder", "decoder")) else stem
        renamed[f"{shortened}.{leaf}"] = tensor
    return renamed


def layout_plain_pth(folder, transformer, tokenizer):
    torch.save(transformer, folder / "model.pth")
    torch.save({"vae": tokenizer}, folder / "vae.pth")
    return folder / "model.pth", folder / "vae.pth"


def layout_old_pth(folder, transformer, tokenizer):
    torch.save(transformer, folder / "model.pth", _use_new_zipfile_serialization=False)
    torch.save({"vae": tokenizer}, folder / "vae.pth", _use_new_zipfile_serialization=False)
    return folder / "model.pth", folder / "vae.pth"


def layout_training(folder, transformer, tokenizer):
    optimizer = {"state": {name: {"exp_avg": torch.zeros_like(t)} for name, t in transformer.items()}}
    trainer = {"gpt_fsdp": transformer, "gpt_fsdp_opt": optimizer, "vae_local": tokenizer, "config": {"lr": 1e-4}}
    torch.save({"args": {"ep": 1}, "epoch": 3, "trainer": trainer, "milestones": [(1, 2.0)]}, folder / "model.pth")
    return folder / "model.pth", folder / "model.pth"


def layout_wrapped(folder, transformer, tokenizer):
    torch.save({"module." + name: t for name, t in transformer.items()}, folder / "model.pth")
    torch.save({"state_dict": old_spelling(tokenizer)}, folder / "vae.pth")
    return folder / "model.pth", folder / "vae.pth"


def shards(folder, tensors, ending):
    names = sorted(tensors)
    parts = {f"model-0000{i + 1}-of-00002.{ending}": names[i::2] for i in range(2)}
    for file, part in parts.items():
        content = {name: tensors[name].contiguous() for name in part}
        save_file(content, folder / file) if ending == "safetensors" else torch.save(content, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = folder / f"model.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    return index


def layout_safetensors_shards(folder, transformer, tokenizer):
    shards(folder, transformer, "safetensors")
    torch.save({"vae": tokenizer}, folder / "vae_file")
    return folder, folder / "vae_file"


def layout_bin_shards_by_index(folder, transformer, tokenizer):
    torch.save({"vae": tokenizer}, folder / "vae_file")
    return shards(folder, transformer, "bin"), folder / "vae_file"


def layout_single_file_folder(folder, transformer, tokenizer):
    (folder / "t").mkdir()
    (folder / "v").mkdir()
    save_file(transformer, folder / "t" / "model.safetensors")
    save_file(tokenizer, folder / "v" / "anything.safetensors")
    return folder / "t", folder / "v"


def layout_training_buffers(folder, transformer, tokenizer):
    buffers = {"lvl_1L": torch.zeros(3), "attn_bias_for_masking": torch.zeros(1, 1, 2, 2),
               "Infinity_visible_kvlen": torch.zeros(4), "Infinity_invisible_qlen": torch.zeros(4)}
    torch.save({**transformer, **buffers}, folder / "model.pth")
    torch.save({"vae": {**tokenizer, "quantize.anything": torch.zeros(2)}}, folder / "vae.pth")
    return folder / "model.pth", folder / "vae.pth"


def layout_flash_training(folder, transformer, tokenizer):
    """Query lengths per head along the third axis, as the published code stores them with its flash attention."""
    turned = {k: t.transpose(1, 2).contiguous() if k.endswith("scale_mul_1H11") else t for k, t in transformer.items()}
    torch.save(turned, folder / "model.pth")
    torch.save({"vae": tokenizer}, folder / "vae.pth")
    return folder / "model.pth", folder / "vae.pth"


def layout_without_constants(folder, transformer, tokenizer):
    save_file({k: v for k, v in transformer.items() if "zero_k_bias" not in k}, folder / "model.safetensors")
    save_file({k: v for k, v in tokenizer.items() if "quantize" not in k}, folder / "vae.safetensors")
    return folder / "model.safetensors", folder / "vae.safetensors"


LAYOUTS = [value for name, value in sorted(globals().items()) if name.startswith("layout_")]
