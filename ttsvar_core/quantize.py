"""Float8 layers: transformer weights in one byte per number, for small cards.

It trades exactness for memory, is off unless asked for, and the tests state the error it makes.
"""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .image_model import ImageModel

FLOAT8 = torch.float8_e4m3fn
LARGEST = 16.0  # stored number; e4m3 is precise ten powers of two below it, and products stay far from the end of float16


class Float8:
    """What a linear layer becomes whose weight (out, in) is stored in e4m3, as a part of its new class.

    The weight holds multiples of ``step``, a power of two, by which the input is multiplied instead: that is exact and leaves the
    weight and the bias to the layer's own class, so that a host's layer is moved, paged and widened by its host.
    """

    step: float

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.step)


class WideningLinear(nn.Linear):
    """PyTorch's linear layer, its weight taken to where and how the input is at every call: memory is saved, not time."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.device).to(x.dtype)  # moved first, while it is small
        return F.linear(x, weight, None if self.bias is None else self.bias.to(x))


@cache
def _float8(kind: type) -> type:
    """The class that a linear layer of class ``kind`` becomes. One that is not PyTorch's own widens its weight itself."""
    return type(f"Float8{kind.__name__}", (Float8, WideningLinear if kind is nn.Linear else kind), {})


def store_in_float8(linear: nn.Linear) -> None:
    """Store a linear layer's weight in one byte per number, in place."""
    weight = linear.weight.detach().float()
    largest = max(float(weight.abs().max()), torch.finfo(torch.float16).tiny)
    linear.step = 2.0 ** math.ceil(math.log2(largest / LARGEST))
    linear.weight = nn.Parameter((weight / linear.step).to(FLOAT8), requires_grad=False)
    linear.__class__ = _float8(type(linear))


def check_float8(device: torch.device) -> None:
    """Raise ValueError for a device that has no such numbers."""
    if device.type == "mps":
        raise ValueError(
            "Apple's GPUs have no float8 numbers: take weights in bfloat16 or float32, and keep, offload or drop keys and values."
        )


def store_blocks_in_float8(model: ImageModel) -> ImageModel:
    """Store the linear layers of the transformer's blocks (97% of the 2B weights) in one byte per number, one at a time.

    Changes the transformer in place and returns the model; norms, embeddings and the head keep their precision.
    """
    for block in model.transformer.layers:
        for linear in [part for part in block.modules() if isinstance(part, nn.Linear)]:
            store_in_float8(linear)
    return model
