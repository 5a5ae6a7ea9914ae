"""Models of any published size with random weights: speed and memory do not depend on what the weights say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttsvar_core.bsq.autoencoder import Tokenizer
from ttsvar_core.config import PRESETS, ModelConfig
from ttsvar_core.image_model import ImageModel
from ttsvar_core.infinity.model import Infinity
from ttsvar_core.infinity.text import Conditioning

PROMPT = "a photo of a red circle left of a blue square"
TEXT_TOKENS = 32  # of the random text features; the length of an ordinary sentence
GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
SHAPES = GOLDEN / "checkpoints"


def model_and_prompt(
    name: str, device: torch.device, dtype: torch.dtype, depth: int | None = None, small_tokenizer: bool = False
) -> tuple[ImageModel, Conditioning]:
    """A model and a prompt's features: the bundled ones, or random ones of a preset's sizes.

    ``depth`` replaces the number of layers; ``small_tokenizer`` the tokenizer by a narrow one that decodes in no time, so
    that what is left is the transformer. Both apply to presets only.
    """
    if name == "bundled":
        return _bundled(device, dtype)
    config = PRESETS[name]
    if depth:
        config = replace(config, transformer=replace(config.transformer, depth=depth, block_chunks=1))
    if small_tokenizer:
        config = replace(config, tokenizer=replace(config.tokenizer, base_ch=8, num_res_blocks=1))
    conditioning = Conditioning(PROMPT, torch.randn(TEXT_TOKENS, config.transformer.text_channels), None, None)
    return random_model(config, device, dtype), conditioning


def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> ImageModel:
    """An untrained model of these sizes, on the device in the precision asked for (the tokenizer in float32)."""
    with torch.device("meta"):
        transformer, tokenizer = Infinity(config.transformer), Tokenizer(config.tokenizer)
    transformer = transformer.in_precision(dtype).to_empty(device=device)
    tokenizer = tokenizer.to_empty(device=device)
    for module in (transformer, tokenizer):
        module.requires_grad_(False).eval()
        for key, parameter in module.named_parameters():
            _fill(key, parameter)
    return ImageModel(config, transformer, tokenizer, "random")


def _fill(name: str, parameter: Tensor) -> None:
    if parameter.ndim < 2:
        parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    elif "scale_mul" in name:
        parameter.fill_(math.log(4.0))
    else:
        parameter.normal_(std=0.02)


def random_tensors(name: str) -> dict[str, Tensor]:
    """Tensors of the shapes of a published checkpoint (a file in tests/golden/checkpoints) with random values."""
    listed = json.loads((SHAPES / f"{name}.json").read_text(encoding="utf-8"))["tensors"]
    return {key: _random(key, entry) for key, entry in listed.items()}


def _random(name: str, entry: Any) -> Tensor:
    shape, dtype = (entry["shape"], entry["dtype"]) if isinstance(entry, dict) else entry
    if "int" in dtype:
        return torch.arange(math.prod(shape)).reshape(shape)
    if len(shape) < 2:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    return torch.randn(shape) * 0.02


def _bundled(device: torch.device, dtype: torch.dtype) -> tuple[ImageModel, Conditioning]:
    from ttsvar_core.infinity.text import encode_prompt
    from ttsvar_core.weights import load_bundled

    model, encoder = load_bundled()
    model.transformer.to(device, dtype)
    model.tokenizer.to(device)
    return model, encode_prompt(encoder, PROMPT)
