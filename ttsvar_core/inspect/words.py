"""A state in words, for a text preview."""

import math
from itertools import pairwise

from ..rewards.base import answer_lines
from ..state import SearchState
from .family import generations


def describe(state: SearchState) -> str:
    """Prompt, progress, selections and scores of a state, one fact per line."""
    told = generations(state)
    lines = [
        f"prompt: {state.conditioning.prompt or '(none)'}",
        f"model: {state.model.name}, seed {state.seed}",
        f"scales: {state.next_scale} of {len(state.schedule)} done ({state.schedule})",
        f"samples: {state.samples} alive of {len(told[0].founders)} started",
        f"cache: {_cache(state)}",
    ]
    for before, after in pairwise(told):
        lines.append(
            f"after scale {after.since - 1}: {len(before.founders)} -> {len(after.founders)}, "
            f"kept {list(after.parents)}, ess {after.ess:.2f} ({after.reason})"
        )
    for row, values in enumerate(state.scores.tolist()):
        known = [f"{scale}: {value:.4f}" for scale, value in enumerate(values) if not math.isnan(value)]
        if known:
            lines.append(f"#{row} scores  " + "  ".join(known))
    if state.answers is not None:
        lines += [f"answers {line}" for line in answer_lines(state.answers)]
    return "\n".join(lines)


def _cache(state: SearchState) -> str:
    if state.cache is None:
        return "none; rebuilt from the bits when sampling goes on"
    return f"{state.cache.nbytes / 2**20:.1f} MiB of keys and values"
