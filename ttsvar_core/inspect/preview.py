"""Small live previews while scales are running."""

import math

from PIL import Image, ImageDraw

from ..bsq.bits import average
from ..decoding import decode_fitting, features_seen
from ..image_model import ImageModel
from ..state import SearchState
from .canvas import BACKGROUND, to_pictures
from .letters import font

_SIDE = 512
_LETTERS = 16


def preview(state: SearchState, samples: int = 4) -> Image.Image:
    """One picture of a state's first ``samples``, side by side with their numbers: what they become where that can be foretold from
    the keys and values at hand, what is sampled so far elsewhere.

    Decoding is the dear part, so it is as small as a sketch, and no larger than the preview.
    """
    first = state if state.samples <= samples else state.select(range(samples))
    columns, cells = _columns(first.samples), state.model.config.sketch_cells(state.schedule, state.last_scale)
    seen, share = features_seen(first, cells, first.cache is not None), min(1.0, largest_cells(state.model, columns) / max(cells))
    small = average(seen, tuple(max(1, round(side * share)) for side in cells))
    pictures = to_pictures(decode_fitting(state.model, small))
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height), BACKGROUND)
    places = [(index % columns * width, index // columns * height) for index in range(len(pictures))]
    for picture, place in zip(pictures, places, strict=True):
        sheet.paste(picture, place)
    factor = max(1, _SIDE // 2 // sheet.width)
    sheet = sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(sheet)
    for number, (left, top) in enumerate(places):
        draw.text((left * factor + 4, top * factor + 2), str(number), "white", font(_LETTERS), stroke_width=2, stroke_fill="black")
    return sheet


def largest_cells(model: ImageModel, columns: int = 1) -> int:
    """The side, in cells of the tokenizer, of what is decoded for one of so many pictures in a row."""
    return max(1, _SIDE // columns // model.config.tokenizer.patch_size)


def _columns(count: int) -> int:
    """At most four columns, at least as many as rows up to sixteen samples, and few empty places."""
    return min(range(min(4, math.ceil(count**0.5)), 5), key=lambda columns: (-count % columns, columns))
