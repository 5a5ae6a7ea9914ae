"""Show a state: the pictures of its accumulated features, whole, smaller or tile by tile, and within the memory there is.

Tiles trade exactness for memory; the tests state the error they make.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from .bsq.bits import average
from .footprint import decoded_together
from .image_model import ImageModel
from .out_of_memory import first_that_fits
from .scales import Grid
from .state import SearchState
from .threads import threads_for

OVERLAP = 8  # cells of neighbouring tiles
SMALLEST_TILE = 4  # cells: twice an overlap of one, and more


def sketch(state: SearchState, tile: int = 0, foreseen: bool = False) -> Tensor:
    """The images a state's samples show so far, at the size that has been sampled: (P, H, W, 3) float32 in [0, 1].

    After scale s the features hold no more than that scale's grid, so they are averaged to it and decoded there, for a share of
    the cost; not below the smallest pictures the tokenizer was trained on, and whole once all scales are sampled. ``tile`` as in
    `decode`. ``foreseen``: what they are foretold to become, on the same grid, where the model's foresight knows the scale.
    """
    cells = state.model.config.sketch_cells(state.schedule, state.last_scale)
    return decode_fitting(state.model, features_seen(state, cells, foreseen), tile)


def features_seen(state: SearchState, cells: Grid, foreseen: bool = False) -> Tensor:
    """(P, Cd, *cells): a state's features so far or, where the model's foresight knows the scale, those that are foretold."""
    ahead = state.model.foresight
    if foreseen and ahead is not None and ahead.sees(state):
        return ahead.foresee(state, cells)
    return average(state.features, cells)


def decode(state: SearchState, tile: int = 0) -> Tensor:
    """The images a state's samples show so far, at full size after any number of scales: (P, H, W, 3) float32 in [0, 1].

    ``tile`` is the side in pixels of the tiles to decode in, which takes less memory and changes the picture slightly (0: whole).
    Where memory runs out, less of it is used, in the end the processor's, and a UserWarning says so. Raises ValueError for a tile
    that does not fit the model.
    """
    return decode_fitting(state.model, state.features, tile)


def decode_fitting(model: ImageModel, features: Tensor, tile: int = 0) -> Tensor:
    """`decode_features` or, with ``tile``, `decode_tiled`, within the memory there is; see `decode`."""
    cells = tile_cells(model, tile) if tile else None
    return first_that_fits(list(_ways(model, features, cells)))


def _ways(model: ImageModel, features: Tensor, cells: tuple[int, int] | None) -> Iterator[Callable[[], Tensor]]:
    """How to decode, each way with less of the device's memory: as asked, one picture at a time, in tiles of half and of a
    quarter of the side, on the processor."""
    if cells:
        yield partial(decode_tiled, model, features, *cells)
    else:
        yield partial(decode_features, model, features)
        yield lambda: torch.cat([decode_features(model, sample).cpu() for sample in features.split(1)])
    side = cells[0] if cells else max(features.shape[-2:])
    for tile in (side // 2, side // 4):
        if tile >= SMALLEST_TILE:
            yield partial(_warned, f"in tiles of {tile} cells", decode_tiled, model, features, tile, _overlap(tile))
    here = torch.device("cpu")
    yield partial(_warned, "on the processor", lambda: _pictures(decoder_in(model, here, torch.float32), features))


def _warned(how: str, decoder: Callable[..., Tensor], *given: object) -> Tensor:
    warnings.warn(f"Memory ran out while decoding: decoding {how} now, which may change the pictures slightly.", stacklevel=5)
    return decoder(*given)


def decode_features(model: ImageModel, features: Tensor) -> Tensor:
    """Accumulated features (P, C, h, w), of any number of scales, -> images (P, H, W, 3) float32 in [0, 1].

    The processor decodes them one by one in float32: an image has the same pixels whatever else is decoded. Another device decodes
    small ones together (`decoded_together`), in the transformer's precision, and all again in float32 if any is not finite then.
    Raises FloatingPointError if an image is not finite.
    """
    device = next(model.tokenizer.parameters()).device
    if device.type == "cpu":
        with threads_for(model.tokenizer, features.shape[-2] * features.shape[-1]):
            return _pictures(lambda part: model.tokenizer.decode(part.to(device)), features)
    together = decoded_together(model.config.tokenizer, features.shape[-2:])
    try:
        return _pictures(decoder_in(model, device, model.transformer.dtype), features, together)
    except FloatingPointError:
        if model.transformer.dtype == torch.float32:
            raise
    return _pictures(decoder_in(model, device, torch.float32), features, together)


def decoder_in(model: ImageModel, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """`Tokenizer.decode` on a device in a precision, the tokenizer staying where and how it is.

    Weights are copied where they differ; for a card into the plain layout, because its group norms turn activations whose channels
    come last, as the processor likes them, back at every layer.
    """
    layout = torch.preserve_format if device.type == "cpu" else torch.contiguous_format
    named = [(name, weight) for name, weight in model.tokenizer.named_parameters() if name.startswith("decoder.")]
    weights = {name: weight.to(device=device, dtype=dtype, memory_format=layout) for name, weight in named}
    return lambda part: torch.func.functional_call(model.tokenizer, weights, (part.to(device),))


def _pictures(decoder: Callable[[Tensor], Tensor], features: Tensor, together: int = 1) -> Tensor:
    """What ``decoder`` makes of so many samples at a time, (B, 3, H, W) in [-1, 1], as images (P, H, W, 3) in [0, 1]."""
    with torch.inference_mode():
        images = torch.cat([((decoder(part) + 1) / 2).permute(0, 2, 3, 1).contiguous() for part in features.split(together)])
        if not bool(torch.isfinite(images).all()):
            raise FloatingPointError("The decoded images contain values that are not finite. Are the tokenizer's weights sound?")
    return images


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
    return tile, _overlap(tile)


def _overlap(tile: int) -> int:
    return min(OVERLAP, tile // 4)


def decode_tiled(model: ImageModel, features: Tensor, tile: int, overlap: int = OVERLAP) -> Tensor:
    """Accumulated features (P, C, h, w) -> images (P, H, W, 3) float32 in [0, 1], decoded in square tiles of cells.

    ``tile`` and ``overlap`` count cells of the tokenizer; neighbouring tiles fade into each other over the overlap. A tile's
    norms see that tile alone, so the picture differs slightly from one decoded whole. One tile of one sample is decoded at a
    time, and the pictures are put together on the CPU. Raises ValueError for a tile that is not larger than twice the overlap,
    FloatingPointError if an image is not finite.
    """
    if tile <= 2 * overlap:
        raise ValueError(f"Tiles of {tile} cells with an overlap of {overlap}; a tile must be larger than twice the overlap.")
    height, width = features.shape[-2:]
    if height <= tile and width <= tile:
        return decode_features(model, features)
    return torch.cat([_decode_one(model, sample, tile, overlap) for sample in features.split(1)])


def _decode_one(model: ImageModel, features: Tensor, tile: int, overlap: int) -> Tensor:
    """The image (1, H, W, 3) of one sample, tile by tile."""
    height, width = features.shape[-2:]
    stride = model.config.tokenizer.patch_size
    picture = torch.zeros(1, height * stride, width * stride, 3)
    weight = torch.zeros(height * stride, width * stride, 1)
    for rows in _spans(height, tile, overlap):
        for columns in _spans(width, tile, overlap):
            part = decode_features(model, features[..., rows, columns]).cpu()
            fade = (_fade(part.shape[1], overlap * stride)[:, None] * _fade(part.shape[2], overlap * stride))[..., None]
            place = tuple(slice(span.start * stride, span.stop * stride) for span in (rows, columns))
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
