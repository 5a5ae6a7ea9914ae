"""Run many plans for one prompt and seed, doing what several of them share only once.

Each arm is a `search.run.run` of its own, so its bits are those that any user gets. They share the functions it samples, decodes
and scores with, which remember: states of the same past are sampled on only once. Arms that share much follow one another, and
only the latest states are remembered, so memory holds little more than one arm's.

The one exception is Best-of-N for several N: the smaller ones are the first rows of the largest batch. They have the draws of
a batch of their own, so only a bit whose probability lies within rounding of its draw can differ. Where an experiment asks for it
the same holds of all samples that nothing has selected yet, whatever comes after.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from lab.benchmark.clock import timed
from ttsvar_core.decoding import sketch
from ttsvar_core.infinity.text import Conditioning
from ttsvar_core.rewards.base import FORETELLING
from ttsvar_core.search.attempts import best_of, repeated
from ttsvar_core.search.memory import Sampler
from ttsvar_core.search.run import Result, run
from ttsvar_core.state import SearchState, start

from .arms import Arm
from .world import World


class Finished(NamedTuple):
    """The samples one arm ended with. scores: (P,) by the reward it searched with. seconds: it takes by itself. attempts: it made,
    the best of which these are."""

    state: SearchState
    images: Tensor
    scores: Tensor
    seconds: float = 0.0
    attempts: int = 1


def first_rows(whole: Any, samples: int) -> Any:
    """The first ``samples`` of a state, of a tensor, or of several of these."""
    if isinstance(whole, SearchState):
        return whole.select(range(samples))
    return whole[:samples] if isinstance(whole, Tensor) else tuple(first_rows(part, samples) for part in whole)


class Memory:
    """The latest results of a function on samples, by a key. saved: seconds that what was kept took when it was made."""

    def __init__(self, room: int) -> None:
        self._room, self._kept = room, OrderedDict()
        self.saved = 0.0

    def get(self, key: Any, samples: int, make: Callable[[], Any]) -> Any:
        """The first rows of what is kept under ``key``, made now if nothing is, or of fewer samples."""
        if self._kept.get(key, (0,))[0] >= samples:
            self.saved += self._kept[key][2]
        else:
            self._kept[key] = samples, *timed(make)
        self._kept.move_to_end(key)
        while len(self._kept) > self._room:
            self._kept.popitem(last=False)
        rows, whole, _ = self._kept[key]
        return whole if rows == samples else first_rows(whole, samples)


def past(state: SearchState, rows: bool = False) -> tuple:
    """What the bits of a state follow from, for one prompt: seed, how many samples ran, and who descends from whom.

    rows: each sample's by itself, where nothing is selected yet; then it does not matter how many there are."""
    if rows and not state.lineage:
        return state.seed, state.next_scale
    lineage = tuple((step.scale, len(step.scores), step.ancestors) for step in state.lineage)
    return state.seed, state.samples, state.next_scale, lineage


@dataclass(frozen=True)
class SharedSampler(Sampler):
    """Samples a scale of a past only once; rows: as `past` has it."""

    memory: Memory = field(default_factory=lambda: Memory(0))
    rows: bool = False

    def together(self, state: SearchState, through: int, candidates: int = 1) -> SearchState:
        """As `Sampler.together`; scores, weights and lineage are the given state's own. Scales that branch are not shared."""
        own = {name: getattr(state, name) for name in ("scores", "log_weights", "lineage", "answers")}
        while state.next_scale <= through:
            if candidates > 1 and state.next_scale == through:
                return super().together(state, through, candidates)
            one_scale = partial(Sampler.together, self, state, state.next_scale)
            state = self.memory.get(past(state, self.rows), state.samples, one_scale)._replace(**own)
        return state


