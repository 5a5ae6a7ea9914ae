"""Float8 layers: transformer weights in one byte per number, for small cards.

It trades exactness for memory, is off unless asked for, and the tests state the error it makes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .image_model import ImageModel

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = torch.finfo(FLOAT8).max


class Float8Linear(nn.Module):
    """A linear layer whose weight (out, in) is stored in e4m3 with one scale per output channel.

    The weight is widened at every call, so the products run in the precision of the input: memory is saved, not time. It is
    taken to the input's device, too: a host short of memory may leave it elsewhere.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        largest = weight.float().abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        self.register_buffer("weight_scale", largest / FLOAT8_MAX)
        self.register_buffer("weight", (weight.float() / self.weight_scale).to(FLOAT8))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        weight = _beside(self.weight, x) * _beside(self.weight_scale, x)
        return F.linear(x, weight, None if self.bias is None else _beside(self.bias, x))


def _beside(stored: Tensor, x: Tensor) -> Tensor:
    """A stored tensor where and how ``x`` lives; moved first, while it is small."""
    return stored.to(x.device).to(x.dtype)


def check_float8(device: torch.device) -> None:
    """Raise ValueError for a device that has no such numbers."""
    if device.type == "mps":
        raise ValueError(
            "Apple's GPUs have no float8 numbers: take weights in bfloat16 or float32, and keep, offload or drop keys and values."
        )


def store_blocks_in_float8(model: ImageModel) -> ImageModel:
    """Replace the linear layers of the transformer's blocks (97% of the 2B weights) by ``Float8Linear``, one at a time.

    Changes the transformer in place and returns the model; norms, embeddings and the head keep their precision.
    """
    for block in model.transformer.layers:
        for name, linear in [(n, m) for n, m in block.named_modules() if isinstance(m, nn.Linear)]:
            parent, _, leaf = name.rpartition(".")
            setattr(block.get_submodule(parent), leaf, Float8Linear(linear))
    return model
