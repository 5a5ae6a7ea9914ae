"""Scores of the living samples over the scales, and the effective sample size of every selection."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from .canvas import BACKGROUND, GRID, MARGIN, MUTED, PANEL, TEXT, family_colour, stacked
from .family import Generation, generations
from .letters import font, write

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

    from ..state import SearchState

_LEFT, _TOP, _BOTTOM = 64, 44, 34


def charts(state: SearchState, width: int = 1024) -> Image.Image:
    """Scores per scale above, effective sample size per selection below."""
    return stacked([score_chart(state, width), selection_chart(state, width)])


def score_chart(state: SearchState, width: int = 1024, height: int = 320) -> Image.Image:
    """One line per living sample through the scores it (or its ancestors) got; grey rings were not selected."""
    picture, draw = _page(width, height, "Scores of the living samples, per scale")
    scores = state.scores.tolist()
    told = [value for step in state.lineage for value in step.scores]
    known = [value for value in (*told, *(v for row in scores for v in row)) if not math.isnan(value)]
    if not known:
        draw.text((_LEFT, height // 2), "Nothing has been scored yet; put a Reward Scorer before.", MUTED, font(15))
        return picture
    low, high = _span(min(known), max(known))
    _grid(draw, (low, high), len(state.schedule), width, height)
    _scatter_fallen(draw, state, (low, high), width, height)
    founders = generations(state)[-1].founders
    for row, values in enumerate(scores):
        points = [(scale, value) for scale, value in enumerate(values) if not math.isnan(value)]
        where = [(_x(scale, len(state.schedule), width), _y(value, (low, high), height)) for scale, value in points]
        colour = family_colour(founders[row])
        if len(where) > 1:
            draw.line(where, fill=colour, width=2, joint="curve")
        for x, y in where:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
    return picture


def _scatter_fallen(
    draw: ImageDraw.ImageDraw, state: SearchState, span: tuple[float, float], width: int, height: int
) -> None:
    """Grey rings for the samples that were scored and not selected."""
    for step in state.lineage:
        for row, value in enumerate(step.scores):
            if row not in step.ancestors and not math.isnan(value):
                x, y = _x(step.scale, len(state.schedule), width), _y(value, span, height)
                draw.ellipse((x - 4, y - 4, x + 4, y + 4), outline=MUTED)


def selection_chart(state: SearchState, width: int = 1024) -> Image.Image:
    """One bar per selection: effective sample size of the samples it chose from, and the decision in words."""
    told = generations(state)
    line = 46
    picture, draw = _page(width, _TOP + max(1, len(told) - 1) * line + MARGIN, "Selections: effective sample size")
    if len(told) == 1:
        draw.text((_LEFT, _TOP + 12), "Nothing has been selected yet.", MUTED, font(15))
    for index, (before, after) in enumerate(pairwise(told)):
        _bar(draw, before, after, _TOP + index * line, width)
    return picture


def _bar(draw: ImageDraw.ImageDraw, before: Generation, after: Generation, top: int, width: int) -> None:
    count = len(before.founders)
    draw.text((MARGIN, top + 4), f"scale {after.since - 1}", TEXT, font(14))
    left, right = MARGIN + 84, MARGIN + 84 + 300
    draw.rectangle((left, top + 4, right, top + 20), fill=PANEL)
    filled = max(2, round((right - left) * min(1.0, after.ess / count)))
    draw.rectangle((left, top + 4, left + filled, top + 20), fill=family_colour(0))
    draw.text((right + 12, top + 4), f"{after.ess:.2f} of {count}", TEXT, font(14))
    draw.text((right + 120, top + 4), f"kept {list(after.parents)}", TEXT, font(14))
    write(draw, (left, top + 24), after.reason, width - left - MARGIN, 13, MUTED)


def _page(width: int, height: int, title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, 10), title, TEXT, font(18))
    return picture, draw


def _span(low: float, high: float) -> tuple[float, float]:
    pad = 0.08 * (high - low) or max(0.05, 0.05 * abs(high))
    return low - pad, high + pad


def _grid(draw: ImageDraw.ImageDraw, span: tuple[float, float], scales: int, width: int, height: int) -> None:
    for value in _ticks(*span):
        y = _y(value, span, height)
        draw.line((_LEFT, y, width - MARGIN, y), fill=GRID)
        draw.text((_LEFT - 8, y), f"{value:g}", MUTED, font(13), anchor="rm")
    for scale in range(scales):
        draw.text((_x(scale, scales, width), height - _BOTTOM + 10), str(scale), MUTED, font(13), anchor="ma")


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between the ends."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def _x(scale: int, scales: int, width: int) -> int:
    return round(_LEFT + (width - MARGIN - _LEFT) * (scale + 0.5) / scales)


def _y(value: float, span: tuple[float, float], height: int) -> int:
    return round(height - _BOTTOM - (height - _BOTTOM - _TOP) * (value - span[0]) / (span[1] - span[0]))
