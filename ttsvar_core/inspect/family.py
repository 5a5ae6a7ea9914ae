"""Who descends from whom: the lineage of a state, told generation by generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..state import SearchState


class Generation(NamedTuple):
    """The samples alive between two selections.

    ``since`` is the first scale they ran, ``parents`` the row each had in the generation before (empty for the first),
    ``founders`` the row of its first ancestor, ``lives`` whether it has a descendant in the last generation.
    """

    since: int
    parents: tuple[int, ...]
    founders: tuple[int, ...]
    lives: tuple[bool, ...]
    reason: str
    ess: float


def generations(state: SearchState) -> list[Generation]:
    """All generations of a state, the first one first."""
    parents = [tuple(int(row) for row in step.ancestors) for step in state.lineage]
    counts = [len(state.lineage[0].scores) if state.lineage else state.samples, *(len(rows) for rows in parents)]
    founders = [tuple(range(counts[0]))]
    for rows in parents:
        founders.append(tuple(founders[-1][row] for row in rows))
    lives = _living(counts, parents)
    since = [0, *(step.scale + 1 for step in state.lineage)]
    words = [("started", float(counts[0])), *((step.reason, float(step.ess)) for step in state.lineage)]
    columns = zip(since, [(), *parents], founders, lives, words, strict=True)
    return [Generation(start, rows, first, alive, *said) for start, rows, first, alive, said in columns]


def _living(counts: Sequence[int], parents: Sequence[tuple[int, ...]]) -> list[tuple[bool, ...]]:
    alive = [tuple(True for _ in range(counts[-1]))]
    for count, rows in zip(reversed(counts[:-1]), reversed(parents), strict=True):
        used = {row for row, lives in zip(rows, alive[0], strict=True) if lives}
        alive.insert(0, tuple(row in used for row in range(count)))
    return alive


def latest_scores(state: SearchState) -> list[float | None]:
    """The last score of every living sample, None where it has none."""
    import math

    latest: list[float | None] = []
    for row in state.scores.tolist():
        known = [value for value in row if not math.isnan(value)]
        latest.append(known[-1] if known else None)
    return latest
