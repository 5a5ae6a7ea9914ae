"""Running on small cards: transformer weights in one byte per number, and pictures decoded tile by tile.

Both trade exactness for memory, both are off unless asked for, and the tests state the error they make.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .image_model import ImageModel

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = torch.finfo(FLOAT8).max
OVERLAP = 8  # cells of neighbouring tiles
SMALLEST_TILE = 4  # cells: twice an overlap of one, and more


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


def tile_cells(model: ImageModel, pixels: int) -> tuple[int, int]:
    """Tile and overlap, in cells of the tokenizer, of tiles ``pixels`` wide: they overlap by a quarter, by 8 cells at most.

    Raises ValueError for tiles of fewer than 4 cells.
    """
    stride = model.config.tokenizer.patch_size
    tile = pixels // stride
    if tile < SMALLEST_TILE:
        raise ValueError(
            f"Tiles of {pixels} pixels are too small for {model.name}, which draws {stride} pixels per cell: take "
            f"{SMALLEST_TILE * stride} or more, or 0 to decode whole."
        )
    return tile, min(OVERLAP, tile // 4)


def decode_tiled(model: ImageModel, features: Tensor, tile: int, overlap: int = OVERLAP) -> Tensor:
    """Accumulated features (P, C, h, w) -> images (P, H, W, 3) float32 in [0, 1], decoded in square tiles of cells.

    ``tile`` and ``overlap`` count cells of the tokenizer; neighbouring tiles fade into each other over the overlap. A tile's
    norms see that tile alone, so the picture differs slightly from one decoded whole. One tile of one sample is decoded at a
    time, and the pictures are put together on the CPU. Raises ValueError for a tile that is not larger than twice the overlap,
    FloatingPointError if an image is not finite.
    """
    if tile <= 2 * overlap:
        raise ValueError(f"Tiles of {tile} cells with an overlap of {overlap}; a tile must be larger than twice the overlap.")
    from .sampling import decode_features

    height, width = features.shape[-2:]
    if height <= tile and width <= tile:
        return decode_features(model, features)
    return torch.cat([_decode_one(model, one, tile, overlap) for one in features.split(1)])


def _decode_one(model: ImageModel, features: Tensor, tile: int, overlap: int) -> Tensor:
    """The image (1, H, W, 3) of one sample, tile by tile."""
    from .sampling import decode_features

    height, width = features.shape[-2:]
    stride = model.config.tokenizer.patch_size
    picture = torch.zeros(1, height * stride, width * stride, 3)
    weight = torch.zeros(height * stride, width * stride, 1)
    for rows in _spans(height, tile, overlap):
        for columns in _spans(width, tile, overlap):
            part = decode_features(model, features[..., rows, columns]).cpu()
            fade = (_fade(part.shape[1], overlap * stride)[:, None] * _fade(part.shape[2], overlap * stride))[..., None]
            place = _pixels(rows, stride), _pixels(columns, stride)
            picture[(0, *place)] += part[0] * fade
            weight[place] += fade
    return picture / weight


def _spans(length: int, tile: int, overlap: int) -> list[slice]:
    """Evenly placed spans of at most ``tile`` cells that cover ``length`` and overlap by at least ``overlap``."""
    if length <= tile:
        return [slice(0, length)]
    count = -(-(length - overlap) // (tile - overlap))
    starts = [round(i * (length - tile) / (count - 1)) for i in range(count)]
    return [slice(start, start + tile) for start in starts]


def _fade(pixels: int, overlap: int) -> Tensor:
    """Weights (pixels,) that rise over the overlap, stay, and fall; never zero, so that borders keep their colour."""
    ramp = torch.arange(1, pixels + 1, dtype=torch.float32)
    return torch.minimum(ramp, ramp.flip(0)).clamp(max=max(1, overlap))


def _pixels(span: slice, stride: int) -> slice:
    return slice(span.start * stride, span.stop * stride)
