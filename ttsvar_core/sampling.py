"""Sampling: draw the bits of one scale after another, replay a state without its cache.

Bits are drawn in closed form from uniforms keyed by (seed, scale, row); see rng.py. The same operations in the same shapes give
the same bits; another grouping of the batch uses the same draws, so only a bit whose probability lies within rounding of its
draw can differ.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .bsq.bits import empty_features, fuse
from .certainty import solve_tau
from .config import Sampling, StepSampling
from .infinity.cache import Chunk, KVCache, merge
from .names import CACHE_POLICIES
from .quantize import check_float8
from .rng import uniforms
from .selection import branching
from .state import SearchState
from .threads import threads_for

_REMEDY = "Are the transformer's weights sound?", "Take another precision than float16, whose range may be too small here."


class Part(NamedTuple):
    """Which ``rows`` of a state of ``samples`` the samples of a smaller one are: they draw what these would."""

    rows: Sequence[int]
    samples: int

    def slots(self, candidates: int) -> list[int]:
        """The rows of their candidates in the larger state, once all of it has branched; see `selection.branching`."""
        return [copy * self.samples + row for copy in range(candidates) for row in self.rows]


def draw_bits(logits: Tensor, draws: Tensor, top_p: float) -> Tensor:
    """Bits (P, L, Z) uint8 from logits (P, L, Z, 2) and uniforms (P, L, Z).

    The probability of a set bit is the sigmoid of the logit difference; where the less likely value has at most 1 - top_p, it is
    never drawn (nucleus sampling over two values).
    """
    p = torch.sigmoid(logits[..., 1] - logits[..., 0])
    certain = torch.minimum(p, 1 - p) <= 1 - top_p
    p = torch.where(certain, (p >= 0.5).to(p.dtype), p)
    return (draws.to(p.device) < p).to(torch.uint8)


def sample(
    state: SearchState,
    through: int,
    sampling: Sampling | None = None,
    *,
    cache_policy: str = "keep",
    group_size: int | None = None,
    on_scale: Callable[[SearchState], None] | None = None,
    part: Part | None = None,
    candidates: int = 1,
) -> SearchState:
    """Sample scales ``state.next_scale`` .. ``through`` (0-based, inclusive) and return the new state.

    ``sampling`` defaults to the model's; ``cache_policy`` says what the new state keeps of its keys and values: all where they
    are, all in one byte per number, all moved to the CPU, or none. ``group_size`` runs the samples in groups of that size, with
    the same draws; ``part`` says whose draws the samples use where a part of a larger state runs alone. ``on_scale`` is called
    with the state after every scale and may raise to stop.

    ``candidates`` of each sample are drawn at scale ``through``, from the logits and with the keys and values of one forward
    pass: what a scale computes depends on the bits before it, not on its own. The first of each is what is drawn without
    branching; their order is that of `selection.branching`. Source: LSRS, arXiv 2512.03796.

    Raises ValueError for a scale that is already sampled or does not exist, for fewer than one candidate, and for float8 where
    the device has none.
    """
    sampling = sampling or state.model.config.sampling
    check_through(state, through)
    if cache_policy not in CACHE_POLICIES:
        raise ValueError(f"Unknown cache policy {cache_policy!r}; expected one of {', '.join(CACHE_POLICIES)}.")
    check_candidates(candidates)
    float8 = cache_policy == "float8"
    if float8:
        check_float8(state.model.transformer.device)
    sampling.check(state.model.config.transformer.depth, range(state.next_scale, through + 1))
    with torch.inference_mode():
        while state.next_scale <= through:
            branches = branches_needed(state, sampling)
            state = with_cache(state, branches, group_size, float8)
            drawn = candidates if state.next_scale == through else 1
            state = _sample_scale(state, sampling.at(state.next_scale), branches, group_size, part, float8, drawn)
            if on_scale:
                on_scale(state)
    return _apply_policy(state, cache_policy)


def branches_needed(state: SearchState, sampling: Sampling) -> int:
    """Guidance branches of the scales to come: 2 until guidance has ended for good, 1 from then on."""
    return 2 if sampling.guides(state.next_scale) else 1


def with_cache(state: SearchState, branches: int, group_size: int | None = None, float8: bool = False) -> SearchState:
    """The state with a cache of ``branches`` guidance branches on the transformer's device.

    A second branch that is not needed any more is left out; replayed only where there is no cache or a branch is missing.
    """
    if state.finished:
        return state
    if state.next_scale == 0:
        return state._replace(cache=KVCache())
    if state.cache is None or state.cache.branches < branches:
        return replay(state, branches, group_size, float8)
    cache = state.cache if state.cache.branches == branches else state.cache.first_branch()
    return state._replace(cache=cache.to(state.model.transformer.device))


def replay(
    state: SearchState, branches: int | None = None, group_size: int | None = None, float8: bool = False
) -> SearchState:
    """Rebuild the keys and values of a state from its bits: equal to the dropped ones to rounding.

    ``branches`` defaults to 2 if any finished scale was guided, otherwise 1; ``float8`` stores one byte per number. Scales
    guided at an inner layer, and those before them, run with both branches in any case: the second one takes part in the keys
    and values of the first.
    """
    if branches is None:
        branches = 2 if any(step.guidance != 1 for step in state.steps) else 1
    model, cache = state.model, KVCache()
    features = empty_features(state.samples, state.features.shape[1], state.schedule, model.patchify)
    within = max((i for i, step in enumerate(state.steps) if step.guidance != 1 and any(step.guidance_layers)), default=-1)
    with torch.inference_mode():
        for scale, (bits, step) in enumerate(zip(state.bits, state.steps, strict=True)):
            if scale == len(state.schedule) - 1:
                break
            both = 2 if scale <= within else branches
            cache = cache.first_branch() if cache.branches > both else cache
            partial = state._replace(features=features.to(bits.device), next_scale=scale, cache=cache)
            _, chunk = _forward_groups(partial, step, both, group_size)
            cache = cache.append(chunk.in_float8() if float8 else chunk)
            features = fuse(partial.features, bits, scale, state.schedule, model.patchify)
    return state._replace(cache=cache.first_branch() if cache.branches > branches else cache)


def _sample_scale(
    state: SearchState, step: StepSampling, branches: int, group_size: int | None, part: Part | None, float8: bool,
    candidates: int,
) -> SearchState:
    scale, schedule = state.next_scale, state.schedule
    logits, chunk = _forward_groups(state, step, branches, group_size)
    slots = (part or Part(range(state.samples), state.samples)).slots(candidates)
    draws = uniforms(state.seed, scale, slots, tuple(logits.shape[1:-1]))  # while a card computes
    if not bool(torch.isfinite(logits).all()):
        remedy = _REMEDY[state.model.transformer.dtype == torch.float16]
        raise FloatingPointError(f"The logits of scale {scale} are not finite. {remedy}")
    if step.certainty is not None:
        logits = logits / solve_tau(logits, step.certainty)[:, None, None, None]
    if candidates > 1:
        copies = branching(state.samples, candidates)
        rows = copies.ancestors.to(logits.device)
        state, logits, chunk = state.select(copies), logits[rows], chunk.select(rows)
    bits = draw_bits(logits, draws, step.top_p)
    last = scale == len(schedule) - 1
    return state._replace(
        next_scale=scale + 1,
        bits=(*state.bits, bits),
        features=fuse(state.features.to(bits.device), bits, scale, schedule, state.model.patchify),
        cache=None if last else state.cache.append(chunk.in_float8() if float8 else chunk),
        steps=(*state.steps, step),
    )


def _forward_groups(state: SearchState, step: StepSampling, branches: int, group_size: int | None) -> tuple[Tensor, Chunk]:
    """``forward_scale`` for all samples, or group by group: the logits (P, L, Z, 2) and the scale's chunk."""
    text = state.text.to(state.model.transformer.device).branches(branches)
    logits, chunks = [], []
    for rows in _groups(state.samples, group_size):
        whole = len(rows) == state.samples
        features = state.features if whole else state.features[rows.to(state.features.device)]
        past = state.cache if whole else state.cache.select(rows)
        with threads_for(state.model.transformer, len(rows) * branches * state.schedule.tokens[state.next_scale]):
            part, chunk = state.model.transformer.forward_scale(features, state.next_scale, state.schedule, text, past, step)
        logits.append(part)
        chunks.append(chunk)
    return torch.cat(logits), merge(chunks)