class SharedReward(NamedTuple):
    """Scores the pictures of a past only once."""

    reward: Any
    memory: Memory

    @property
    def name(self) -> str:
        return self.reward.name

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """As the reward does; pictures are told apart by where they lie, which `decode` shares."""
        key = self.reward.name, images.data_ptr()
        held = self.memory.get(key, len(images), lambda: (images, self.reward.score(images, prompt)))
        return held[1]  # beside the pictures, so that nothing else comes to lie there

    def __getattr__(self, name: str) -> Any:
        if name not in FORETELLING:
            raise AttributeError(name)
        return getattr(self.reward, name)


def walk(world: World, conditioning: Conditioning, seed: int, arms: Iterable[Arm], share: str = "pasts") -> dict[str, Finished]:
    """Every arm's finished samples, by its name.

    share: what arms have in common besides states of the same past; "pasts": all but the largest Best-of-N are its first rows;
    "rows": so are all samples that nothing has selected yet; "seconds": nothing, so that each arm's seconds are its own. Raises
    ValueError for an arm whose reward or extractor the world lacks.
    """
    arms = list(arms)
    rows_of = {} if share == "seconds" else _pooled(arms)
    done, run_arm = {}, _runner(world, conditioning, seed, share)
    first = -1 if share == "rows" else 1  # the most samples first, whose rows the others take
    alone = (arm for arm in arms if arm.name not in rows_of)
    for arm in sorted(alone, key=lambda arm: (first * arm.plan.samples, str(arm.plan.stages))):
        done[arm.name] = run_arm(arm)
    for arm in arms:
        if arm.name in rows_of:
            done[arm.name] = Finished(*first_rows(done[rows_of[arm.name]][:3], arm.plan.samples))
    return {arm.name: done[arm.name] for arm in arms}


def _runner(world: World, conditioning: Conditioning, seed: int, share: str) -> Callable[[Arm], Finished]:
    """What runs one arm after another and remembers what they share."""
    rows, room = share == "rows", 2 * len(world.schedule)
    sampler = SharedSampler(world.sampling, memory=Memory(room + rows * room), rows=rows)
    pictures, scores = Memory(room), Memory(room)
    memories = sampler.memory, pictures, scores

    def decode(state: SearchState, foreseen: bool) -> Tensor:
        return pictures.get((foreseen, past(state, rows)), state.samples, lambda: sketch(state, foreseen=foreseen))

    def run_arm(arm: Arm) -> Finished:
        reward, extractor = SharedReward(named(world.rewards, arm.reward), scores), named(world.extractors, arm.extractor)
        looking, saved = partial(decode, foreseen=arm.plan.foreseen), sum(memory.saved for memory in memories)

        def search(seed: int) -> Result:
            state = start(world.model, conditioning, arm.plan.samples, seed, world.schedule)
            return run(state, arm.plan, reward, extractor, sampler, looking)

        results, seconds = timed(lambda: list(repeated(search, seed, arm.attempts, arm.enough)))
        best, seconds = best_of(results), seconds + sum(memory.saved for memory in memories) - saved
        return Finished(best.state, best.images, best.scores, seconds, len(results))

    return run_arm


def _pooled(arms: list[Arm]) -> dict[str, str]:
    """For every Best-of-N arm that is not the largest of its kind, the arm whose first rows it is."""
    found: dict[tuple, list[Arm]] = {}
    for arm in arms:
        if arm.attempts == 1 and not arm.plan.selects(math.inf):
            found.setdefault((arm.reward, arm.plan.stages, arm.plan.foreseen), []).append(arm)
    largest = {kind: max(group, key=lambda arm: arm.plan.samples) for kind, group in found.items()}
    return {arm.name: largest[kind].name for kind, group in found.items() for arm in group if arm != largest[kind]}


def named(things, name: str):
    """The one called ``name``; the first one for an empty name. Raises ValueError for a name that is not there."""
    if name and name not in things:
        raise ValueError(f"an arm asks for {name!r}; this world has {', '.join(things)}")
    return things[name] if name else next(iter(things.values()))
