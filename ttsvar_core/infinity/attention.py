"""Self-attention over the scales so far, cross-attention to the prompt, and the attentive pooling of the prompt.

Activations are (G, P, L, C): guidance branches (conditional first), samples, tokens, width. A prompt's keys and values exist
once per branch and are shared by all samples. Parameter names follow the published files.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .rope import Rotation, rotate

MAX_QUERY_SCALE = 100.0  # upper bound of the learned query length; published models


def on(parameter: Tensor, like: Tensor) -> Tensor:
    """A bare parameter where and how ``like`` lives (a host may keep parameters elsewhere or in another precision)."""
    return parameter.to(device=like.device, dtype=like.dtype)


class SelfAttention(nn.Module):
    """Cosine attention with rotary positions: queries of a learned length per head against unit keys."""

    def __init__(self, embed_dim: int, num_heads: int, operations: Any = nn) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mat_qkv = operations.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(embed_dim))
        self.v_bias = nn.Parameter(torch.zeros(embed_dim))
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, num_heads, 1, 1), 4.0).log())
        self.proj = operations.Linear(embed_dim, embed_dim)

    def forward(
        self, x: Tensor, turn: Rotation, past: tuple[tuple[Tensor, ...], tuple[Tensor, ...]], mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (G, P, L, C) -> output (G, P, L, C) and this scale's keys and values (G, P, H, L, D).

        ``past`` holds the keys and the values of earlier scales, chunk by chunk; ``mask`` (L, L) is True where attended.
        """
        branches, samples, tokens, width = x.shape
        q, k, v = self._heads(x)
        scale = on(self.scale_mul_1H11, q).clamp_max(math.log(MAX_QUERY_SCALE)).exp()
        q = rotate(F.normalize(q.float(), dim=-1, eps=1e-12) * scale.float(), turn).to(v.dtype)
        k = rotate(F.normalize(k.float(), dim=-1, eps=1e-12), turn).to(v.dtype)
        all_k, all_v = _with_past(past[0], k), _with_past(past[1], v)
        flat = (t.flatten(0, 1) for t in (q, all_k, all_v))
        out = F.scaled_dot_product_attention(*flat, attn_mask=mask, scale=1.0)
        out = out.transpose(1, 2).reshape(branches, samples, tokens, width)
        return self.proj(out), k, v

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.mat_qkv(x).chunk(3, dim=-1)
        q, v = q + on(self.q_bias, q), v + on(self.v_bias, v)
        return tuple(t.unflatten(-1, (self.num_heads, -1)).transpose(2, 3) for t in (q, k, v))


def _with_past(past: tuple[Tensor, ...], new: Tensor) -> Tensor:
    """Keys or values (G, P, H, M, D) of all scales so far, in the precision of the new ones."""
    return torch.cat((*(part.to(new.dtype) for part in past), new), dim=3) if past else new


def _key_value_heads(x: Tensor, v_bias: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Projected text (G, T, 2 C) -> keys and values (G, H, T, D)."""
    k, v = x.chunk(2, dim=-1)
    v = v + on(v_bias, v)
    return tuple(t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (k, v))


class CrossAttention(nn.Module):
    """Attention of image tokens to the prompt; the prompt's keys and values are projected once and passed in."""

    def __init__(self, embed_dim: int, num_heads: int, operations: Any = nn) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mat_q = operations.Linear(embed_dim, embed_dim)
        self.mat_kv = operations.Linear(embed_dim, 2 * embed_dim, bias=False)
        self.v_bias = nn.Parameter(torch.zeros(embed_dim))
        self.proj = operations.Linear(embed_dim, embed_dim)

    def project_text(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Text (G, T, C) -> keys and values (G, H, T, D)."""
        return _key_value_heads(self.mat_kv(text), self.v_bias, self.num_heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """x (G, P, L, C) against keys and values (G, H, T, D); ``mask`` (G, 1, 1, T) is False on padding. No row of text is
        repeated per sample: all tokens of a branch attend as one long sequence."""
        branches, samples, tokens, width = x.shape
        q = self.mat_q(x).reshape(branches, samples * tokens, self.num_heads, -1).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self.proj(out.transpose(1, 2).reshape(branches, samples, tokens, width))


class TextPooling(nn.Module):
    """One learned query per head pools the prompt into a vector."""

    def __init__(self, text_channels: int, embed_dim: int, num_heads: int, operations: Any = nn) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mat_q = nn.Parameter(torch.randn(1, num_heads, embed_dim // num_heads) * math.sqrt(1 / embed_dim / 3))
        self.mat_kv = operations.Linear(text_channels, 2 * embed_dim, bias=False)
        self.v_bias = nn.Parameter(torch.zeros(embed_dim))
        self.proj = operations.Linear(embed_dim, embed_dim)

    def forward(self, text: Tensor, mask: Tensor | None) -> Tensor:
        """Text (G, T, Ct) -> pooled (G, C)."""
        keys, values = _key_value_heads(self.mat_kv(text), self.v_bias, self.num_heads)
        q = on(self.mat_q, keys).unsqueeze(2).expand(len(text), -1, -1, -1)
        return self.proj(F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).flatten(1))
