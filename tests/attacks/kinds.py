"""Every kind of model file that users bring, small, with the function that opens it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import reward_files
import torch
from attacks.harness import Kind
from checkpoint_files import paths, weights
from safetensors.torch import save_file
from test_text import spiece
from torch import Tensor, nn

import ttsvar_core
from ttsvar_core.extractors.dinov2 import load_dinov2
from ttsvar_core.infinity.text import load_text_encoder
from ttsvar_core.rewards.aesthetic import load_aesthetic
from ttsvar_core.rewards.clip import load_clip_score
from ttsvar_core.rewards.image_reward import load_image_reward
from ttsvar_core.weights import load_model

T5 = Path(ttsvar_core.__file__).parent / "bundled" / "scenes128.t5"


def _finite(*modules: nn.Module) -> bool:
    tensors = [tensor for module in modules for tensor in module.state_dict().values() if tensor.is_floating_point()]
    return bool(tensors) and all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _image_model(loaded: Any) -> bool:
    return _finite(loaded.transformer, loaded.tokenizer)


def _network(loaded: Any) -> bool:
    return _finite(loaded.model)


def _encodes(encoder: Any) -> bool:
    try:
        features = encoder.encode("a photo of a red circle")
    except ValueError as refused:
        return "do not belong together" in str(refused)
    return _finite(encoder.model) and bool(torch.isfinite(features).all())


def _saved(tensors: Callable[[], dict[str, Tensor]], name: str) -> Callable[[Path], Path]:
    """A writer of these tensors under a name that decides the format."""

    def write(folder: Path) -> Path:
        path = folder / name
        held = {key: tensor.contiguous() for key, tensor in tensors().items()}
        if name.endswith(".safetensors"):
            save_file(held, path)
        else:
            torch.save(held, path, _use_new_zipfile_serialization=not name.startswith("old"))
        return path

    return write


def _copied(source: Path) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(source, folder / source.name))


def _t5(name: str) -> Callable[[Path], Path]:
    """A folder with the bundled text encoder, of which one file is spoiled."""

    def write(folder: Path) -> Path:
        for file in T5.iterdir():
            shutil.copy(file, folder / file.name)
        return folder / name

    return write


def _t5_with_pieces(folder: Path) -> Path:
    shutil.copy(T5 / "model.safetensors", folder / "t5.safetensors")
    return spiece(folder / "spiece.model")


def _shards(folder: Path) -> Path:
    save_file(weights("transformer"), folder / "model-00001-of-00001.safetensors")
    shards = dict.fromkeys(weights("transformer"), "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    return folder / "model.safetensors.index.json"


def _with_config(tensors: Callable[[], dict[str, Tensor]], config: dict[str, Any]) -> Callable[[Path], Path]:
    """A model with its configuration beside it, of which the configuration is spoiled."""

    def write(folder: Path) -> Path:
        _saved(tensors, "model.safetensors")(folder)
        (folder / "model.json").write_text(json.dumps(config))
        return folder / "model.json"

    return write


def _beside(load: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda path: load(path.with_suffix(".safetensors"))


@cache
def _clip() -> dict[str, Tensor]:
    return reward_files.open_clip(vision=(8, 1), text=(8, 1))


@cache
def _image_reward() -> dict[str, Tensor]:
    return reward_files.image_reward(width=8, depth=1, text=8)


def _dino() -> dict[str, Tensor]:
    return reward_files.dinov2(depth=1)


def _siglip() -> dict[str, Tensor]:
    return reward_files.siglip(depth=1)


@cache
def _head(folder: Path) -> Path:
    return _saved(reward_files.aesthetic_head, "head.pth")(folder)


def _transformer(path: Path) -> Any:
    return load_model(path, paths()[1])


def _tokenizer(path: Path) -> Any:
    return load_model(paths()[0], path)


def _aesthetic(path: Path) -> Any:
    return load_aesthetic(path, _head(path.parent))


def _aesthetic_head(path: Path) -> Any:
    tower = path.parent / "tower.safetensors"
    if not tower.exists():
        save_file(_siglip(), tower)
    return load_aesthetic(tower, path)


def _described(path: Path) -> Any:
    return load_model(path.with_suffix(".safetensors"), paths()[1])


SIZES = json.loads(paths()[0].with_name("infinity_tiny_2b_style.json").read_text())
TOWER = {"num_attention_heads": 1, "layer_norm_eps": 1e-6, "hidden_act": "gelu", "image_size": 56, "head_width": 8, "heads": 1}
CLIP_CONFIG = {"vision_config": TOWER, "text_config": TOWER, "activation": "gelu", "model_cfg": {}}

KINDS = [
    Kind("transformer .safetensors", _saved(lambda: weights("transformer"), "model.safetensors"), _transformer, _image_model),
    Kind("transformer .pth", _saved(lambda: weights("transformer"), "model.pth"), _transformer, _image_model),
    Kind("transformer old .pth", _saved(lambda: weights("transformer"), "old.pth"), _transformer, _image_model),
    Kind("tokenizer .safetensors", _saved(lambda: weights("vae"), "vae.safetensors"), _tokenizer, _image_model),
    Kind("index of shards", _shards, _transformer, _image_model),
    Kind("image model .json", _with_config(lambda: weights("transformer"), SIZES), _described, _image_model),
    Kind("T5 model.safetensors", _t5("model.safetensors"), lambda path: load_text_encoder(path.parent), _encodes),
    Kind("T5 config.json", _t5("config.json"), lambda path: load_text_encoder(path.parent), _encodes),
    Kind("T5 tokenizer.json", _t5("tokenizer.json"), lambda path: load_text_encoder(path.parent), _encodes),
    Kind("T5 tokenizer_config.json", _t5("tokenizer_config.json"), lambda path: load_text_encoder(path.parent), _encodes),
    Kind("T5 spiece.model", _t5_with_pieces, lambda path: load_text_encoder(path.parent / "t5.safetensors"), _encodes),
    Kind("CLIP .safetensors", _saved(_clip, "clip.safetensors"), load_clip_score, _network),
    Kind("CLIP .json", _with_config(_clip, CLIP_CONFIG), _beside(load_clip_score), _network),
    Kind("ImageReward .pt", _saved(_image_reward, "ImageReward.pt"), load_image_reward, _network),
    Kind("ImageReward .json", _with_config(_image_reward, {"vision": TOWER, "text": TOWER, "mean": 0.1, "std": 1.0}),
         _beside(load_image_reward), _network),
    Kind("DINOv2 .pth", _saved(_dino, "dino.pth"), load_dinov2, _network),
    Kind("DINOv2 .json", _with_config(_dino, TOWER), _beside(load_dinov2), _network),
    Kind("SigLIP .safetensors", _saved(_siglip, "siglip.safetensors"), _aesthetic, _network),
    Kind("SigLIP .json", _with_config(_siglip, {"vision_config": TOWER}), _beside(_aesthetic), _network),
    Kind("aesthetic head .pth", _saved(reward_files.aesthetic_head, "aesthetic.pth"), _aesthetic_head, _network),
]
