"""The transformer block: adaptive norms around self-attention, cross-attention and a feed-forward layer.

The residual stream and the norms are float32, whatever the precision of the matrix products: activations of the residual may
pass what float16 can hold.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import CrossAttention, SelfAttention, on
from .rope import Rotation

NORM_EPS = 1e-6  # published models
FLOAT16_MAX = torch.finfo(torch.float16).max

Past = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


def modulate(x: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
    """Layer norm without weights, then scale and shift from the prompt; x (..., C) float32."""
    return (F.layer_norm(x, x.shape[-1:], eps=NORM_EPS) * (1 + scale) + shift).to(dtype)


def widened(x: Tensor) -> Tensor:
    """What a layer adds to the residual, as float32. Where float16 ran over it is held at the largest such number."""
    return x.float().clamp(-FLOAT16_MAX, FLOAT16_MAX) if x.dtype == torch.float16 else x.float()


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight, computed in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + NORM_EPS) * on(self.weight, x)


class FeedForward(nn.Sequential):
    """Two linear layers around a GELU."""

    def __init__(self, width: int, hidden: int, operations: Any = nn) -> None:
        super().__init__()
        self.fc1 = operations.Linear(width, hidden)
        self.gelu = nn.GELU(approximate="tanh")
        self.fc2 = operations.Linear(hidden, width)


class Block(nn.Module):
    def __init__(self, width: int, num_heads: int, mlp_dim: int, operations: Any = nn) -> None:
        super().__init__()
        self.sa = SelfAttention(width, num_heads, operations)
        self.ca = CrossAttention(width, num_heads, operations)
        self.ffn = FeedForward(width, mlp_dim, operations)
        self.ca_norm = operations.LayerNorm(width, eps=NORM_EPS)
        self.ada_gss = nn.Parameter(torch.randn(1, 1, 6, width) / width**0.5)

    def forward(
        self, x: Tensor, modulation: Tensor, text: tuple[Tensor, Tensor, Tensor | None], turn: Rotation, past: Past,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (G, P, L, C) float32 -> the same, and this scale's keys and values (G, P, H, L, D).

        ``modulation`` (G, 1, 1, 6, C) comes from the pooled prompt, ``text`` holds the prompt's keys, values and mask.
        """
        dtype = text[0].dtype
        gate_sa, gate_ffn, scale_sa, scale_ffn, shift_sa, shift_ffn = (on(self.ada_gss, x) + modulation).unbind(-2)
        attended, keys, values = self.sa(modulate(x, scale_sa, shift_sa, dtype), turn, past, mask)
        x = x + widened(attended) * gate_sa
        x = x + widened(self.ca(self.ca_norm(x).to(dtype), *text))
        x = x + widened(self.ffn(modulate(x, scale_ffn, shift_ffn, dtype))) * gate_ffn
        return x, keys, values


class HeadNorm(nn.Module):
    """The adaptive norm before the head, in float32 as the head is."""

    def __init__(self, width: int, operations: Any = nn) -> None:
        super().__init__()
        self.ada_lin = nn.Sequential(nn.SiLU(), operations.Linear(width, 2 * width))

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        """x (G, P, L, C) and the pooled prompt (G, C) -> (G, P, L, C)."""
        scale, shift = self.ada_lin(pooled)[:, None, None].chunk(2, dim=-1)
        return modulate(x, scale, shift, x.dtype)
