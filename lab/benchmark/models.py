"""Models of any published size with random weights: speed and memory do not depend on what the weights say."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from ttsvar_core.bsq.autoencoder import Tokenizer
from ttsvar_core.config import PRESETS, ModelConfig
from ttsvar_core.extractors.dinov2 import PATCHES, DinoExtractor, build_dinov2
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.image_model import ImageModel
from ttsvar_core.infinity.model import Infinity
from ttsvar_core.infinity.text import Conditioning, encode_prompt
from ttsvar_core.rewards.image_reward import ImageReward, build_image_reward
from ttsvar_core.rewards.scenes import SceneReward
from ttsvar_core.scales import ScaleSchedule
from ttsvar_core.state import SearchState, start
from ttsvar_core.vision.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from ttsvar_core.vision.tokens import bert_tokenizer
from ttsvar_core.weights import load_bundled

SEED = 1
PROMPT = "a photo of a red circle left of a blue square"
TEXT_TOKENS = 32  # of the random text features; the length of an ordinary sentence
GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
SHAPES = GOLDEN / "checkpoints"
Tensors = Callable[[str], Mapping[str, Tensor]]
_TINY = {"image_reward": "image_reward_tiny", "dinov2_vitl14_reg": "dinov2_reg_tiny"}
_WORDS, _BERT_WORDS = "blip.text_encoder.embeddings.word_embeddings.weight", 30524


class Subject(NamedTuple):
    """What is measured: a model, a prompt's features, and the schedule of a size of pictures."""

    model: ImageModel
    conditioning: Conditioning
    schedule: ScaleSchedule

    def begin(self, samples: int) -> SearchState:
        """So many samples before their first scale."""
        return start(self.model, self.conditioning, samples, SEED, self.schedule)


def subject(
    name: str, device: torch.device, dtype: torch.dtype, pixels: str, depth: int | None = None, small_tokenizer: bool = False
) -> Subject:
    """The bundled model, or one of a preset's sizes with random weights and random features of a prompt.

    ``depth`` replaces the number of layers; ``small_tokenizer`` the tokenizer by a narrow one that decodes in no time, so
    that what is left is the transformer. Both apply to presets only, as does ``pixels``.
    """
    if name == "bundled":
        model, encoder = load_bundled()
        model.transformer.to(device, dtype)
        model.tokenizer.to(device)
        return Subject(model, encode_prompt(encoder, PROMPT), model.schedule())
    config = PRESETS[name]
    if depth:
        config = replace(config, transformer=replace(config.transformer, depth=depth, block_chunks=1))
    if small_tokenizer:
        config = replace(config, tokenizer=replace(config.tokenizer, base_ch=8, num_res_blocks=1))
    return random_subject(config, device, dtype, pixels)


def random_subject(config: ModelConfig, device: torch.device, dtype: torch.dtype, pixels: str) -> Subject:
    """An untrained model of these sizes, on the device in the precision asked for (the tokenizer in float32)."""
    conditioning = Conditioning(PROMPT, torch.randn(TEXT_TOKENS, config.transformer.text_channels), None, None)
    with torch.device("meta"):
        transformer, tokenizer = Infinity(config.transformer), Tokenizer(config.tokenizer)
    transformer = transformer.in_precision(dtype).to_empty(device=device)
    tokenizer = tokenizer.to_empty(device=device)
    for module in (transformer, tokenizer):
        module.requires_grad_(False).eval()
        for key, parameter in module.named_parameters():
            _fill(key, parameter)
    tokenizer.to(memory_format=torch.channels_last)  # as it is when loaded
    model = ImageModel(config, transformer, tokenizer, "random")
    return Subject(model, conditioning, model.schedule(1.0, pixels))


def _fill(name: str, tensor: Tensor) -> Tensor:
    """Random values, in place."""
    if tensor.ndim < 2:
        return tensor.fill_(1.0 if name.endswith("weight") else 0.0)
    return tensor.fill_(math.log(4.0)) if "scale_mul" in name else tensor.normal_(std=0.02)


def random_tensors(name: str) -> dict[str, Tensor]:
    """Tensors of the shapes of a published checkpoint (a file in tests/golden/checkpoints) with random values."""
    found = {}
    for key, entry in json.loads((SHAPES / f"{name}.json").read_text(encoding="utf-8"))["tensors"].items():
        shape, dtype = (entry["shape"], entry["dtype"]) if isinstance(entry, dict) else entry
        found[key] = torch.arange(math.prod(shape)).reshape(shape) if "int" in dtype else _fill(key, torch.empty(shape))
    return found


def tiny_tensors(name: str) -> dict[str, Tensor]:
    """Stands in for `random_tensors`: the tiny reference network of the same kind (tests/golden)."""
    tensors = load_file(GOLDEN / f"{_TINY[name]}.safetensors")
    if _WORDS in tensors:  # the prompt's tokenizer knows more words than the tiny text tower
        tensors[_WORDS] = torch.nn.functional.pad(tensors[_WORDS], (0, 0, 0, _BERT_WORDS - len(tensors[_WORDS])))
    return tensors


def reward_of(name: str, device: torch.device, dtype: torch.dtype, tensors: Tensors = random_tensors) -> Any:
    """The scene verifier ("scenes"), or ImageReward of its published size with random weights."""
    if name == "scenes":
        return SceneReward()
    network, size = build_image_reward(tensors("image_reward"), {}, "random weights")
    network.vision.to(dtype)
    network.text.to(dtype)
    return ImageReward(network.eval(), bert_tokenizer(), Preprocess(size)).to(device)


def extractor_of(name: str, device: torch.device, dtype: torch.dtype, tensors: Tensors = random_tensors) -> Any:
    """The latent pool ("latent-pool"), or DINOv2 of its published size with random weights."""
    if name == "latent-pool":
        return LatentPool()
    network = build_dinov2(tensors("dinov2_vitl14_reg"), {}, "random weights").to(dtype).eval()
    size = PATCHES * network.config.patch_size
    return DinoExtractor(network, Preprocess(size, "stretch", "bilinear", IMAGENET_MEAN, IMAGENET_STD)).to(device)
