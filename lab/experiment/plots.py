"""The figures of a report, as PNG bytes. Matplotlib is only needed here; no window, no global state."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from .stats import Interval
from .tables import ArmRow, Consistency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#3b6ea5", "#d1822b", "#4a9a5b", "#a24a7d", "#7a6bb0", "#888888")
_MUTED = "#777777"


def available() -> bool:
    """Whether figures can be drawn at all."""
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None


def _drawn(draw: Callable[..., Figure]) -> Callable[..., bytes]:
    """Makes PNG bytes of what a function draws; none where nothing can be drawn."""

    @wraps(draw)
    def png(*given: Any) -> bytes:
        buffer = io.BytesIO()
        if available():
            draw(*given).savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()

    return png


@_drawn
def curves(rows: dict[str, list[ArmRow]], metrics: tuple[str, ...], axis: str) -> Figure:
    """One panel per metric, one line per way of searching. axis: "samples" (N, from the arms' names), "images",
    "flops" or "seconds"."""
    title, place = {
        "samples": ("N", lambda arm: float(arm.name.rpartition("-")[2])),
        "images": ("token-forwards, in whole images", lambda arm: arm.images),
        "flops": ("GFLOP, of every network that runs", lambda arm: arm.flops / 1e9),
        "seconds": ("seconds", lambda arm: arm.seconds),
    }[axis]
    figure, panels = _panels(len(metrics))
    for panel, metric in zip(panels, metrics, strict=True):
        for colour, (label, arms) in zip(COLOURS, rows.items(), strict=False):
            _band(panel, list(map(place, arms)), [arm.metrics[metric] for arm in arms], colour, label)
        _dress(panel, title, metric, log=True)
    panels[0].legend(frameon=False, fontsize=8)
    return figure


@_drawn
def differences(found: dict[str, Interval], metric: str) -> Figure:
    """Differences with their intervals, one line per comparison."""
    figure, (panel,) = _panels(1, height=0.9 + 0.28 * len(found))
    panel.axvline(0, color=_MUTED, linewidth=0.8)
    for place, one in enumerate(reversed(found.values())):
        colour = COLOURS[2] if one.low > 0 else COLOURS[1] if one.high < 0 else COLOURS[5]
        panel.plot([one.low, one.high], [place, place], color=colour, linewidth=2)
        panel.plot([one.mean], [place], "o", color=colour, markersize=4)
    panel.set_yticks(range(len(found)), list(reversed(found)), fontsize=7)
    _dress(panel, f"difference in {metric}", "", log=False)
    return figure


@_drawn
def consistency(found: Consistency, scales: int) -> Figure:
    """Left: how often the best sample of a scale is the best in the end. Right: what VALUE's pick gains in the end."""
    figure, (left, right) = _panels(2)
    for colour, (kind, hits) in zip(COLOURS, found.hits.items(), strict=False):
        _band(left, list(hits), list(hits.values()), colour, kind.upper())
    left.axhline(found.chance.mean, color=_MUTED, linestyle="--", linewidth=0.8, label="chance")
    _band(right, list(found.gain), list(found.gain.values()), COLOURS[0], "picked by VALUE")
    right.axhline(0, color=_MUTED, linestyle="--", linewidth=0.8, label="picked blindly")
    right.axhline(found.most.mean, color=_MUTED, linestyle=":", linewidth=0.8, label="the best in the end")
    for panel, title in ((left, "best there is best in the end"), (right, "final score above a blind pick's")):
        _dress(panel, "scale", title, log=False)
        panel.set_xlim(-0.3, scales - 1.7)
        panel.legend(frameon=False, fontsize=8)
    return figure


def _panels(count: int, height: float = 3.4) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * count if count > 1 else 6.4, height), dpi=120, layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _band(panel: Any, where: list[float], values: list[Interval], colour: str, label: str) -> None:
    panel.plot(where, [interval.mean for interval in values], "o-", color=colour, label=label, markersize=3.5, linewidth=1.4)
    low, high = ([getattr(interval, end) for interval in values] for end in ("low", "high"))
    panel.fill_between(where, low, high, color=colour, alpha=0.13, linewidth=0)


def _dress(panel: Any, x: str, y: str, log: bool) -> None:
    from matplotlib.ticker import ScalarFormatter

    if log:
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(ScalarFormatter())
    panel.set_xlabel(x, fontsize=9)
    panel.set_ylabel(y, fontsize=9)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25, linewidth=0.5)
