"""What a run did, scale by scale, as plain JSON values."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from .plan import Plan
from .selection import Selection

if TYPE_CHECKING:
    from ..scales import ScaleSchedule
    from .state import SearchState


class Hooks(NamedTuple):
    """What a host may want to be told while `run` runs; both entries may be None, and both may raise to stop the run.

    on_scale(record, state): a scale is done, selection included. record: its entry of the report. state: the latest
    whole state, from which the run can go on (keep it without its cache, or the memory stays taken).
    on_state(state): a scale was sampled for the samples of this state, which are all of them unless memory asked for
    groups; before anything selects among them.
    """

    on_scale: Callable | None = None
    on_state: Callable | None = None


class Recorder:
    """Fills the report of one run and calls its hooks. The only thing in a search that changes."""

    def __init__(self, plan: Plan, schedule: ScaleSchedule, hooks: Hooks | None):
        self.scales = [_empty(plan, schedule, scale) for scale in range(len(schedule))]
        self._plan = plan
        self._hooks = hooks or Hooks()
        self._told = 0
        self._cache_bytes = 0
        self._clock = time.perf_counter()

    @contextmanager
    def stage(self, scale: int, name: str):
        """Adds the seconds spent inside to stage `name` of a scale."""
        start = time.perf_counter()
        yield
        seconds = self.scales[scale]["seconds"]
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
        self._clock = time.perf_counter()

    def ran(self, part: SearchState) -> None:
        """A scale was sampled for the samples of `part`, a state."""
        record = self.scales[part.last_scale]
        now = time.perf_counter()
        record["seconds"]["sample"] = record["seconds"].get("sample", 0.0) + now - self._clock
        self._clock = now
        held = self._cache_bytes if part.cache is None else part.cache.nbytes  # the last scale reads, stores nothing
        record["cache_bytes"] = max(record["cache_bytes"], held)
        self._cache_bytes = held
        if part.samples == self._plan.running(part.last_scale) and not self._plan.stops(part.last_scale):
            self.done(part)
        if self._hooks.on_state:
            self._hooks.on_state(part)
        self._clock = time.perf_counter()

    def decoded(self, scale: int) -> None:
        """The samples were decoded after a scale."""
        self.scales[scale]["decodes"] += 1

    def scored(self, state: SearchState) -> None:
        """The samples were scored at the state's last scale."""
        self.scales[state.last_scale]["scores"] = list(state.scores_at(state.last_scale))

    def selected(self, state: SearchState, selection: Selection) -> None:
        """A selection made `state` at its last scale."""
        self.scales[state.last_scale].update(
            ancestors=selection.ancestors.tolist(), ess=selection.ess, reason=selection.reason
        )

    def done(self, state: SearchState) -> None:
        """`state` is whole and nothing is due at its last scale: tell the host about every scale finished since."""
        self._cache_bytes = 0 if state.cache is None else state.cache.nbytes
        while self._told < state.next_scale:
            record = self.scales[self._told]
            self._told += 1
            if self._hooks.on_scale:
                self._hooks.on_scale(record, state)
        self._clock = time.perf_counter()


def _empty(plan: Plan, schedule: ScaleSchedule, scale: int) -> dict:
    samples, tokens = plan.running(scale), schedule.tokens[scale]
    return {
        "scale": scale,
        "grid": list(schedule.grids[scale]),
        "samples": samples,
        "tokens": tokens,
        "token_forwards": samples * tokens,
        "seconds": {},
        "cache_bytes": 0,
        "decodes": 0,
        "scores": None,
        "ancestors": None,
        "ess": None,
        "reason": None,
    }


def descent(state: SearchState, row: int) -> list[dict]:
    """The selections a living sample came through, first to last: the row it had before each and the row after."""
    steps = []
    for step in reversed(state.lineage):
        before = int(step.ancestors[row])
        steps.append({"scale": step.scale, "row_before": before, "row_after": row, "reason": step.reason})
        row = before
    return steps[::-1]


def answer(state: SearchState, row: int) -> dict:
    """The entry of the report about the sample that is the answer: row, score, rewards on the way, and lineage."""
    history = {str(scale): value for scale, value in enumerate(state.scores[row].tolist()) if not math.isnan(value)}
    score = state.scores_at(state.last_scale)[row]
    return {
        "sample": row,
        "score": None if math.isnan(score) else score,
        "score_history": history,
        "lineage": descent(state, row),
    }
