"""Bytes that a search holds, from shapes alone: keys and values, activations, decoding, looking. Importing this needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from .config import TokenizerConfig, TransformerConfig
from .scales import Grid, ScaleSchedule

if TYPE_CHECKING:
    from .image_model import ImageModel
    from .state import LineageStep, SearchState

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


def shared_cache_tokens(schedule: ScaleSchedule, running: Sequence[int], lineage: Sequence[LineageStep]) -> list[int]:
    """Tokens whose keys and values a search holds after each scale but the last, told from its lineage alone.

    Of every scale so far one copy for each sample that a living one descends from; the candidates of a scale share one. running:
    samples that run each scale.
    """
    read, totals = [], []  # read: of every scale so far the row whose keys and values each living sample reads
    for scale in range(len(schedule) - 1):
        steps = [step.ancestors for step in lineage if step.scale == scale - 1]
        branched = [steps.pop()] if steps and len(steps[-1]) != running[scale] else []
        read = _descended(read, steps)
        read = _descended([*read, tuple(range(running[scale]))], branched)
        totals.append(sum(count * len(set(rows)) for count, rows in zip(schedule.tokens, read, strict=False)))
    return totals


def _descended(read: list[tuple[int, ...]], steps: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    for ancestors in steps:
        read = [tuple(rows[ancestor] for ancestor in ancestors) for rows in read]
    return read


def traffic_bytes(
    sizes: TransformerConfig, schedule: ScaleSchedule, running: Sequence[int], branches: int, itemsize: int
) -> list[int]:
    """Bytes that each scale must at least read: the blocks' weights once, and all earlier keys and values once."""
    weights = sizes.depth * (6 * sizes.embed_dim**2 + 2 * sizes.embed_dim * sizes.mlp_dim) * itemsize
    before = [0, *accumulate(schedule.tokens)]
    each = token_bytes(sizes, branches, itemsize)
    return [weights + before[scale] * samples * each for scale, samples in enumerate(running)]


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
