"""Who descends from whom: the lineage of a state, told generation by generation."""

import math
from collections.abc import Sequence
from typing import NamedTuple

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
    steps = state.lineage
    counts = [len(steps[0].scores) if steps else state.samples, *(len(step.ancestors) for step in steps)]
    founders = [tuple(range(counts[0]))]
    for step in steps:
        founders.append(tuple(founders[-1][row] for row in step.ancestors))
    lives = _living(counts, [step.ancestors for step in steps])
    first = Generation(0, (), founders[0], lives[0], "started", float(counts[0]))
    kin = zip(steps, founders[1:], lives[1:], strict=True)
    return [first, *(Generation(step.scale + 1, step.ancestors, *those, step.reason, step.ess) for step, *those in kin)]


def _living(counts: Sequence[int], parents: Sequence[tuple[int, ...]]) -> list[tuple[bool, ...]]:
    alive = [tuple(True for _ in range(counts[-1]))]
    for count, rows in zip(reversed(counts[:-1]), reversed(parents), strict=True):
        used = {row for row, lives in zip(rows, alive[0], strict=True) if lives}
        alive.insert(0, tuple(row in used for row in range(count)))
    return alive


def latest_scores(state: SearchState) -> list[float | None]:
    """The last score of every living sample, None where it has none."""
    return [next((value for value in reversed(row) if not math.isnan(value)), None) for row in state.scores.tolist()]
