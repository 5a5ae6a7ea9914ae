"""Infinity: a transformer that predicts the bits of one scale after another.

Read ``forward_scale`` first. It serves sampling, replay and teacher forcing alike; ``forward_sequence`` runs all scales at once
under a scale-causal mask, for training. Names follow the published files. Source: Infinity, arXiv 2412.04431.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..bsq.bits import next_scale_input
from ..config import StepSampling, TransformerConfig
from ..scales import ScaleSchedule
from .attention import TextPooling, on
from .blocks import Block, HeadNorm, RMSNorm
from .cache import Chunk, KVCache
from .rope import Rotation, rotation

if TYPE_CHECKING:
    from .text import Conditioning

LEVELS = 15  # rows of the level embedding in the published files: the longest schedule
# Computed in float32 whatever the precision of the rest, as in the published code; with these the norms of the blocks.
_FLOAT32 = ("cfg_uncond", "text_norm.", "pos_start", "lvl_embed.", "shared_ada_lin.", "head_nm.", "head.")


class TextContext(NamedTuple):
    """What the transformer needs of the prompt, projected once: G rows, the conditional one first.

    ``pooled`` (G, C) and ``modulation`` (G, 1, 1, 6, C) float32, ``keys`` and ``values`` per layer (G, H, T, D) in the precision
    of the blocks, ``mask`` (G, 1, 1, T), False on padding (None if there is none).
    """

    pooled: Tensor
    modulation: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor | None

    def branches(self, count: int) -> TextContext:
        """The first ``count`` guidance branches, as views."""
        return self._mapped(lambda t: t[:count])

    def to(self, device: torch.device) -> TextContext:
        """The same on another device."""
        return self._mapped(lambda t: t.to(device))

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> TextContext:
        mask = None if self.mask is None else function(self.mask)
        keys, values = (tuple(map(function, side)) for side in (self.keys, self.values))
        return TextContext(function(self.pooled), function(self.modulation), keys, values, mask)

    def __repr__(self) -> str:
        return f"TextContext(branches={len(self.pooled)}, tokens={self.keys[0].shape[2]})"


class SharedModulation(nn.Sequential):
    """The adaptive-norm map all blocks share: pooled prompt (G, C) -> (G, 1, 1, 6, C) float32."""

    def __init__(self, width: int, operations: Any = nn) -> None:
        super().__init__(nn.SiLU(), operations.Linear(width, 6 * width))

    def forward(self, pooled: Tensor) -> Tensor:
        return super().forward(pooled).unflatten(-1, (1, 1, 6, -1))


def precision_of(name: str, dtype: torch.dtype) -> torch.dtype:
    """The precision of a transformer's parameter where the matrix products of its blocks run in ``dtype``."""
    return torch.float32 if name.startswith(_FLOAT32) or ".ca_norm." in name else dtype


