"""What a run did, scale by scale, as plain JSON values."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .plan_file import to_json

if TYPE_CHECKING:
    from ..scales import ScaleSchedule
    from ..selection import Selection
    from ..state import SearchState
    from .plan import Plan
    from .run import Step

PARTS = ("sample", "decode", "describe", "score", "select")  # of a scale's seconds


class Meter:
    """Listens to a search and keeps a record per scale: `sampled` is called while scales are sampled, `acted` with every step."""

    def __init__(self, plan: Plan, schedule: ScaleSchedule, on_scale: Callable[[SearchState], None] | None = None):
        self.scales = [_empty(plan, schedule, scale) for scale in range(len(schedule))]
        self._on_scale, self._cache_bytes = on_scale, 0
        self._clock = time.perf_counter()

    def sampled(self, part: SearchState) -> None:
        """A scale was sampled for the samples of `part`; all of them, unless memory asked for groups."""
        record, now = self.scales[part.last_scale], time.perf_counter()
        record["seconds"]["sample"] = record["seconds"].get("sample", 0.0) + now - self._clock
        held = self._cache_bytes if part.cache is None else part.cache.nbytes  # the last scale reads, stores nothing
        record["cache_bytes"] = max(record["cache_bytes"], held)
        self._cache_bytes = held
        if self._on_scale:
            self._on_scale(part)
        self._clock = time.perf_counter()

    def acted(self, step: Step) -> None:
        """The search came to a stage, or to its end."""
        record = self.scales[step.state.last_scale]
        record["decodes"] = int(step.decoded > 0)
        record["seconds"] |= {name: value for name, value in step.seconds.items() if name != "sample"}
        if not math.isnan(step.before[0]):
            record["scores"] = list(step.before)
        if step.answers is not None:
            record["answers"] = step.answers.table()
        if step.selections:
            record.update(_told(step.selections))
        self._cache_bytes = step.cache_bytes
        self._clock = time.perf_counter()


def _empty(plan: Plan, schedule: ScaleSchedule, scale: int) -> dict:
    samples, tokens = plan.running(scale), schedule.tokens[scale]
    return {
        "scale": scale,
        "grid": list(schedule.grids[scale]),
        "samples": samples,
        "candidates": plan.candidates(scale),
        "tokens": tokens,
        "token_forwards": samples * tokens,
        "seconds": {},
        "cache_bytes": 0,
        "decodes": 0,
        "scores": None,
        "answers": [],
        "ancestors": None,
        "ess": None,
        "reason": None,
    }


def _told(selections: tuple[Selection, ...]) -> dict:
    """The selections after one scale as one: rows before the first of them, the last one's weights, all reasons."""
    rows = selections[0].ancestors
    for following in selections[1:]:
        rows = rows[following.ancestors]
    return {
        "ancestors": rows.tolist(),
        "ess": selections[-1].ess,
        "reason": "; then ".join(selection.reason for selection in selections),
    }


def report(meter: Meter, state: SearchState, row: int, plan: Plan, names: dict[str, str | None]) -> dict:
    """The report of a run that ended in `state` with the answer in `row`; names: of the reward and the extractor."""
    return {
        "prompt": state.conditioning.prompt,
        "negative_prompt": state.conditioning.negative_prompt,
        "model": {"name": state.model.name, "fingerprint": state.model.fingerprint},
        "seed": state.seed,
        "plan": to_json(plan),
        **names,
        "sampling": [{**step._asdict(), "guidance_layers": list(step.guidance_layers)} for step in state.steps],
        "token_forwards": sum(scale["token_forwards"] for scale in meter.scales),
        "decodes": sum(scale["decodes"] for scale in meter.scales),
        "peak_cache_bytes": max(scale["cache_bytes"] for scale in meter.scales),
        "seconds": sum(sum(scale["seconds"].values()) for scale in meter.scales),
        "seconds_by_part": {part: sum(scale["seconds"].get(part, 0.0) for scale in meter.scales) for part in PARTS},
        "scales": meter.scales,
        "answer": answer(state, row),
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
