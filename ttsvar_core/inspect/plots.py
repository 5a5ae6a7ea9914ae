"""Scores of the living samples over the scales, and the effective sample size of every selection."""

import math
from itertools import pairwise
from typing import NamedTuple

from PIL import Image, ImageDraw

from ..state import SearchState
from .canvas import GRID, MARGIN, MUTED, PANEL, TEXT, family_colour, page, stacked
from .family import Generation, generations
from .letters import font, write

_LEFT, _TOP, _BOTTOM = 64, 44, 34


class _Axes(NamedTuple):
    """Where scales and scores lie on a chart of this size."""

    scales: int
    low: float
    high: float
    width: int
    height: int

    def x(self, scale: int) -> int:
        return round(_LEFT + (self.width - MARGIN - _LEFT) * (scale + 0.5) / self.scales)

    def y(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low)
        return round(self.height - _BOTTOM - (self.height - _BOTTOM - _TOP) * share)

    def dot(self, draw: ImageDraw.ImageDraw, scale: int, value: float, **how: tuple[int, int, int]) -> None:
        x, y = self.x(scale), self.y(value)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), **how)


def charts(state: SearchState, width: int = 1024) -> Image.Image:
    """Scores per scale above, effective sample size per selection below."""
    return stacked([score_chart(state, width), selection_chart(state, width)])


def score_chart(state: SearchState, width: int = 1024, height: int = 320) -> Image.Image:
    """One line per living sample through the scores it (or its ancestors) got; grey rings were not selected."""
    picture, draw = page(width, height, "Scores of the living samples, per scale")
    scores = state.scores.tolist()
    told = [value for step in state.lineage for value in step.scores]
    known = [value for value in (*told, *(v for row in scores for v in row)) if not math.isnan(value)]
    if not known:
        draw.text((_LEFT, height // 2), "Nothing has been scored yet; put a Reward Scorer before.", MUTED, font(15))
        return picture
    axes = _Axes(len(state.schedule), *_span(min(known), max(known)), width, height)
    _grid(draw, axes)
    for step in state.lineage:
        for row, value in enumerate(step.scores):
            if row not in step.ancestors and not math.isnan(value):
                axes.dot(draw, step.scale, value, outline=MUTED)
    for values, founder in zip(scores, generations(state)[-1].founders, strict=True):
        points, colour = [(scale, value) for scale, value in enumerate(values) if not math.isnan(value)], family_colour(founder)
        if len(points) > 1:
            draw.line([(axes.x(scale), axes.y(value)) for scale, value in points], fill=colour, width=2, joint="curve")
        for point in points:
            axes.dot(draw, *point, fill=colour)
    return picture


def selection_chart(state: SearchState, width: int = 1024) -> Image.Image:
    """One bar per selection: effective sample size of the samples it chose from, and the decision in words."""
    told, line = generations(state), 46
    picture, draw = page(width, _TOP + max(1, len(told) - 1) * line + MARGIN, "Selections: effective sample size")
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


def _span(low: float, high: float) -> tuple[float, float]:
    pad = 0.08 * (high - low) or max(0.05, 0.05 * abs(high))
    return low - pad, high + pad


def _grid(draw: ImageDraw.ImageDraw, axes: _Axes) -> None:
    for value in _ticks(axes.low, axes.high):
        y = axes.y(value)
        draw.line((_LEFT, y, axes.width - MARGIN, y), fill=GRID)
        draw.text((_LEFT - 8, y), f"{value:g}", MUTED, font(13), anchor="rm")
    for scale in range(axes.scales):
        draw.text((axes.x(scale), axes.height - _BOTTOM + 10), str(scale), MUTED, font(13), anchor="ma")


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between the ends."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]