class Infinity(nn.Module):
    """The transformer. ``operations`` provides the layers (``torch.nn`` by default), so that a host can pass its own."""

    def __init__(self, config: TransformerConfig, operations: Any = nn) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.cfg_uncond = nn.Parameter(torch.randn(config.text_maxlen, config.text_channels) * 1.2 / config.text_channels**0.5)
        self.text_norm = RMSNorm(config.text_channels)
        self.text_proj_for_sos = nn.ModuleDict({"ca": TextPooling(config.text_channels, width, config.pool_heads, operations)})
        self.text_proj_for_ca = nn.Sequential(
            operations.Linear(config.text_channels, width), nn.GELU(approximate="tanh"), operations.Linear(width, width)
        )
        self.pos_start = nn.Parameter(torch.randn(1, 1, width) * (1 / width / 3) ** 0.5)
        self.lvl_embed = operations.Embedding(LEVELS, width)
        self.word_embed = operations.Linear(config.bits_per_token, width)
        self.shared_ada_lin = SharedModulation(width, operations)
        self.head_nm = HeadNorm(width, operations)
        self.head = operations.Linear(width, 2 * config.bits_per_token)
        blocks = [Block(width, config.num_heads, config.mlp_dim, operations) for _ in range(config.depth)]
        size = config.depth // config.block_chunks
        if config.block_chunks == 1:
            self.blocks = nn.ModuleList(blocks)
        else:
            self.block_chunks = nn.ModuleList(
                nn.ModuleDict({"module": nn.ModuleList(blocks[i : i + size])}) for i in range(0, len(blocks), size)
            )

    @property
    def layers(self) -> list[Block]:
        """All blocks in order, whatever their grouping in the files."""
        if self.config.block_chunks == 1:
            return list(self.blocks)
        return [block for chunk in self.block_chunks for block in chunk["module"]]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the blocks; some weights are float32 in any case, see `precision_of`."""
        return self.word_embed.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the transformer computes: where its bare parameters live."""
        return self.pos_start.device

    def in_precision(self, dtype: torch.dtype) -> Infinity:
        """Turn the weights, in place, into what `precision_of` says; returns the transformer."""
        for name, parameter in self.named_parameters():
            parameter.data = parameter.data.to(precision_of(name, dtype))
        return self

    # The prompt ------------------------------------------------------------------------------------------------------

    def unconditional(self, tokens: int) -> Tensor:
        """Text features (T, Ct) that stand for "no prompt": the learned rows, as many as the prompt has tokens."""
        return self.cfg_uncond[: max(1, min(tokens, len(self.cfg_uncond)))]

    def guidance_texts(self, conditioning: Conditioning) -> list[Tensor]:
        """The text features of both branches. An empty prompt is the unconditional text; without a negative prompt the
        second branch is the unconditional text of the prompt's length."""
        text, negative = conditioning.text, conditioning.negative
        if not len(text):
            text = self.unconditional(1)
        if negative is None or not len(negative):
            negative = self.unconditional(len(text))
        return [text, negative]

    def project_text(self, texts: Sequence[Tensor]) -> TextContext:
        """Project text features, one (T, Ct) per guidance branch (or per training row), for every layer at once.

        Raises ValueError for features of another width than the model's.
        """
        for text in texts:
            if text.ndim != 2 or text.shape[1] != self.config.text_channels or not len(text):
                raise ValueError(
                    f"Text features of shape {tuple(text.shape)}; this model takes (tokens, {self.config.text_channels}). "
                    "The text encoder does not belong to it: Infinity 2B and 8B use flan-t5-xl."
                )
        padded, mask = _pad([text.to(self.device, torch.float32) for text in texts])
        normed = self.text_norm(padded).to(self.dtype)
        pooled = self.text_proj_for_sos["ca"](normed, mask).float()
        projected = self.text_proj_for_ca(normed)
        pairs = [layer.ca.project_text(projected) for layer in self.layers]
        keys, values = tuple(k for k, _ in pairs), tuple(v for _, v in pairs)
        return TextContext(pooled, self.shared_ada_lin(pooled), keys, values, mask)

    # One scale -------------------------------------------------------------------------------------------------------

    def forward_scale(
        self, features: Tensor, scale: int, schedule: ScaleSchedule, text: TextContext, past: KVCache, step: StepSampling
    ) -> tuple[Tensor, Chunk]:
        """Logits of one scale for every sample, and the keys and values later scales need.

        ``features`` (P, C, h, w) are the codes accumulated before this scale (zeros before the first), ``past`` holds the
        keys and values of all earlier scales. ``text`` has one branch without guidance, two with. Returns logits
        (P, L, Z, 2) float32 after guidance and division by tau, index 1 for a set bit, and the scale's chunk (empty for
        the last scale, whose keys and values nothing reads).
        """
        x = self._embed(features.to(self.device), scale, schedule, text)
        turn = rotation(schedule.grids[scale], schedule.rope_grid, self.config.head_dim, self.device)
        keys, values = [], []
        read_later = scale < len(schedule) - 1
        for index, layer in enumerate(self.layers):
            x, k, v = layer(x, text.modulation, _layer_text(text, index), turn, past.layer(index))
            if read_later:
                keys.append(k)
                values.append(v)
            if step.guidance != 1 and index - self.config.depth in step.guidance_layers:
                x = _guide(x, step.guidance).expand_as(x)
        return self._logits(x, text, step), Chunk(tuple(keys), tuple(values))

    def _embed(self, features: Tensor, scale: int, schedule: ScaleSchedule, text: TextContext) -> Tensor:
        samples, branches = len(features), len(text.pooled)
        if scale == 0:
            x = self._start(text).expand(branches, samples, 1, -1)
        else:
            tokens = next_scale_input(features, schedule.grids[scale], self.config.apply_spatial_patchify)
            x = self.word_embed(tokens.to(self.dtype)).float()[None].expand(branches, -1, -1, -1)
        return x + self._level(scale, x)

    def _start(self, text: TextContext) -> Tensor:
        """The first token, made of the pooled prompt: (G, 1, 1, C) float32."""
        return text.pooled[:, None, None] + on(self.pos_start, text.pooled)[None]

    def _level(self, scale: int, x: Tensor) -> Tensor:
        return self.lvl_embed(torch.full((), scale, device=x.device)).float()

    def _logits(self, x: Tensor, text: TextContext, step: StepSampling) -> Tensor:
        guided = 0 in step.guidance_layers and step.guidance != 1 and len(x) > 1
        x = x if guided else x[:1]
        logits = self.head(self.head_nm(x, text.pooled[: len(x)])) / step.tau
        return _guide(logits, step.guidance).squeeze(0).unflatten(-1, (-1, 2))

    # All scales at once ----------------------------------------------------------------------------------------------

    def forward_sequence(self, inputs: Sequence[Tensor], schedule: ScaleSchedule, text: TextContext) -> Tensor:
        """Logits (B, L, Z, 2) of all scales of ``schedule`` under a scale-causal mask; rows of ``text`` are training rows.

        ``inputs`` are the tokens (B, L, Z) that scales 1, 2, ... see of the features accumulated before them.
        """
        x = [self._start(text).squeeze(1)]
        x += [self.word_embed(tokens.to(self.dtype)).float() for tokens in inputs]
        x = torch.cat([part + self._level(scale, part) for scale, part in enumerate(x)], dim=1)[:, None]
        turns = [rotation(grid, schedule.rope_grid, self.config.head_dim, self.device) for grid in schedule.grids]
        turn = Rotation(*(torch.cat(side) for side in zip(*turns, strict=True)))
        mask = scale_causal_mask(schedule).to(self.device)
        for index, layer in enumerate(self.layers):
            x, _, _ = layer(x, text.modulation, _layer_text(text, index), turn, ((), ()), mask)
        return self.head(self.head_nm(x, text.pooled)).squeeze(1).unflatten(-1, (-1, 2))

    def __repr__(self) -> str:
        return f"Infinity(depth={self.config.depth}, width={self.config.embed_dim}, heads={self.config.num_heads})"


def scale_causal_mask(schedule: ScaleSchedule) -> Tensor:
    """(L, L), True where a token may attend: to its own scale and all earlier ones."""
    scale_of_token = torch.repeat_interleave(torch.arange(len(schedule)), torch.tensor(schedule.tokens))
    return scale_of_token[:, None] >= scale_of_token[None]


def _guide(x: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance over the first axis (conditional, unconditional): u + g (c - u); one branch passes through."""
    return x if len(x) == 1 else guidance * x[:1] + (1 - guidance) * x[1:]


def _layer_text(text: TextContext, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
    return text.keys[index], text.values[index], text.mask


def _pad(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Text features of several lengths -> (G, T, Ct) and a mask (G, 1, 1, T), None if all are equally long."""
    lengths = torch.tensor([len(text) for text in texts], device=texts[0].device)
    padded = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    if len(set(lengths.tolist())) == 1:
        return padded, None
    return padded, (torch.arange(padded.shape[1], device=lengths.device) < lengths[:, None])[:, None, None]
