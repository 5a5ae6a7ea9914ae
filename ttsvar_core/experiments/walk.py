"""Run many plans for one prompt and seed, doing what several of them share only once.

Plans with equal samples do the same operations in the same shapes until their selections differ, so they are walked as a tree:
a branch is a sequence of scales, scores and selections that at least one plan asks for. States are values, so branches share
the past. Every arm ends with the bits `search.run.run` gives it, to the last one; a test compares.

The one exception is Best-of-N for several N: the smaller ones are the first rows of the largest batch. They have the draws of
a batch of their own, so only a bit whose probability lies within rounding of its draw can differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ..decoding import decode
from ..infinity.cache import compact
from ..sampling import sample
from ..search.plan import Plan, PotentialSelector, Selector
from ..search.select import cluster_select, potential_select, score
from ..search.state import SearchState, start
from .arms import Arm
from .world import World

if TYPE_CHECKING:
    from ..infinity.text import Conditioning


class Finished(NamedTuple):
    """The samples one arm ended with. scores: (P,) by the reward it searched with. batch: the arm that sampled them."""

    state: SearchState
    images: Tensor
    scores: Tensor
    batch: str

    def first(self, samples: int) -> Finished:
        """The first ``samples`` rows, as a Best-of-N of that many."""
        return Finished(self.state.select(range(samples)), self.images[:samples], self.scores[:samples], self.batch)


class _Step(NamedTuple):
    """What one arm does after one scale; arms with equal steps stay together."""

    reward: str | None
    selector: Selector | None
    keep: int
    extractor: str | None


def walk(world: World, conditioning: Conditioning, seed: int, arms: Iterable[Arm]) -> dict[str, Finished]:
    """Every arm's finished samples, by its name."""
    arms = list(arms)
    rows_of = _pooled(arms)
    alone = [arm for arm in arms if arm.name not in rows_of]
    done: dict[str, Finished] = {}
    for samples in dict.fromkeys(arm.plan.samples for arm in alone):
        group = [arm for arm in alone if arm.plan.samples == samples]
        _descend(world, start(world.model, conditioning, samples, seed, world.schedule), group, done)
    for arm in arms:
        if arm.name in rows_of:
            done[arm.name] = done[rows_of[arm.name]].first(arm.plan.samples)
    return {arm.name: done[arm.name] for arm in arms}


def _pooled(arms: list[Arm]) -> dict[str, str]:
    """For every Best-of-N arm that is not the largest of its kind, the arm whose first rows it is."""
    found: dict[tuple, list[Arm]] = {}
    for arm in arms:
        if not arm.plan.selectors:
            found.setdefault((arm.reward, arm.plan.score_at), []).append(arm)
    largest = {kind: max(group, key=lambda arm: arm.plan.samples) for kind, group in found.items()}
    return {arm.name: largest[kind].name for kind, group in found.items() for arm in group if arm != largest[kind]}


def _descend(world: World, state: SearchState, arms: list[Arm], done: dict[str, Finished]) -> None:
    """Sample the next scale, take every step some arm asks for there, and go on with each."""
    state = sample(state, state.next_scale, world.sampling)
    scale = state.last_scale
    branches: dict[_Step, list[Arm]] = {}
    for arm in arms:
        branches.setdefault(_step(arm, scale), []).append(arm)
    images = decode(state) if any(_looks(world, step) for step in branches) else None
    scored: dict[str | None, SearchState] = {None: state}
    for step, group in branches.items():
        if step.reward is not None and step.reward not in scored:
            scored[step.reward] = score(state, _named(world.rewards, step.reward), images)[0]
        selected, rows = _select(world, scored[step.reward], step, images)
        if selected.finished:
            shown = images if rows is None else images[rows]
            done.update((arm.name, Finished(selected, shown, selected.scores[:, -1], group[0].name)) for arm in group)
        else:
            _descend(world, selected, group, done)


def _step(arm: Arm, scale: int) -> _Step:
    plan: Plan = arm.plan
    return _Step(
        arm.reward if plan.scores(scale) else None, plan.selector(scale), plan.survivors[scale],
        arm.extractor if plan.clusters(scale) else None,
    )


def _looks(world: World, step: _Step) -> bool:
    clusters = step.extractor is not None and _named(world.extractors, step.extractor).looks_at == "images"
    return step.reward is not None or clusters


def _select(world: World, state: SearchState, step: _Step, images: Tensor | None) -> tuple[SearchState, Tensor | None]:
    """The survivors, and their rows (None: nothing was selected)."""
    if step.selector is None:
        return state, None
    if isinstance(step.selector, PotentialSelector):
        state, selection = potential_select(state, step.keep, **step.selector.settings())
    else:
        extractor = None if step.extractor is None else _named(world.extractors, step.extractor)
        state, selection = cluster_select(state, extractor, step.keep, images)
    if state.cache is not None:
        state = state._replace(cache=compact(list(state.cache.chunks)))
    return state, selection.ancestors


def _named(things, name: str):
    """The one called ``name``; the first one for an empty name. Raises ValueError for a name that is not there."""
    if name and name not in things:
        raise ValueError(f"an arm asks for {name!r}; this world has {', '.join(things)}")
    return things[name] if name else next(iter(things.values()))
