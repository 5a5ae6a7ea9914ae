"""Attention as training on a CPU wants it: the fused kernel's backward pass is slow in bfloat16 and reads what is masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

SHORT = 128  # tokens up to which plain products in bfloat16 are the fastest


class TrainingAttention(TorchFunctionMode):
    """While active, scaled-dot-product attention under a scale-causal mask is computed without what the mask hides."""

    def __init__(self, tokens: Sequence[int]) -> None:
        super().__init__()
        self.ends = torch.tensor(tokens).cumsum(0).tolist()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        return self._attend(*args, **kwargs)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, scale: float | None = None) -> Tensor:
        if attn_mask is None or attn_mask.ndim != 2 or len(attn_mask) <= SHORT:
            return plain_attention(q, k, v, attn_mask, scale)
        known = max((end for end in self.ends if end <= SHORT), default=0)
        parts = [plain_attention(q[..., :known, :], k[..., :known, :], v[..., :known, :], attn_mask[:known, :known], scale)]
        q, k, v = q.float(), k.float(), v.float()
        for start, end in zip([known, *(e for e in self.ends if e > known)], (e for e in self.ends if e > known), strict=False):
            seen = (q[..., start:end, :], k[..., :end, :], v[..., :end, :])
            parts.append(F.scaled_dot_product_attention(*seen, scale=scale).to(parts[0].dtype))
        return torch.cat(parts, dim=-2)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Attention as two products; shapes and meaning as of the fused one."""
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1).to(v.dtype) @ v
