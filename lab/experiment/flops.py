"""Floating-point operations of a plan, counted from shapes: a multiply and an add are two.

Counted: the transformer's matrix products and attention, and the decodes. Not counted: norms, activations and drawing
(under 1% together), the text encoder (once per prompt), rewards and extractors (they are the user's; their calls are listed).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ttsvar_core.config import ModelConfig, Sampling, TokenizerConfig
from ttsvar_core.scales import ScaleSchedule
from ttsvar_core.search.plan import Plan


class Cost(NamedTuple):
    """What a plan spends on one prompt. token_forwards: without guidance's factor. described: samples an extractor saw."""

    flops: float
    token_forwards: int
    decodes: int
    scored: int
    described: int


def plan_cost(
    config: ModelConfig, plan: Plan, schedule: ScaleSchedule, sampling: Sampling, text_tokens: int, on_images: bool
) -> Cost:
    """The cost of ``plan`` for a prompt of ``text_tokens``; ``on_images``: its extractor looks at decoded images."""
    flops, forwards, decodes, scored, described = 0.0, 0, 0, 0, 0
    for scale in range(len(schedule)):
        samples = plan.running(scale)
        branches = 1 if not sampling.guides() else 2
        flops += samples * scale_flops(config, schedule, scale, text_tokens, branches)
        forwards += samples * schedule.tokens[scale]
        seen = plan.sees(scale, len(schedule))
        scored += samples * ("scores" in seen)
        described += samples * ("vectors" in seen)
        decodes += samples * ("scores" in seen or ("vectors" in seen and on_images))
    return Cost(flops + decodes * decode_flops(config, schedule), forwards, decodes, scored, described)


def scale_flops(config: ModelConfig, schedule: ScaleSchedule, scale: int, text_tokens: int, branches: int) -> float:
    """Operations of one sample at one scale, in all guidance branches (which share the embedding of their input)."""
    sizes = config.transformer
    width, tokens = sizes.embed_dim, schedule.tokens[scale]
    seen = sum(schedule.tokens[: scale + 1])
    matrices = 4 * width**2 + 2 * width**2 + 2 * width * sizes.mlp_dim  # self-attention, cross-attention, feed-forward
    attention = 2 * width * (seen + text_tokens)  # scores and weighted values, over own tokens and text
    head = 2 * width * sizes.bits_per_token
    embedding = width * sizes.bits_per_token if scale else 0
    return 2.0 * tokens * (branches * (sizes.depth * (matrices + attention) + head) + embedding)


def decode_flops(config: ModelConfig, schedule: ScaleSchedule) -> float:
    """Operations of decoding one image, counted by running the tokenizer on shapes alone."""
    cells = 2 if config.transformer.apply_spatial_patchify else 1
    height, width = schedule.final
    return _decoder_flops(config.tokenizer, height * cells, width * cells)


@lru_cache(maxsize=16)
def _decoder_flops(config: TokenizerConfig, height: int, width: int) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ttsvar_core.bsq.autoencoder import Tokenizer

    with torch.device("meta"):
        tokenizer = Tokenizer(config).eval()
        features = torch.zeros(1, config.codebook_dim, height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tokenizer.decode(features)
    return float(counter.get_total_flops())
