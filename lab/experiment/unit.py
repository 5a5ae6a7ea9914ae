"""One unit of an experiment: all arms for one prompt and one seed, as a record of plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch

from ttsvar_core.costs import Cost, Look, Search
from ttsvar_core.looks import extractor_look, grey, reward_look
from ttsvar_core.reading import finite, whole
from ttsvar_core.rewards.base import check_prompt
from ttsvar_core.search.budget import cost_in_pictures

from .arms import Arm
from .layout import Layout
from .prices import Prices
from .prompts import Prompt
from .walk import Finished, named, walk
from .world import VERDICT, World


class Unit(NamedTuple):
    """A prompt, the number of its seed, and its place in the list of prompts (for benchmarks' file names)."""

    prompt: Prompt
    number: int
    place: int

    @property
    def key(self) -> str:
        """Names the unit's file."""
        return self.prompt.key(self.number)


class Task(NamedTuple):
    """What a worker is sent: how to get the world, what to run, where the answers' images go (None: nowhere), and what arms share,
    as `walk` takes it."""

    factory: Callable[[], World]
    arms: tuple[Arm, ...]
    unit: Unit
    layout: Layout | None = None
    share: str = "pasts"


def describe(factory: Callable[[], World]) -> dict[str, Any]:
    """`World.describe` of a world, where workers run; the first thing an experiment asks for."""
    return loaded(factory).describe()


def check_prompts(given: tuple[Callable[[], World], Sequence[str]]) -> None:
    """Raise ValueError for the first prompt that a world's rewards cannot judge."""
    world, texts = loaded(given[0]), given[1]
    for text in texts:
        for reward in world.rewards.values():
            check_prompt(reward, text)


def prices_of(given: tuple[Callable[[], World], str]) -> dict[str, Any]:
    """`Prices.to_json` of a world, its rewards' operations as for a prompt."""
    world, prompt = loaded(given[0]), given[1]
    config, scales = world.model.config, len(world.schedule)
    with torch.inference_mode():
        picture = grey(config, world.schedule)
        looks = {name: reward_look(reward, picture, prompt) for name, reward in world.rewards.items()}
    lengths = 1, config.transformer.text_maxlen
    names = {name: reward.name for name, reward in world.rewards.items()}
    return Prices(config, world.schedule, world.sampling.branches(scales), lengths, looks, names).to_json()


def run_unit(task: Task) -> dict[str, Any]:
    """Run one unit; depends on nothing but the task and the files its world is loaded from."""
    world, (prompt, number, place) = loaded(task.factory), task.unit
    with torch.inference_mode():
        conditioning = world.encode(prompt.text)
        finished = walk(world, conditioning, prompt.seed(number), task.arms, task.share)
    answers: dict[tuple[int, int], dict] = {}
    arms, image = {}, next(iter(finished.values())).images[:1]
    judging = cache(lambda name: reward_look(named(world.rewards, name), image, prompt.text))
    for arm in task.arms:
        ended, extractor = finished[arm.name], _extractor_look(task.factory, arm.extractor)
        record = _record(world, prompt, arm, ended, answers)
        search = Search(
            world.model.config, arm.plan, world.schedule, world.sampling.branches(len(world.schedule)),
            max(1, len(conditioning.text)), extractor, judging(arm.reward),
        )
        spent = {name: value * ended.attempts for name, value in priced(search).items()}
        taken = {"seconds": ended.seconds} if task.share == "seconds" else {}
        arms[arm.name] = {**record, "cost": {**spent, **taken}}
        if task.layout:
            task.layout.save(arm.name, place, number, prompt, ended.images[record["best"]])
    return {"prompt": prompt.text, "category": prompt.category, "number": number, "seed": prompt.seed(number), "arms": arms}


@cache
def priced(search: Search) -> dict[str, float]:
    """What a plan costs; of a prompt only the length, and what its rewards take, make a difference."""
    return {**search.total._asdict(), "pictures": cost_in_pictures(search, search.plan)}


@cache
def _extractor_look(factory: Callable[[], World], name: str) -> Look:
    """What an extractor takes per picture, whatever the prompt."""
    world = loaded(factory)
    picture = grey(world.model.config, world.schedule).to(world.model.transformer.device)
    return extractor_look(named(world.extractors, name), picture)


def check_record(record: dict[str, Any], unit: Unit, arms: Sequence[Arm], world: dict[str, Any]) -> None:
    """Raise unless ``record`` is this unit's and has what reports read (`reading.refusing` makes one error of what is raised).

    world: as `World.describe` tells it.
    """
    prompt = unit.prompt
    for name, expected in (("prompt", prompt.text), ("number", unit.number), ("seed", prompt.seed(unit.number))):
        if record[name] != expected:
            raise ValueError(f"another unit's result: its {name} is {record[name]!r}, expected {expected!r}")
    for arm in arms:
        found = record["arms"][arm.name]
        scores = found["scores"]
        whole(found["best"], 0, len(scores) - 1)
        history = found["history"] if arm.watched else ()
        if arm.watched and {len(row) for row in history} != {len(world["schedule"])}:
            raise ValueError(f"{arm.name} was not scored at every scale")
        if arm.watched and VERDICT in world["metrics"] and len(found["correct"]) != len(scores):
            raise ValueError(f"{arm.name} has verdicts on {len(found['correct'])} of {len(scores)} samples")
        costs = [found["cost"][name] for name in {**dict.fromkeys(Cost._fields), **found["cost"]}]
        values = [*scores, *(found["answer"][name] for name in world["metrics"]), *costs]
        values += [value for row in history for value in row if value is not None]
        for value in values:
            finite(value)


@lru_cache(maxsize=1)
def loaded(factory: Callable[[], World]) -> World:
    """The world of a process, loaded once."""
    return factory()


def _record(world: World, prompt: Prompt, arm: Arm, finished: Finished, answers: dict) -> dict[str, Any]:
    """What an arm ended with. answers: every metric of the answers so far, by where they lie; arms may share one."""
    scores = finished.scores.tolist()
    best = scores.index(max(scores))  # ties: the lowest row, as `score.best`
    place = (id(finished.images), best)
    if place not in answers:
        image = finished.images[best : best + 1]
        answers[place] = {name: float(reward.score(image, prompt.text)[0]) for name, reward in world.rewards.items()}
        answers[place] |= {VERDICT: float(world.verdict(image, prompt.text))} if world.verdict else {}
    record = {"scores": scores, "best": best, "answer": answers[place]}
    if finished.state.lineage:
        lineage = [{"scale": s.scale, "ancestors": list(s.ancestors), "ess": s.ess} for s in finished.state.lineage]
        record["lineage"] = lineage
    if arm.watched:
        history = finished.state.scores.tolist()
        record["history"] = [[None if math.isnan(value) else value for value in row] for row in history]
        if world.verdict:
            record["correct"] = [float(world.verdict(image, prompt.text)) for image in finished.images.split(1)]
    return record
