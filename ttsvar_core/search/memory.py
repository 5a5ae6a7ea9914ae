"""Sampling within the memory there is: smaller groups when a scale does not fit, and a cap on keys and values.

A group of samples draws what its samples would have drawn in the whole batch (uniforms are keyed by row), so only bits
whose probability lies within rounding of their draw can come out differently (none of 150,528 bits of the bundled model
did, in groups of 1, 2, 3 or 4 instead of 8, or after replaying the cache).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..config import Sampling
from ..image_model import ImageModel
from ..out_of_memory import empty_cache, is_out_of_memory
from ..sampling import CachePolicy, branches_needed, sample
from ..scales import ScaleSchedule
from .state import SearchState

MEBI = 2**20


class OutOfMemory(RuntimeError):
    """Not even one sample at a time fits; the message says what would."""


def cache_bytes(
    model: ImageModel, schedule: ScaleSchedule, through: int, branches: int = 2, float8: bool = False
) -> int:
    """Bytes of keys and values one sample holds after scale `through` with `branches` guidance branches.

    Two (keys, values) per layer, of the model's width and precision (or one byte), for every token so far; the last scale
    stores none.
    """
    config = model.config.transformer
    tokens = sum(schedule.tokens[: min(through + 1, len(schedule) - 1)])
    return 2 * config.depth * branches * tokens * config.embed_dim * (1 if float8 else model.transformer.dtype.itemsize)


def check_cap(
    model: ImageModel, schedule: ScaleSchedule, sampling: Sampling, max_cache_bytes: int | None, float8: bool = False
) -> None:
    """Raise ValueError when the cap is too small for a single sample."""
    least = cache_bytes(model, schedule, len(schedule) - 1, 2 if sampling.guides() else 1, float8)
    if max_cache_bytes is not None and max_cache_bytes < least:
        raise ValueError(
            f"keys and values are capped at {max_cache_bytes / MEBI:.2f} MiB and one sample of this schedule needs "
            f"{least / MEBI:.2f} MiB; raise the cap to at least that or choose a smaller pixel budget"
        )


def fits_cap(
    state: SearchState, through: int, sampling: Sampling, max_cache_bytes: int | None, float8: bool = False
) -> bool:
    """Whether all samples together may hold their keys and values through a scale."""
    each = cache_bytes(state.model, state.schedule, through, branches_needed(state, sampling), float8)
    return max_cache_bytes is None or state.samples * each <= max_cache_bytes


def sample_within(
    held: list[SearchState],
    through: int,
    sampling: Sampling | None = None,
    *,
    max_cache_bytes: int | None = None,
    float8_cache: bool = False,
    group_size: int | None = None,
    on_scale: Callable[[SearchState], None] | None = None,
) -> SearchState:
    """`sampling.sample` through scale `through` of the one state in `held`, in as many pieces as memory asks for.

    First all samples (or groups of `group_size`) share one cache; on running out of memory the groups are halved down to
    single samples. When those do not fit either, or the whole cache would pass `max_cache_bytes`, groups run one after
    another through all the scales asked for, each with keys and values of its own (replayed first, dropped after); the
    state returned then has no cache. `held` is emptied: where nobody else holds that state, its cache is freed before groups
    run one after another.
    float8_cache: store keys and values in one byte per number. on_scale: called with the state, or with a group's state,
    after every scale. Raises OutOfMemory, saying what would fit, and ValueError as `sample` does.
    """
    state = held.pop()
    sampling = sampling or state.model.config.sampling
    if not state.next_scale <= through < len(state.schedule):
        return sample(state, through, sampling)  # which says what is wrong with `through`
    shares_cache = fits = fits_cap(state, through, sampling, max_cache_bytes, float8_cache)
    policy = "float8" if float8_cache else "keep"
    while shares_cache and state.next_scale <= through:
        following, group_size = _halving(_one_scale(sampling, policy), state, group_size)
        shares_cache = following is not None
        state = following if shares_cache else state
        if shares_cache and on_scale:
            on_scale(state)
    if state.next_scale > through:
        return state
    state = state.without_cache()
    each = cache_bytes(state.model, state.schedule, through, branches_needed(state, sampling), float8_cache)
    size = -(-state.samples // 2) if fits else max(1, max_cache_bytes // each)  # what fits the cap has just run out of memory
    reached = [state.last_scale]

    def ran(part: SearchState) -> None:
        reached.append(part.last_scale)
        if on_scale:
            on_scale(part)

    finished, _ = _halving(lambda s, n: _in_turns(s, through, sampling, policy, n, ran), state, size)
    if finished is None:
        raise OutOfMemory(_what_would_fit(state, max(reached) + 1))
    return finished


def _one_scale(sampling: Sampling, policy: CachePolicy) -> Callable:
    return lambda state, size: sample(state, state.next_scale, sampling, cache_policy=policy, group_size=size)


def _halving(attempt: Callable, state: SearchState, size: int | None) -> tuple[SearchState | None, int | None]:
    """`attempt(state, size)` and the size that fitted, halved each time memory runs out; None when one sample did not."""
    while True:
        try:
            return attempt(state, size), size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        empty_cache()
        size = min(size or state.samples, state.samples)
        if size == 1:
            return None, size
        size = -(-size // 2)


def _in_turns(
    state: SearchState, through: int, sampling: Sampling, policy: CachePolicy, size: int, on_scale: Callable
) -> SearchState:
    """Groups of `size` samples, one group after another from `state` through `through`; the result has no cache."""
    parts = []
    for rows in torch.arange(state.samples).split(size):
        part = state.select(rows.tolist())._replace(lineage=state.lineage)
        part = sample(part, through, sampling, cache_policy=policy, on_scale=on_scale, slots=rows.tolist())
        parts.append(part.without_cache())
    return state._replace(
        next_scale=through + 1,
        bits=tuple(torch.cat(scale) for scale in zip(*(part.bits for part in parts), strict=True)),
        features=torch.cat([part.features for part in parts]),
        steps=parts[0].steps,
    )


def _what_would_fit(state: SearchState, scale: int) -> str:
    """The message of OutOfMemory at `scale`: what it takes, and which smaller thing has fitted already."""
    model, schedule = state.model, state.schedule
    height, width = schedule.grids[scale]
    each = cache_bytes(model, schedule, scale) / MEBI
    done = f"a schedule that ends at scale {scale - 1} ({schedule.prefix(scale)}) fits" if scale else "no scale fits"
    return (
        f"scale {scale} ({height}x{width} tokens) does not fit in memory, not even one sample at a time; its keys and "
        f"values alone take {each:.1f} MiB per sample with guidance. What would fit: {done}; otherwise a smaller pixel "
        f"budget, weights in half precision, or a smaller model."
    )
