"""Scale schedules: which grid of tokens each scale of a picture has.

Infinity draws a picture coarse to fine. A schedule lists the token grids from 1x1 up to the final one; the published models
know one schedule per aspect ratio, of which a smaller pixel budget uses a prefix.
"""

from __future__ import annotations

from dataclasses import dataclass

from .names import PIXEL_BUDGETS

Grid = tuple[int, int]

# Token grids (height x width) by height/width ratio, at 1M pixels. Source: the schedule table of the published models.
_TALL_GRIDS: dict[float, str] = {
    1.000: "1x1 2x2 4x4 6x6 8x8 12x12 16x16 20x20 24x24 32x32 40x40 48x48 64x64",
    1.250: "1x1 2x2 3x3 5x4 10x8 15x12 20x16 25x20 30x24 35x28 45x36 55x44 70x56",
    1.333: "1x1 2x2 4x3 8x6 12x9 16x12 20x15 24x18 28x21 36x27 48x36 60x45 72x54",
    1.500: "1x1 2x2 3x2 6x4 9x6 15x10 21x14 27x18 33x22 39x26 48x32 63x42 78x52",
    1.750: "1x1 2x2 3x3 7x4 11x6 14x8 21x12 28x16 35x20 42x24 56x32 70x40 84x48",
    2.000: "1x1 2x2 4x2 6x3 10x5 16x8 22x11 30x15 38x19 46x23 60x30 74x37 90x45",
    2.500: "1x1 2x2 5x2 10x4 15x6 20x8 25x10 30x12 40x16 50x20 65x26 80x32 100x40",
    3.000: "1x1 2x2 6x2 9x3 15x5 21x7 27x9 36x12 45x15 54x18 72x24 90x30 111x37",
}


def _parse(text: str) -> tuple[Grid, ...]:
    return tuple((int(h), int(w)) for h, w in (grid.split("x") for grid in text.split()))


def _all_ratios() -> dict[float, tuple[Grid, ...]]:
    grids = {ratio: _parse(text) for ratio, text in _TALL_GRIDS.items()}
    wide = {int(1000 / ratio) / 1000: tuple((w, h) for h, w in g) for ratio, g in grids.items() if ratio != 1.0}
    return dict(sorted({**grids, **wide}.items()))


_OFFICIAL_GRIDS = _all_ratios()
ASPECT_RATIOS = tuple(_OFFICIAL_GRIDS)


@dataclass(frozen=True)
class ScaleSchedule:
    """The token grids of one picture, and the grid its rotary positions are normalised by.

    ``grids`` holds (height, width) per scale, ``rope_grid`` the grid of the 1M schedule of the same aspect ratio (for a
    free schedule usually its own final grid). Raises ValueError for a schedule no model could run.
    """

    grids: tuple[Grid, ...]
    rope_grid: Grid

    def __post_init__(self) -> None:
        if not self.grids:
            raise ValueError("A scale schedule needs at least one scale; it has none.")
        for scale, grid in enumerate(self.grids):
            if len(grid) != 2 or min(grid) < 1:
                raise ValueError(f"Scale {scale} has the grid {grid}; expected two sides of at least 1.")
        if self.grids[0] != (1, 1):
            raise ValueError(f"The first scale is one token that stands for the prompt; expected 1x1, got {self.grids[0]}.")
        for scale, (before, after) in enumerate(zip(self.grids, self.grids[1:], strict=False), start=1):
            if after[0] < before[0] or after[1] < before[1]:
                raise ValueError(f"Scale {scale} has the grid {after}, smaller than {before} before it; grids must not shrink.")

    def __len__(self) -> int:
        return len(self.grids)

    @property
    def final(self) -> Grid:
        """Grid (height, width) of the last scale."""
        return self.grids[-1]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Number of tokens of every scale."""
        return tuple(h * w for h, w in self.grids)

    @property
    def total_tokens(self) -> int:
        """Number of tokens of all scales together."""
        return sum(self.tokens)

    def prefix(self, scales: int) -> ScaleSchedule:
        """The first ``scales`` scales, positions normalised as before."""
        return ScaleSchedule(self.grids[:scales], self.rope_grid)

    def __str__(self) -> str:
        return " ".join(f"{h}x{w}" for h, w in self.grids)


def nearest_ratio(height_over_width: float) -> float:
    """The published aspect ratio (height / width) nearest to the one asked for."""
    if not height_over_width > 0:
        raise ValueError(f"An aspect ratio is height / width and positive; got {height_over_width}.")
    return min(ASPECT_RATIOS, key=lambda ratio: abs(ratio - height_over_width))


def official(height_over_width: float = 1.0, pixel_budget: str = "1M") -> ScaleSchedule:
    """The published schedule for an aspect ratio (the nearest template is taken) and a pixel budget.

    Raises ValueError for an unknown budget. Source: the published models' schedule table.
    """
    if pixel_budget not in PIXEL_BUDGETS:
        raise ValueError(f"Unknown pixel budget {pixel_budget!r}; expected one of {', '.join(PIXEL_BUDGETS)}.")
    grids = _OFFICIAL_GRIDS[nearest_ratio(height_over_width)]
    return ScaleSchedule(grids[: PIXEL_BUDGETS[pixel_budget]], rope_grid=grids[-1])
