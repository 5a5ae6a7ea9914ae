"""Compares the reward models and DINOv2 with reference numbers: part of `python -m ttsvar_core verify`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..verified import VerifyResult, largest_difference

BOUND = 1e-4
"""The largest absolute difference in float32 that counts as equal."""
Comparison = Callable[[Mapping[str, Tensor], Mapping, Mapping[str, Tensor], str], dict[str, Tensor]]


def verify_model(directory: str | Path, config: Mapping, name: str) -> VerifyResult:
    """One model of the kinds in KINDS against what the reference implementation computed.

    directory: holds `<name>.safetensors` (weights under the original names) and `<name>.golden.safetensors` (inputs and
    outputs). config: the content of `<name>.json`; its `kind` chooses the comparison.
    Raises ValueError for another kind, FileNotFoundError and UnusableFile for files that are missing or do not fit.
    """
    from safetensors.torch import load_file

    if config.get("kind") not in KINDS:
        raise ValueError(f"{name}.json is of kind {config.get('kind')!r}; expected one of {', '.join(KINDS)}")
    weights, golden = (Path(directory) / f"{name}{ending}" for ending in (".safetensors", ".golden.safetensors"))
    for file in (weights, golden):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: a reference model is {name}.json with the two files beside it")
    reference = load_file(golden)
    with torch.no_grad():
        outputs = KINDS[config["kind"]](load_file(weights), config, reference, str(weights))
    measures = {key: largest_difference(value, reference[key]) for key, value in outputs.items()}
    return VerifyResult(name, measures, all(value <= BOUND for value in measures.values()))


def _beside(pixels: Tensor, whole: nn.Module, *towers: nn.Module) -> None:
    """The network where the pixels are, its towers in their precision: so a caller chooses both by the inputs it passes."""
    whole.to(pixels.device)
    for tower in towers:
        tower.to(pixels.dtype)


def _image_reward(tensors, config, reference, source) -> dict[str, Tensor]:
    from .image_reward import build_image_reward

    model, _ = build_image_reward(tensors, config, source)
    _beside(reference["pixel_values"], model, model.vision, model.text)
    features = model.features(reference["pixel_values"], reference["input_ids"], reference["attention_mask"])
    return {"text_feature": features, "reward": model.standardised(features)}


def _hps(tensors, config, reference, source) -> dict[str, Tensor]:
    from ..vision.clip import build_clip
    from .clip import HPS

    network = build_clip(tensors, config, source, HPS).network
    _beside(reference["pixel_values"], network, network)
    image = network(reference["pixel_values"])
    text = network.embed_text(reference["input_ids"])
    return {"image_features": image, "text_features": text, "score": (image * text).sum(dim=-1)}


def _aesthetic(tensors, config, reference, source) -> dict[str, Tensor]:
    from .aesthetic import build_aesthetic

    model, _ = build_aesthetic(tensors, config, source)
    _beside(reference["pixel_values"], model, model.vision)
    embeddings = model.embed(reference["pixel_values"])
    return {"image_embeds": embeddings, "score": model.predict(embeddings)}


def _dinov2(tensors, config, reference, source) -> dict[str, Tensor]:
    from ..extractors.dinov2 import build_dinov2, normed_patches

    network = build_dinov2(tensors, config, source)
    _beside(reference["pixel_values"], network, network)
    return {"patch_tokens": normed_patches(network, reference["pixel_values"])}


KINDS: dict[str, Comparison] = {
    "image_reward": _image_reward,
    "hps": _hps,
    "aesthetic": _aesthetic,
    "dinov2": _dinov2,
}
