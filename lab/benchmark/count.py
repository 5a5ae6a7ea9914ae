"""Floating-point operations and bytes, counted from shapes alone (a multiply-add is two operations)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from ttsvar_core.config import TokenizerConfig, TransformerConfig
from ttsvar_core.scales import ScaleSchedule

if TYPE_CHECKING:
    from ttsvar_core.state import LineageStep


def transformer_flops(
    config: TransformerConfig, schedule: ScaleSchedule, running: Sequence[int], text_tokens: int, branches: int
) -> list[int]:
    """Operations of ``Infinity.forward_scale`` per scale, when ``running[s]`` samples run scale s with guidance branches.

    Counted are all matrix products: per token and layer 12 C^2 + 4 C F in the linear layers (queries, keys, values and
    output of self-attention, query and output of cross-attention, two feed-forward layers), 4 C per attended token.
    """
    width, hidden, bits = config.embed_dim, config.mlp_dim, config.bits_per_token
    flops = []
    for scale, (tokens, seen) in enumerate(zip(schedule.tokens, accumulate(schedule.tokens), strict=True)):
        rows = branches * running[scale] * tokens
        layer = rows * (12 * width**2 + 4 * width * hidden + 4 * width * (seen + text_tokens))
        embed = 2 * bits * width * running[scale] * tokens if scale else 0
        head = rows * 2 * width * 2 * bits + branches * 4 * width**2
        flops.append(config.depth * layer + embed + head)
    return flops


def text_flops(config: TransformerConfig, text_tokens: int) -> int:
    """Operations of ``Infinity.project_text`` for a prompt and its negative, for all layers."""
    width, channels = config.embed_dim, config.text_channels
    per_token = 2 * channels * width + 2 * width**2 + config.depth * 4 * width**2 + 4 * channels * width + 4 * width
    return 2 * (text_tokens * per_token + 2 * width**2 + 12 * width**2)


def decoder_flops(config: TokenizerConfig, grid: tuple[int, int]) -> int:
    """Operations of decoding one image whose features lie on ``grid``; counted on tensors that have shapes but no data."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ttsvar_core.bsq.autoencoder import Decoder

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Decoder(config)(torch.empty(1, config.codebook_dim, *grid))
    return counter.get_total_flops()


def cache_bytes(
    config: TransformerConfig,
    schedule: ScaleSchedule,
    running: Sequence[int],
    lineage: Sequence[LineageStep],
    branches: int,
    bytes_per_value: int,
) -> list[int]:
    """Bytes of keys and values that a search needs after each scale but the last, told from its lineage alone.

    Of every scale so far one copy for each sample that a living one descends from: tokens x survivors x layers x 2 (keys
    and values) x guidance branches x width x bytes. The last scale's keys and values are never read.
    """
    per_token = config.depth * 2 * branches * config.embed_dim * bytes_per_value
    steps = {step.scale: step.ancestors for step in lineage}
    totals = []
    for last in range(len(schedule) - 1):
        living = set(range(running[last]))
        tokens = 0
        for scale in range(last, -1, -1):
            tokens += schedule.tokens[scale] * len(living)
            if scale and scale - 1 in steps:
                living = {steps[scale - 1][row] for row in living}
        totals.append(tokens * per_token)
    return totals


def traffic_bytes(
    config: TransformerConfig, schedule: ScaleSchedule, running: Sequence[int], branches: int, bytes_per_value: int
) -> list[int]:
    """Bytes that each scale must at least read: the blocks' weights once, and all earlier keys and values once."""
    width = config.embed_dim
    weights = config.depth * (12 * width**2 + 4 * width * config.mlp_dim) // 2 * bytes_per_value
    before = [0, *accumulate(schedule.tokens)][: len(schedule)]
    per_token = config.depth * 2 * branches * width * bytes_per_value
    return [weights + seen * samples * per_token for seen, samples in zip(before, running, strict=True)]
