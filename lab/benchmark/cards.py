"""``python -m lab.benchmark.cards``: what fits on which graphics card, as arithmetic from shapes; no card has confirmed it yet.

The transformer's working memory is found by running it on tensors that have shapes but no data and adding up what is alive.
Models that take turns are not added: a host offloads the text encoder, the reward and the extractor.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ttsvar_core.bsq.autoencoder import Decoder
from ttsvar_core.bsq.bits import cell_grid, empty_features
from ttsvar_core.config import PRESETS, ModelConfig
from ttsvar_core.footprint import cache_tokens, decoding_bytes, token_bytes
from ttsvar_core.infinity import attention
from ttsvar_core.infinity.cache import Chunk, KVCache
from ttsvar_core.infinity.model import Infinity, TextContext
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


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations make while they are alive; ``peak`` is the most there was at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else (made,):
            if isinstance(tensor, Tensor) and not function.is_view:
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.alive += size
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


@contextmanager
def without_data() -> Iterator[LiveBytes]:
    """Run on shapes alone; attention as a fused kernel holds it: its output, no matrix of all pairs."""

    def fused(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
        return query.new_empty((*query.shape[:-1], value.shape[-1]))

    live = LiveBytes()
    with (
        torch.device("meta"), torch.inference_mode(), live,
        patch.object(attention.F, "scaled_dot_product_attention", fused),
    ):
        yield live


def working_bytes(config: ModelConfig, pixels: str, running: Sequence[int], dtype: torch.dtype) -> int:
    """The most that one pass of the transformer needs beside its weights and the cache, over all scales.

    Layers run one after another in the same memory, so two of them tell.
    """
    schedule, size = official(1.0, pixels), replace(config.transformer, depth=2, block_chunks=1)
    with torch.device("meta"):
        model = Infinity(size).in_precision(dtype).requires_grad_(False)
        heads = (size.num_heads, size.head_dim)
        sides = tuple(torch.empty(2, heads[0], TEXT_TOKENS, heads[1], dtype=dtype) for _ in range(size.depth))
        pooled, modulation = torch.empty(2, size.embed_dim), torch.empty(2, 1, 1, 6, size.embed_dim)
    text, most = TextContext(pooled, modulation, sides, sides, None), 0
    for scale, samples in enumerate(running):
        chunks = tuple(_chunk(size.depth, (2, samples, heads[0], tokens, heads[1]), dtype) for tokens in schedule.tokens[:scale])
        features = empty_features(samples, size.codebook_dim, schedule, size.apply_spatial_patchify).to("meta")
        with without_data() as live:
            logits, chunk = model.forward_scale(features, scale, schedule, text, KVCache(chunks), config.sampling.at(scale))
        made = sum(t.numel() * t.element_size() for t in (*chunk.keys, *chunk.values))
        most = max(most, live.peak - made)
        del logits, chunk
    return most


def _chunk(depth: int, shape: tuple[int, ...], dtype: torch.dtype) -> Chunk:
    def layers() -> tuple[Tensor, ...]:
        return tuple(torch.empty(shape, dtype=dtype, device="meta") for _ in range(depth))

    return Chunk(layers(), layers())


def whole_decoding_bytes(config: ModelConfig, pixels: str) -> int:
    """What decoding one picture needs, the decoder's weights included (float32)."""
    grid = cell_grid(official(1.0, pixels).final, config.transformer.apply_spatial_patchify)
    with torch.device("meta"):
        return decoding_bytes(config.tokenizer, grid) + _bytes(Decoder(config.tokenizer))


def _bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


@lru_cache(maxsize=1)
def need(name: str, pixels: str, n: int) -> Need:
    """What TTS-VAR with this N needs of a card, computing in bfloat16 with all weights in it."""
    config, schedule = PRESETS[name], official(1.0, pixels)
    plan = tts_var(n, len(schedule))
    running = [plan.running(scale) for scale in range(len(schedule))]
    most = max(samples * cache_tokens(schedule, scale) for scale, samples in enumerate(running))
    working = working_bytes(config, pixels, running, torch.bfloat16)
    return Need(in_bfloat16(config), most * token_bytes(config.transformer, 2, 2), working, whole_decoding_bytes(config, pixels))


def in_bfloat16(config: ModelConfig) -> float:
    """Bytes of the transformer's weights, its blocks in bfloat16."""
    with torch.device("meta"):
        return float(_bytes(Infinity(config.transformer).in_precision(torch.bfloat16)))


def blocks_in_float8(config: ModelConfig) -> float:
    """The same with the linear layers of the blocks in one byte per number."""
    size = config.transformer
    linear = size.depth * (8 * size.embed_dim**2 + 2 * size.embed_dim * size.mlp_dim)
    return in_bfloat16(config) - linear


WEIGHTS = {"bfloat16": in_bfloat16, "float8 blocks": blocks_in_float8}


def rows(names: Sequence[str] = ("2b", "8b"), budgets: Sequence[str] = ("0.25M", "1M"), counts: Sequence[int] = (1, 2, 4)):
    """One (model, pixels, N, weights, Need) per line of the table."""
    for name in names:
        for pixels in budgets:
            for n in counts:
                for weights, count in WEIGHTS.items():
                    yield name, pixels, n, weights, need(name, pixels, n)._replace(weights=count(PRESETS[name]))


def table() -> str:
    """The table in Markdown."""
    lines = [
        "| model | pixels | N | weights | weights GB | keys and values GB | working GB | peak GB | fits on |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, pixels, n, weights, found in rows():
        fits = next((f"{card} GB" for card in CARDS if found.peak + RESERVED <= card * GIGA), f"more than {CARDS[-1]} GB")
        parts = " | ".join(f"{part / GIGA:.1f}" for part in (found.weights, found.cache, found.working, found.peak))
        lines.append(f"| {name} | {pixels} | {n} | {weights} | {parts} | {fits} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
