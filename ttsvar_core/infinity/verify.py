"""Compares an Infinity model with reference numbers: part of ``python -m ttsvar_core verify``.

The stored bits are fed back scale by scale, so that every scale is compared on the same input; the encoder likewise.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bsq.bits import average, cell_grid, codes_to_bits, empty_features, fuse, map_to_tokens
from ..config import ModelConfig
from ..image_model import ImageModel
from ..verified import VerifyResult, largest_difference

LOGIT_BOUND = 1e-4  # largest absolute difference in float32 that counts as equal
GREY_BOUND = 1  # grey levels
ROUNDING = 1e-5  # a feature this near to 0 may round to either bit
SUPPORTED_ROPE = 2  # the position scheme of all published models


def verify_model(directory: str | Path, data: Mapping[str, Any], name: str) -> VerifyResult:
    """One model of kind "infinity": ``name.transformer.safetensors`` and ``name.vae.safetensors`` against
    ``name.golden.safetensors``, with the sizes and settings of ``data`` (the content of ``name.json``).

    Measures the largest absolute logit difference over all scales, the share of equal encoded bits and the largest image
    difference in grey levels. Raises UnusableFile, FileNotFoundError, KeyError or ValueError for data that cannot be used.
    """
    from safetensors.torch import load_file

    from ..weights import load_model

    directory = Path(directory)
    golden_path = directory / f"{name}.golden.safetensors"
    if not golden_path.is_file():
        raise FileNotFoundError(f"{golden_path.name} is missing")
    if data.get("rope2d_normalized_by_hw", SUPPORTED_ROPE) != SUPPORTED_ROPE:
        raise ValueError(f"rope2d_normalized_by_hw is {data['rope2d_normalized_by_hw']}; only {SUPPORTED_ROPE} is supported")
    model = load_model(
        directory / f"{name}.transformer.safetensors", directory / f"{name}.vae.safetensors", config=config_of(data)
    )
    golden = load_file(golden_path)
    with torch.inference_mode():
        logits, features = _compare_logits(model, golden)
        grey = largest_difference(_to_bytes(model.tokenizer.decode(features)).flip(3), golden["image_uint8_bgr_BHWC"])
        measures = {"logits": logits}
        bits_ok = True
        if "encode.image_BCHW" in golden:
            measures["bits"], bits_ok, rebuilt = _compare_encoder(model, golden)
            grey = max(grey, rebuilt)
        measures["image"] = grey
    return VerifyResult(name, measures, logits <= LOGIT_BOUND and bits_ok and grey <= GREY_BOUND)


def config_of(data: Mapping[str, Any]) -> ModelConfig:
    """The configuration. Raises ValueError for one without a schedule."""
    config = ModelConfig.from_json(dict(data))
    if config.own_schedule is None:
        raise ValueError("no schedule: expected scale_schedule, or pixel_budget and h_div_w")
    return config


def _compare_logits(model: ImageModel, golden: Mapping[str, Tensor]) -> tuple[float, Tensor]:
    """Largest logit difference over all scales under teacher forcing, and the final features (P, C, h, w)."""
    from .cache import KVCache

    schedule, sampling = model.config.own_schedule, model.config.sampling
    _check_scales(golden, len(schedule))
    text = model.transformer.project_text(guidance_texts(model, golden))
    features = empty_features(len(golden["scale00.bits"]), model.config.tokenizer.codebook_dim, schedule, model.patchify)
    cache, largest = KVCache(), 0.0
    for scale in range(len(schedule)):
        bits, expected = golden[f"scale{scale:02d}.bits"], golden[f"scale{scale:02d}.logits"]
        logits, chunk = model.transformer.forward_scale(features, scale, schedule, text, cache, sampling.at(scale))
        largest = max(largest, largest_difference(logits, expected))
        features = fuse(features, bits, scale, schedule, model.patchify)
        cache = cache.append(chunk)
    return largest, features


def _check_scales(golden: Mapping[str, Tensor], scales: int) -> None:
    stored = sum(name.startswith("scale") and name.endswith(".logits") for name in golden)
    if stored != scales:
        raise ValueError(f"the golden file has logits of {stored} scales, the schedule {scales}")


def guidance_texts(model: ImageModel, golden: Mapping[str, Tensor]) -> list[Tensor]:
    """Text features per guidance branch: the prompt, and unless nothing is guided the negative or unconditional text."""
    text = golden["text_features"]
    if not model.config.sampling.guides():
        return [text]
    negative = next((t for name, t in sorted(golden.items()) if name.startswith("negative") and t.is_floating_point()), None)
    if negative is None:
        return [text, model.transformer.unconditional(len(text))]
    return [text, negative.reshape(-1, negative.shape[-1])]


def _compare_encoder(model: ImageModel, golden: Mapping[str, Tensor]) -> tuple[float, bool, float]:
    """Share of equal bits, whether every other one lies within rounding, and the reconstruction's grey-level difference.

    Each scale encodes what the stored bits of the scales before left over, so one flipped bit does not flip later ones.
    """
    schedule = model.config.own_schedule
    features = model.tokenizer.encode(golden["encode.image_BCHW"])
    accumulated = torch.zeros_like(features)
    equal = total = 0
    within_rounding = largest_difference(features, golden["encode.features"]) <= LOGIT_BOUND
    for scale, grid in enumerate(schedule.grids):
        cells = cell_grid(grid, model.patchify)
        stored = golden[f"encode.scale{scale:02d}.bits"].reshape(len(features), *cells, -1).permute(0, 3, 1, 2)
        residual = average(features - accumulated, cells)
        differs = codes_to_bits(residual) != stored
        equal, total = equal + int((~differs).sum()), total + differs.numel()
        within_rounding &= bool((residual[differs].abs() <= ROUNDING).all())
        accumulated = fuse(accumulated, map_to_tokens(stored, model.patchify), scale, schedule, model.patchify)
    rebuilt = model.tokenizer.decode(accumulated)
    grey = largest_difference(_to_bytes(rebuilt), _to_bytes(golden["encode.reconstruction"].clamp(-1, 1)))
    return equal / total, within_rounding, grey


def _to_bytes(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] -> (B, H, W, 3) uint8, truncated as the reference does."""
    return ((images + 1) / 2).permute(0, 2, 3, 1).mul(255).to(torch.uint8)
