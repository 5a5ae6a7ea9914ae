"""Sampling within the memory there is: smaller groups when a scale does not fit, and a cap on keys and values.

A group of samples draws what its samples would have drawn in the whole batch (uniforms are keyed by row), so only bits
whose probability lies within rounding of their draw can come out differently (none of 150,528 bits of the bundled model
did, in groups of 1, 2, 3 or 4 instead of 8, or after replaying the cache).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..config import Sampling
from ..footprint import cache_bytes
from ..out_of_memory import first_that_fits, halving
from ..sampling import Part, branches_needed, check_candidates, check_through, sample
from ..selection import branching
from ..state import SearchState

MEBI = 2**20


class OutOfMemory(RuntimeError):
    """Not even one sample at a time fits; the message says what would."""


@dataclass(frozen=True)
class Sampler:
    """How scales are sampled: with what settings, in as many pieces as memory asks for.

    First all samples share one cache, in groups that are halved each time memory runs out. When single samples do not fit
    either, or the whole cache would pass the cap, whoever owns the state drops its cache and groups run one after another, each
    with keys and values of its own.

    sampling: the model's own by default. max_cache_bytes: cap on keys and values. float8_cache: store them in one byte per
    number. on_scale: called with the state, or with a group's state, after every scale; may raise to stop.
    """

    sampling: Sampling | None = None
    max_cache_bytes: int | None = None
    float8_cache: bool = False
    on_scale: Callable[[SearchState], None] | None = None

    def settings(self, state: SearchState) -> Sampling:
        """The settings that scales of this state are drawn with."""
        return self.sampling or state.model.config.sampling

    def check(self, state: SearchState) -> None:
        """Raise ValueError for settings the model cannot take, and for a cap too small for a single sample."""
        sampling, last = self.settings(state), len(state.schedule) - 1
        sampling.check(state.model.config.transformer.depth, range(state.next_scale, last + 1))
        branches = sampling.branches(last + 1)
        least = max(cache_bytes(state.model, state.schedule, at, count, self.float8_cache) for at, count in enumerate(branches))
        if self.max_cache_bytes is not None and self.max_cache_bytes < least:
            raise ValueError(
                f"keys and values are capped at {self.max_cache_bytes / MEBI:.2f} MiB and one sample of this schedule needs "
                f"{least / MEBI:.2f} MiB; raise the cap to at least that or choose a smaller pixel budget"
            )

    def advance(self, state: SearchState, through: int, candidates: int = 1) -> SearchState:
        """Sample through scale `through`; for whoever does not own the state, whose cache therefore stays in memory.

        candidates: of each sample, drawn at `through` from one forward pass, here and below.
        """
        state = self.together(state, through, candidates)
        return state if state.last_scale == through else self.in_turns(state, through, candidates)

    def together(self, state: SearchState, through: int, candidates: int = 1) -> SearchState:
        """Sample scales up to `through` while one cache of all samples fits: as far as memory allows.

        Raises ValueError as `sampling.sample` does.
        """
        sampling, size, policy = self.settings(state), state.samples, "float8" if self.float8_cache else "keep"
        check_through(state, through)
        check_candidates(candidates)
        if not self._fits_cap(state, through):
            return state
        while state.next_scale <= through:
            drawn = candidates if state.next_scale == through else 1
            one_scale = partial(sample, state, state.next_scale, sampling, cache_policy=policy, candidates=drawn)
            following, size = _fitting(lambda n, run=one_scale: run(group_size=n), size)
            if following is None:
                return state
            state = following
            if self.on_scale:
                self.on_scale(state)
        return state

    def in_turns(self, state: SearchState, through: int, candidates: int = 1) -> SearchState:
        """Sample through scale `through` group by group, each with keys and values of its own; the state returned has no cache.

        Raises OutOfMemory, saying what would fit, where a single sample does not.
        """
        state, reached = state.without_cache(), [state.last_scale]
        each = self._each(state, through)
        # what fits the cap has just run out of memory
        size = -(-state.samples // 2) if self._fits_cap(state, through) else max(1, self.max_cache_bytes // each)

        def ran(part: SearchState) -> None:
            reached.append(part.last_scale)
            if self.on_scale:
                self.on_scale(part)

        finished, _ = _fitting(lambda n: self._groups(state, through, n, ran, candidates), min(size, state.samples))
        if finished is None:
            raise OutOfMemory(_what_would_fit(state, max(reached) + 1))
        return finished

    def _fits_cap(self, state: SearchState, through: int) -> bool:
        return self.max_cache_bytes is None or state.samples * self._each(state, through) <= self.max_cache_bytes

    def _each(self, state: SearchState, through: int) -> int:
        branches = branches_needed(state, self.settings(state))
        return cache_bytes(state.model, state.schedule, through, branches, self.float8_cache)

    def _groups(self, state: SearchState, through: int, size: int, on_scale: Callable, candidates: int) -> SearchState:
        """Groups of `size` samples, one after another from `state` through `through`."""
        parts, policy = [], "float8" if self.float8_cache else "keep"
        for rows in torch.arange(state.samples).split(size):
            part, draws = state.select(rows.tolist())._replace(lineage=state.lineage), Part(rows.tolist(), state.samples)
            part = sample(
                part, through, self.settings(state), cache_policy=policy, on_scale=on_scale, part=draws, candidates=candidates
            )
            parts.append(part.without_cache())
        if candidates > 1:
            state = state._replace(next_scale=through).select(branching(state.samples, candidates))
        return state._replace(
            next_scale=through + 1,
            bits=tuple(_joined(scale, candidates) for scale in zip(*(part.bits for part in parts), strict=True)),
            features=_joined([part.features for part in parts], candidates),
            steps=parts[0].steps,
        )


def _joined(parts: Sequence[Tensor], candidates: int) -> Tensor:
    """Groups of samples with their candidates, each in the order of `selection.branching`, as one batch in that order."""
    return torch.cat([part.unflatten(0, (candidates, -1)) for part in parts], dim=1).flatten(0, 1)


def _fitting(attempt: Callable[[int], SearchState], size: int) -> tuple[SearchState | None, int]:
    """`attempt(size)` and the size that fitted, as `halving` finds it; None where a single sample does not fit."""
    return first_that_fits([lambda: halving(attempt, size), lambda: (None, 1)])


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