def _groups(samples: int, group_size: int | None) -> Iterator[Tensor]:
    if group_size is not None and group_size < 1:
        raise ValueError(f"A group holds at least one sample; got {group_size}.")
    yield from torch.arange(samples).split(group_size or samples)


def _apply_policy(state: SearchState, policy: str) -> SearchState:
    if state.cache is None or policy == "keep":
        return state
    if policy == "drop":
        return state.without_cache()
    return state._replace(cache=state.cache.in_float8() if policy == "float8" else state.cache.to("cpu"))


def check_through(state: SearchState, through: int) -> None:
    """Raise ValueError for a scale that is sampled already or does not exist."""
    last = len(state.schedule) - 1
    if state.finished:
        raise ValueError(f"All {last + 1} scales are sampled already; decode the state instead.")
    if not state.next_scale <= through <= last:
        why = f"{last} is the last" if through > last else f"scale {through} is sampled already"
        ahead = f"{last}" if state.next_scale == last else f"{state.next_scale} to {last}"
        raise ValueError(f"Cannot sample through scale {through}: {why}. Name {ahead} instead.")


def check_candidates(candidates: int) -> None:
    """Raise ValueError for fewer than one."""
    if candidates < 1:
        raise ValueError(f"{candidates} candidates of each sample; draw at least 1 (1: no branching).")
