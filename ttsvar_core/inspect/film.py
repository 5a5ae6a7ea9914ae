"""A film as one sheet: a row for each sample, a column for each scale."""

from collections.abc import Iterable, Sequence

from PIL import Image

from .canvas import MARGIN, MUTED, TEXT, fitted, page
from .letters import font

_HEADER, _GAP = 62, 6


def film_sheet(rows: Sequence[int], frames: Iterable[Sequence[Image.Image]], width: int = 1024) -> Image.Image:
    """The pictures of samples after every scale, ``rows`` being their numbers."""
    frames = list(frames)
    side = max(16, (width - 2 * MARGIN - 40) // max(1, len(frames)) - _GAP)
    strips = [[fitted(picture, side) for picture in frame] for frame in frames]
    height = max((picture.height for strip in strips for picture in strip), default=side)
    sheet, draw = page(width, _HEADER + len(rows) * (height + _GAP) + MARGIN, "How the samples came about, scale by scale")
    for place, row in enumerate(rows):
        draw.text((MARGIN, _HEADER + place * (height + _GAP) + height // 2), f"#{row}", TEXT, font(14), anchor="lm")
    for scale, strip in enumerate(strips):
        left = MARGIN + 40 + scale * (side + _GAP)
        draw.text((left + side // 2, 38), str(scale), MUTED, font(13), anchor="ma")
        for place, picture in enumerate(strip):
            sheet.paste(picture, (left + (side - picture.width) // 2, _HEADER + place * (height + _GAP)))
    return sheet
