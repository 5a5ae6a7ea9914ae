"""Sizes of a model, read off the shapes of its tensors, so that a published file needs no configuration beside it.

Sizes are exchanged as the flat dictionary that ``ModelConfig.from_json`` reads; what is stated beside or inside a file wins over
what its shapes say.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import PRESETS, ModelConfig, TransformerConfig
from ..reading import UnusableFile, one_line, read_bytes, refusing
from .files import RawCheckpoint
from .stated import MAX_BLOCKS, count_blocks

METADATA_KEY = "ttsvar"  # holds the flat configuration as JSON in files written by our converter
MAX_TEXT_TOKENS = 512  # rows of cfg_uncond in the published models
_MOST_LEVELS = 16  # of a tokenizer, and of its blocks per level; the published ones have 5 and 4
_MOST_CELLS = 4096  # along a side of a scale; the published grids have at most 122
# Sizes that names and shapes tell for certain: what is stated elsewhere must not make another model of them.
_CERTAIN = (
    "embed_dim", "depth", "num_heads", "block_chunks", "text_channels", "codebook_dim", "vae_base_ch", "vae_ch_mult",
    "vae_num_res_blocks", "patch_size",
)


def transformer_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of a transformer from its tensors; ``bits_per_token`` stands in for the tokenizer's bits and patchify.

    Raises UnusableFile if a tensor that carries a size is missing.
    """
    width, bits = _shape(tensors, "word_embed.weight", 2)
    chunks = count_blocks(tensors, r"block_chunks\.(\d+)\.")
    first = "block_chunks.0.module.0." if chunks else "blocks.0."
    per_chunk = count_blocks(tensors, r"block_chunks\.0\.module\.(\d+)\." if chunks else r"blocks\.(\d+)\.")
    if per_chunk * chunks > MAX_BLOCKS:
        raise UnusableFile(f"The transformer has {chunks} times {per_chunk} layers; at most {MAX_BLOCKS} are read.")
    return {
        "embed_dim": width,
        "depth": per_chunk * max(1, chunks),
        "num_heads": _shape(tensors, first + "sa.scale_mul_1H11", 4)[1],
        "mlp_ratio": _mlp_ratio(_shape(tensors, first + "ffn.fc1.weight", 2)[0], width),
        "block_chunks": max(1, chunks),
        "text_channels": _shape(tensors, "text_norm.weight", 1)[0],
        "text_maxlen": min(MAX_TEXT_TOKENS, _shape(tensors, "cfg_uncond", 2)[0]),
        "bits_per_token": bits,
    }


def tokenizer_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of a tokenizer from its tensors. Raises UnusableFile if a tensor that carries a size is missing."""
    base = _shape(tensors, "encoder.conv_in.conv.weight", 4)[0]
    levels = count_blocks(tensors, r"encoder\.down\.(\d+)\.", _MOST_LEVELS)
    widths = [_shape(tensors, f"encoder.down.{i}.block.0.conv1.conv.weight", 4)[0] for i in range(levels)]
    halvings = sum(f"encoder.down.{i}.downsample.conv.conv.weight" in tensors for i in range(levels))
    if not widths or any(width % base for width in widths):
        raise UnusableFile(f"The tokenizer's widths {widths} are no multiples of its first, {base}. Download it again.")
    return {
        "codebook_dim": _shape(tensors, "decoder.conv_in.conv.weight", 4)[1],
        "vae_base_ch": base,
        "vae_ch_mult": [width // base for width in widths],
        "vae_num_res_blocks": count_blocks(tensors, r"encoder\.down\.0\.block\.(\d+)\.", _MOST_LEVELS),
        "patch_size": 2**halvings,
    }


def stored_sizes(raw: RawCheckpoint) -> dict[str, Any]:
    """What the converter stored in a file's metadata about its model; empty for files from elsewhere."""
    if METADATA_KEY not in raw.metadata:
        return {}
    with refusing(f"configuration inside {raw.path.name}", "Convert it again."):
        return dict(json.loads(raw.metadata[METADATA_KEY]))


def json_beside(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """The configuration file beside a model file (``name.json`` for ``name.safetensors`` or ``name.transformer.safetensors``).

    None if there is none; JSON files of another purpose are ignored. Raises UnusableFile if it cannot be read.
    """
    if path.is_dir():
        return None
    stem = path.name.removesuffix(path.suffix)
    names = [stem + ".json", re.sub(r"\.(transformer|vae)$", "", stem) + ".json"]
    for candidate in (path.parent / name for name in names):
        if not candidate.exists():
            continue
        with refusing(f"configuration {candidate.name}"):
            data = json.loads(read_bytes(candidate))
        if isinstance(data, dict) and {"embed_dim", "codebook_dim"} <= set(data):
            return candidate, data
    return None


def assemble(sizes: Mapping[str, Any], stated: Mapping[str, Any], fallback_name: str) -> ModelConfig:
    """A configuration from sizes read off the tensors and what is stated elsewhere (which wins).

    Published models take their family's name and sampling settings. Raises UnusableFile where the two parts disagree.
    """
    contradicted = [key for key in _CERTAIN if key in stated and key in sizes and stated[key] != sizes[key]]
    if contradicted:
        said = ", ".join(f"{key} {stated[key]!r:.40} (the tensors say {sizes[key]!r})" for key in contradicted[:3])
        raise UnusableFile(f"The configuration of {fallback_name} does not belong to its file: {said}. Remove or correct it.")
    data = {"apply_spatial_patchify": sizes["bits_per_token"] == 4 * sizes["codebook_dim"], **sizes, **stated}
    try:
        config = ModelConfig.from_json({"name": fallback_name, **data})
        grids = config.own_schedule.grids if config.own_schedule else ()
        if not isinstance(config.name, str) or any(not 0 < side <= _MOST_CELLS for grid in grids for side in grid):
            raise ValueError(f"name {config.name!r:.40}, grids {grids!r:.60}")
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        raise UnusableFile(
            f"The configuration of {fallback_name} cannot be used: {one_line(error)} Correct or remove the file that states it."
        ) from error
    preset = _preset(config)
    if preset is None:
        return config
    return replace(config, name=data.get("name", preset.name), sampling=preset.sampling.stated_in(stated))


def _preset(config: ModelConfig) -> ModelConfig | None:
    """The published model of these sizes, or None."""
    ours = config.transformer
    for preset in PRESETS.values():
        if replace(preset.transformer, text_maxlen=ours.text_maxlen, codebook_dim=ours.codebook_dim) == ours:
            return preset
    return None


def _mlp_ratio(hidden: int, width: int) -> float:
    """The ratio a hidden width was rounded from: the published models' 4 where that gives it."""
    usual = TransformerConfig.mlp_ratio
    return usual if hidden == round(width * usual / 256) * 256 else hidden / width


def _shape(tensors: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in tensors:
        raise UnusableFile(f"The file lacks the tensor {name}; it is incomplete or of another model. Download it again.")
    shape = tuple(tensors[name].shape)
    if len(shape) != axes:
        raise UnusableFile(f"The tensor {name} has the shape {shape}; expected {axes} axes. Download the file again.")
    return shape

