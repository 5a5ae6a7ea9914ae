"""Small live previews while scales are running."""

import math

from PIL import Image
from torch import Tensor

from ..bsq.bits import average
from ..decoding import decode_fitting
from ..image_model import ImageModel
from .canvas import BACKGROUND, to_pictures

_SIDE = 512


def preview(model: ImageModel, features: Tensor, samples: int = 4) -> Image.Image:
    """One picture of the first ``samples`` of accumulated features (P, Cd, h, w), side by side.

    Decoding is the dear part, so features wider than the preview needs are averaged down before it.
    """
    shown = features[:samples]
    columns = _columns(len(shown))
    cells = largest_cells(model, columns)
    longest = max(shown.shape[-2:])
    if longest > cells:
        size = tuple(max(1, round(side * cells / longest)) for side in shown.shape[-2:])
        shown = average(shown, size)
    pictures = to_pictures(decode_fitting(model, shown))
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), BACKGROUND)
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    factor = max(1, _SIDE // 2 // sheet.width)
    return sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)


def largest_cells(model: ImageModel, columns: int = 1) -> int:
    """The side, in cells of the tokenizer, of what is decoded for one of so many pictures in a row."""
    return max(1, _SIDE // columns // model.config.tokenizer.patch_size)


def _columns(count: int) -> int:
    """At most four columns, at least as many as rows up to sixteen samples, and few empty places."""
    return min(range(min(4, math.ceil(count**0.5)), 5), key=lambda columns: (-count % columns, columns))
