"""The family tree: which sample each survivor descends from, over the scales."""

from PIL import Image, ImageDraw
from torch import Tensor

from ..state import SearchState
from .canvas import GRID, MARGIN, MUTED, TEXT, family_colour, fitted, page, to_pictures
from .family import Generation, generations, latest_scores
from .letters import font

_HEADER = 62
_FADED = (66, 70, 80)


class _Frame:
    """Where scales and rows lie on the picture."""

    def __init__(self, state: SearchState, width: int, most: int, spacing: int) -> None:
        self.scales, self.most, self.spacing = len(state.schedule), most, spacing
        self.left, self.right = MARGIN + 30, width - 170
        self.bend = (self.x(1) - self.x(0)) // 3

    def x(self, scale: float) -> int:
        return round(self.left + (self.right - self.left) * scale / self.scales)

    def y(self, row: int, count: int) -> int:
        """Rows keep their order; a smaller generation spreads over the same height."""
        return round(_HEADER + self.spacing * ((row + 0.5) * self.most / count))


def family_tree(state: SearchState, images: Tensor | None = None, width: int = 1024) -> Image.Image:
    """Lines from the first samples to the living ones; scales run to the right, grey lines have died out.

    images: (P, H, W, 3) of this state, drawn small at the right end of each line.
    """
    told = generations(state)
    most = max(len(generation.founders) for generation in told)
    spacing = max(34, min(72, 560 // most))
    picture, draw = page(width, _HEADER + most * spacing + MARGIN, "Family tree: who descends from whom")
    frame = _Frame(state, width, most, spacing)
    _ruler(draw, frame, told, picture.height)
    for index, generation in enumerate(told):
        last = index + 1 == len(told)
        stop = frame.x(max(state.next_scale, generation.since)) - 10 if last else frame.x(told[index + 1].since) - frame.bend
        _lines(draw, frame, generation, None if index == 0 else told[index - 1], stop)
    _leaves(picture, draw, frame, state, told[-1], images)
    return picture


def _ruler(draw: ImageDraw.ImageDraw, frame: _Frame, told: list[Generation], bottom: int) -> None:
    for scale in range(frame.scales):
        draw.text((frame.x(scale + 0.5), 38), str(scale), MUTED, font(13), anchor="ma")
    for generation in told[1:]:
        left = frame.x(generation.since)
        draw.line((left, _HEADER - 6, left, bottom - MARGIN), fill=GRID, width=1)
    draw.text((MARGIN, 38), "scale", MUTED, font(13))


def _lines(draw: ImageDraw.ImageDraw, frame: _Frame, now: Generation, before: Generation | None, stop: int) -> None:
    count = len(now.founders)
    for row in sorted(range(count), key=lambda r: now.lives[r]):
        colour, width = (family_colour(now.founders[row]), 3) if now.lives[row] else (_FADED, 2)
        y, start = frame.y(row, count), frame.x(now.since)
        if before is None:
            draw.text((frame.left - 8, y), f"#{row}", TEXT if now.lives[row] else MUTED, font(13), anchor="rm")
        else:
            parent = frame.y(now.parents[row], len(before.founders))
            draw.line([(start - frame.bend, parent), (start + frame.bend, y)], fill=colour, width=width)
            start += frame.bend
        draw.line([(start, y), (max(stop, start), y)], fill=colour, width=width)


def _leaves(
    picture: Image.Image, draw: ImageDraw.ImageDraw, frame: _Frame, state: SearchState, last: Generation, images: Tensor | None
) -> None:
    small = [fitted(picture, frame.spacing - 4) for picture in to_pictures(images)] if images is not None else []
    scores = latest_scores(state)
    count = len(last.founders)
    x = frame.x(max(state.next_scale, last.since))
    for row in range(count):
        y, left = frame.y(row, count), x + 4
        draw.ellipse((x - 10, y - 4, x - 2, y + 4), fill=family_colour(last.founders[row]))
        if small:
            picture.paste(small[row], (left, y - small[row].height // 2))
            left += small[row].width + 8
        score = "" if scores[row] is None else f"  {scores[row]:.3f}"
        draw.text((left, y), f"#{row}{score}", TEXT, font(14), anchor="lm")
