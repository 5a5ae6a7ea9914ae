"""The contact sheet: every living sample with its number, its score and where it comes from."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from ..state import SearchState
from .canvas import BEST, GRID, MARGIN, MUTED, PANEL, TEXT, family_colour, fitted, page, to_pictures
from .family import generations, latest_scores
from .letters import font, write

_CAPTION = 54
_HEADER = 58


def contact_sheet(state: SearchState, images: Tensor, cell: int = 256) -> Image.Image:
    """A sheet of the images (P, H, W, 3) of a state.

    The number under each picture is its row, as Select by Hand takes it; colours tell families (who shares a first
    ancestor), the bar shows the score between the worst and the best of the sheet, and the best has a golden frame.
    """
    return numbered_sheet(to_pictures(images), captions(state), header(state), cell)


def numbered_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[dict], header: tuple[str, str], cell: int = 256
) -> Image.Image:
    """A sheet of pictures of one size, each over its caption (see `captions`), under two lines of words."""
    pictures = [fitted(picture, cell) for picture in pictures]
    width, height = pictures[0].size
    columns = _columns(len(pictures), width, height + _CAPTION)
    rows = math.ceil(len(pictures) / columns)
    across, below = MARGIN + columns * (width + MARGIN), _HEADER + rows * (height + _CAPTION + MARGIN)
    sheet, draw = page(max(across, 420), below, header[0])
    write(draw, (MARGIN, 34), header[1], sheet.width - 2 * MARGIN, 14, MUTED)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = MARGIN + (index % columns) * (width + MARGIN)
        top = _HEADER + (index // columns) * (height + _CAPTION + MARGIN)
        draw.rectangle((left, top, left + width - 1, top + height + _CAPTION - 1), fill=PANEL)
        sheet.paste(picture, (left, top))
        _caption(draw, caption, (left, top + height), width)
        if caption["best"]:
            draw.rectangle((left - 2, top - 2, left + width + 1, top + height + _CAPTION + 1), outline=BEST, width=2)
    return sheet


def _columns(count: int, width: int, height: int) -> int:
    """Columns that bring the sheet near a 3:2 page and leave few places empty."""

    def distance(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(columns * width / (rows * height) - 1.5) + (rows * columns - count) / count

    return min(range(1, count + 1), key=distance)


def header(state: SearchState) -> tuple[str, str]:
    """How far a state is, and its prompt."""
    last = len(state.schedule) - 1
    done = f"after scale {state.next_scale - 1} of 0-{last}" if state.next_scale else "before the first scale"
    count = "1 sample" if state.samples == 1 else f"{state.samples} samples"
    return f"{count} {done}, seed {state.seed}", state.conditioning.prompt or "(no prompt)"


def captions(state: SearchState) -> list[dict]:
    """What stands under each living sample: its row, score (None without), that score's share of the way from the worst to the
    best, its family's colour, where it comes from, whether it is the best."""
    scores = latest_scores(state)
    known = [score for score in scores if score is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    last = generations(state)[-1]
    best = scores.index(high) if known and state.samples > 1 else None
    return [
        plain_caption(
            row,
            score=score,
            share=None if score is None else (1.0 if high == low else (score - low) / (high - low)),
            colour=family_colour(last.founders[row]),
            origin=f"was #{last.parents[row]}" if last.parents else "",
            best=row == best,
        )
        for row, score in enumerate(scores)
    ]


def plain_caption(row: int, **known) -> dict:
    """The caption of a picture of which nothing is known but its number, and what is."""
    nothing = {"score": None, "share": None, "colour": GRID, "origin": "", "best": False, "label": ""}
    return {"row": row, **nothing, **known}


def _caption(draw: ImageDraw.ImageDraw, caption: dict, corner: tuple[int, int], width: int) -> None:
    left, top = corner
    draw.rectangle((left, top, left + 4, top + _CAPTION - 1), fill=caption["colour"])
    draw.text((left + 12, top + 7), f"#{caption['row']}", TEXT, font(20))
    if caption["origin"]:
        write(draw, (left + 60, top + 12), caption["origin"], width - 60 - 66, 13, MUTED)
    if caption["score"] is None:
        if caption["label"]:
            write(draw, (left + 60, top + 12), caption["label"], width - 70, 13, MUTED)
        else:
            draw.text((left + width - 10, top + 12), "no score", MUTED, font(13), anchor="ra")
        return
    right, accent = left + width - 10, BEST if caption["best"] else caption["colour"]
    draw.text((right, top + 8), f"{caption['score']:.3f}", BEST if caption["best"] else TEXT, font(18), anchor="ra")
    track = (left + 12, top + 38, right, top + 43)
    draw.rectangle(track, fill=GRID)
    end = track[0] + round((track[2] - track[0]) * caption["share"])
    draw.rectangle((track[0], track[1], max(end, track[0] + 2), track[3]), fill=accent)
