"""``python -m lab.benchmark.cards``: what fits on which graphics card, as arithmetic from shapes; no card has confirmed it yet.

Models that take turns are not added: a host offloads the text encoder, the reward and the extractor.
"""

from itertools import product
from typing import NamedTuple

import torch
from torch import nn

from ttsvar_core.bsq.autoencoder import Decoder
from ttsvar_core.config import PRESETS, ModelConfig
from ttsvar_core.costs import Search
from ttsvar_core.footprint import decoding_bytes
from ttsvar_core.infinity.model import Infinity
from ttsvar_core.scales import official
from ttsvar_core.search.plan import tts_var

CARDS = (8, 12, 16, 24)  # GB
RESERVED = 1.0e9  # bytes left to the driver, the context and the desktop; an assumption
TEXT_TOKENS = 64
GIGA = 1e9


class Need(NamedTuple):
    """Bytes on the card at the fullest moment of a search, by part."""

    weights: float
    cache: float
    working: float
    decoding: float

    @property
    def peak(self) -> float:
        """Sampling and decoding take turns; the transformer's weights and the cache may stay or leave while decoding."""
        return max(self.weights + self.cache + self.working, self.decoding)


def need(name: str, pixels: str, n: int, weights: str = "bfloat16") -> Need:
    """What TTS-VAR with this N needs of a card, computing in bfloat16 with all weights in it; ``weights`` is one of `WEIGHTS`."""
    config, schedule = PRESETS[name], official(1.0, pixels)
    search = Search(config, tts_var(n, len(schedule)), schedule, (2,) * len(schedule), TEXT_TOKENS)
    cache, working = (max(getattr(scale, f"{part}_bytes") for scale in search.scales) for part in ("cache", "activation"))
    with torch.device("meta"):
        decoder = _bytes(Decoder(config.tokenizer))
    return Need(WEIGHTS[weights](config), cache, working, decoding_bytes(config.tokenizer, search.scales[-1].cells) + decoder)


def in_bfloat16(config: ModelConfig) -> int:
    """Bytes of the transformer's weights, its blocks in bfloat16."""
    with torch.device("meta"):
        return _bytes(Infinity(config.transformer).in_precision(torch.bfloat16))


def blocks_in_float8(config: ModelConfig) -> int:
    """The same with the linear layers of the blocks in one byte per number."""
    size = config.transformer
    return in_bfloat16(config) - size.depth * (8 * size.embed_dim**2 + 2 * size.embed_dim * size.mlp_dim)


WEIGHTS = {"bfloat16": in_bfloat16, "float8 blocks": blocks_in_float8}


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def table() -> str:
    lines = [
        "| model | pixels | N | weights | weights GB | keys and values GB | working GB | peak GB | fits on |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, pixels, n, weights in product(("2b", "8b"), ("0.25M", "1M"), (1, 2, 4), WEIGHTS):
        found = need(name, pixels, n, weights)
        fits = next((f"{card} GB" for card in CARDS if found.peak + RESERVED <= card * GIGA), f"more than {CARDS[-1]} GB")
        parts = " | ".join(f"{part / GIGA:.1f}" for part in (found.weights, found.cache, found.working, found.peak))
        lines.append(f"| {name} | {pixels} | {n} | {weights} | {parts} | {fits} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
