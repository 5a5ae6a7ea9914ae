"""Run an experiment: resumable, parallel, and with the same results however often and wherever it runs.

In the folder of an experiment lie ``experiment.json`` (what results depend on), ``units/*.json`` (one file per prompt and
seed, written whole or not at all) and, at the end, ``results.json``. Only this process writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ttsvar_core.atomic import write
from ttsvar_core.reading import parse_json, read_text, refusing
from ttsvar_core.search.plan_file import to_json
from ttsvar_core.search.save import same_text

from .advise import ADVICE, measured_by, read_advice, write_advice
from .arms import Arm, Experiment, Setting
from .definitions import ADVISED, PRICED, build
from .engines import Engine, Progress, opened, reported
from .layout import Layout
from .prices import Prices
from .prompts import Prompt
from .unit import Task, Unit, check_prompts, check_record, describe, prices_of, run_unit
from .world import World

FORMAT = 1


class OtherExperiment(ValueError):
    """The folder holds results that these would not be comparable with."""


class Asked(NamedTuple):
    """An experiment by its name, values of N in place of its own, which of its arms, as `Experiment.only` says, and what `ADVISED`
    chooses plans by (None: the advice in the folder, if there is any)."""

    name: str
    n: Sequence[int] | None = None
    arms: Sequence[str] = ()
    advice: Mapping[str, Any] | None = None


class Where(NamedTuple):
    """How many workers, where they run, and where images go ("geneval", "t2i-compbench", empty: nowhere)."""

    workers: int = 1
    engine: str = "processes"
    address: str | None = None
    images: str = ""


def run_experiment(
    asked: Asked, factory: Callable[[], World], prompts: Sequence[Prompt], seeds: int | range, out: str | Path,
    where: Where | None = None, progress: Progress | None = None,
) -> Path:
    """Run what is not yet in ``out`` and write ``results.json``; returns its path.

    seeds: how many numbers of seeds per prompt, from 0, or the range of them. ``factory`` must be hashable and travel between
    processes (`world.WorldFiles`). ``progress(done, total)`` is called after every unit. Raises OtherExperiment if ``out`` holds
    the results of other models, plans or settings, UnusableFile if what it holds is damaged; both before anything runs.
    """
    out, where = Path(out), where or Where()
    units = _units(prompts, range(seeds) if isinstance(seeds, int) else seeds)
    layout = Layout(str((out / "images").resolve()), where.images) if where.images else None
    for prompt in prompts if layout else ():
        layout.check(prompt)
    with opened(where.workers, where.engine, where.address) as engine:
        (world,) = engine(describe, [factory])
        list(engine(check_prompts, [(factory, [prompt.text for prompt in prompts])]))
        known = _known(asked, out, engine, (factory, prompts[0].text))
        experiment = build(asked.name, setting_of(world, known), asked.n).only(asked.arms)
        identity = {
            "format": FORMAT, "experiment": experiment.name, "n": list(asked.n) if asked.n else None, "world": world,
            "arms": {arm.name: _told(arm) for arm in experiment.arms}, "images": where.images,
        }
        claim(out, identity)
        if "advice" in known:  # is found when the command is repeated
            write_advice(out / ADVICE, known["advice"])
        there = {unit.key: read_unit(out, unit, experiment.arms, world) for unit in units if _unit_path(out, unit.key).is_file()}
        for prompt, number, place in units if layout else ():
            if not layout.fits(experiment.arms[0].name, place, number, prompt, prompt.key(number) in there):
                raise OtherExperiment(f"{out} has images of another list of prompts, or lost some. Choose another folder")
        missing = [unit for unit in units if unit.key not in there]
        tasks = [Task(factory, experiment.arms, unit, layout, _sharing(experiment, unit)) for unit in missing]
        for record in reported(engine, run_unit, tasks, len(units), progress or (lambda done, total: None)):
            write(_unit_path(out, Prompt(record["prompt"]).key(record["number"])), _dumps(record))
    found = there | {unit.key: read_unit(out, unit, experiment.arms, world) for unit in missing}
    path = out / "results.json"
    write(path, _dumps({**identity, **known, "units": [found[unit.key] for unit in units]}))
    return path


def _units(prompts: Sequence[Prompt], numbers: range) -> list[Unit]:
    """Every prompt with every number of a seed."""
    if not numbers or not prompts:
        raise ValueError(f"{len(prompts)} prompts and {len(numbers)} seeds leave nothing to run; give at least one of each")
    units = [Unit(prompt, number, place) for place, prompt in enumerate(prompts) for number in numbers]
    if len({unit.key for unit in units}) < len(units):
        raise ValueError("the list of prompts names a prompt twice; each counts once")
    return units


def _known(asked: Asked, out: Path, engine: Engine, of: tuple[Callable[[], World], str]) -> dict[str, Any]:
    """What plans cost and the advice, where arms or reports depend on it. of: as `prices_of` takes it."""
    if asked.name not in PRICED:
        return {}
    advice, path = asked.advice, out / ADVICE
    if advice is None and asked.name == ADVISED and path.is_file():
        advice = read_advice(path)
    return {**({"advice": advice} if advice else {}), "prices": next(engine(prices_of, [of]))}


def setting_of(world: dict[str, Any], known: Mapping[str, Any] | None = None) -> Setting:
    """The part of a described world that experiments are built from, with prices and advice where results hold them."""
    known, tokens = known or {}, tuple(height * width for height, width in world["schedule"])
    prices = Prices.from_json(known["prices"]) if "prices" in known else None
    measured = measured_by(known.get("advice"), world)
    return Setting(tokens, tuple(world["extractors"]), tuple(world["rewards"]), prices, measured, world["model"])


def read_unit(out: Path, unit: Unit, arms: Sequence[Arm], world: dict[str, Any]) -> dict[str, Any]:
    """A finished unit's record, with its category as the present list of prompts has it. Raises UnusableFile."""
    path = _unit_path(out, unit.key)
    with refusing(str(path), "Remove it and repeat the command: it is run again."):
        record = parse_json(read_text(path))
        check_record(record, unit, arms, world)
    return {**record, "category": unit.prompt.category}


def _sharing(experiment: Experiment, unit: Unit) -> str:
    if not experiment.timed:
        return "pasts"
    return "seconds" if unit.place < experiment.timed else "rows"


def _unit_path(out: Path, key: str) -> Path:
    return out / "units" / f"{key}.json"


def _told(arm: Arm) -> dict[str, Any]:
    told = {"plan": to_json(arm.plan), "extractor": arm.extractor, "reward": arm.reward}
    return told | ({"attempts": arm.attempts, "enough": arm.enough} if arm.attempts > 1 else {})


def claim(out: Path, identity: dict[str, Any]) -> None:
    """Make ``out`` the folder of this experiment, or check that it is already (other machines round text features otherwise)."""
    path = out / "experiment.json"
    (out / "units").mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write(path, _dumps(identity))
        return
    with refusing(str(path), "Choose another folder."):
        differing = _differing(parse_json(read_text(path)), json.loads(_dumps(identity)))
    if differing:
        raise OtherExperiment(
            f"{out} holds results of another experiment: {', '.join(differing)} differ. Choose another folder, or repeat what "
            "made it; more prompts and more seeds may be added to the same folder"
        )


def _differing(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    ours, theirs = found.get("world", {}), wanted.get("world", {})
    if same_text(ours.get("text"), theirs.get("text")):
        ours["text"] = theirs.get("text")
    differing = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    return differing + sorted(f"world.{key}" for key in theirs if ours.get(key) != theirs[key])


def _dumps(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
