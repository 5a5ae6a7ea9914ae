"""Bytes that a search holds, from shapes alone: keys and values, activations, decoding, looking. Importing this needs no torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .config import TokenizerConfig, TransformerConfig
from .scales import Grid, ScaleSchedule

if TYPE_CHECKING:
    from .image_model import ImageModel
    from .state import SearchState

FLOAT32 = 4  # bytes; the residual stream and the logits are computed in it, and pictures on a processor
DECODED_TOGETHER = 2**20  # pixels; a graphics card is full of work with these, and a whole picture of them has to fit anyway
LOOKING_BYTES = 64 * 2**20  # generous for one picture's activations in a vision transformer


def token_bytes(sizes: TransformerConfig, branches: int, itemsize: int) -> int:
    """Bytes of one token's keys and values: two per layer, of the model's width."""
    return 2 * sizes.depth * branches * sizes.embed_dim * itemsize


def cache_tokens(schedule: ScaleSchedule, through: int) -> int:
    """Tokens whose keys and values are stored after scale ``through``; the last scale stores none."""
    return sum(schedule.tokens[: min(through + 1, len(schedule) - 1)])


def cache_bytes(model: ImageModel, schedule: ScaleSchedule, through: int, branches: int = 2, float8: bool = False) -> int:
    """Bytes of keys and values that one sample holds after scale ``through`` with ``branches`` guidance branches."""
    itemsize = 1 if float8 else model.transformer.dtype.itemsize
    return cache_tokens(schedule, through) * token_bytes(model.config.transformer, branches, itemsize)


def activation_bytes(sizes: TransformerConfig, schedule: ScaleSchedule, scale: int, branches: int, itemsize: int) -> int:
    """Bytes that one sample needs while a scale is computed, beside weights, keys and values: the residual stream and its
    neighbours, the feed-forward layer, the logits."""
    per_token = sizes.embed_dim * 4 * FLOAT32 + sizes.mlp_dim * itemsize * 2 + sizes.bits_per_token * 2 * FLOAT32
    return schedule.tokens[scale] * branches * per_token


def sampling_bytes(model: ImageModel, schedule: ScaleSchedule, scale: int, samples: int, branches: int) -> int:
    """Bytes that sampling a scale needs beside the weights: keys and values, activations, logits."""
    sizes, itemsize = model.config.transformer, model.transformer.dtype.itemsize
    each = cache_bytes(model, schedule, scale, branches) + activation_bytes(sizes, schedule, scale, branches, itemsize)
    return samples * each


def decoded_together(sizes: TokenizerConfig, cells: Grid) -> int:
    """How many pictures of a grid of ``cells`` a graphics card decodes at once.

    As many as one large picture has room for, rather than what happens to be free: so a picture does not depend on that.
    """
    return max(1, DECODED_TOGETHER // (math.prod(cells) * sizes.patch_size**2))


def decoding_bytes(sizes: TokenizerConfig, cells: Grid, itemsize: int = FLOAT32) -> int:
    """Bytes alive at once, beside the weights, while one picture of a grid of ``cells`` is decoded.

    What is held at a level's first convolution (a block's input, that normalised, a copy of it in the layout convolutions take,
    and the output) and at its upsampling (the level's input and last output, then the enlarged one, its copy and the output).
    """
    area, width, most = math.prod(cells), sizes.base_ch * sizes.ch_mult[-1], 0
    for level in range(len(sizes.ch_mult) - 1, -1, -1):
        before, width = width, sizes.base_ch * sizes.ch_mult[level]
        most = max(most, area * (3 * before + width))
        if sizes.upsamples(level):
            most = max(most, area * (before + width) + 4 * area * 3 * width)
            area *= 4
    return most * itemsize


def showing_bytes(state: SearchState, tile: int = 0, whole: bool = False) -> int:
    """Bytes that decoding a state needs on a card, at the size sampled so far or whole: the feature maps in the decoder of the
    pictures decoded at once, or those of a tile of ``tile`` pixels (whose pictures are put together elsewhere), and all pictures
    twice, single and joined."""
    sizes, itemsize = state.model.config.tokenizer, state.model.transformer.dtype.itemsize
    last = len(state.schedule) - 1 if whole else state.last_scale
    cells = state.model.config.sketch_cells(state.schedule, last)
    if tile:
        side = max(1, tile // sizes.patch_size)
        return decoding_bytes(sizes, (min(cells[0], side), min(cells[1], side)), itemsize)
    pictures = 2 * state.samples * math.prod(cells) * sizes.patch_size**2 * 3 * FLOAT32
    return min(state.samples, decoded_together(sizes, cells)) * decoding_bytes(sizes, cells, itemsize) + pictures


def looking_bytes(pictures: int) -> int:
    """Bytes that a reward or an extractor needs to look at pictures, a chunk at a time."""
    from .vision.network import CHUNK

    return min(pictures, CHUNK) * LOOKING_BYTES
