"""Plan files: a plan as JSON, in the present form and in that of the first version."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

from .plan import PLANS, STAGES, Plan, Stage, scored_at

MAX_COUNT = 2**16  # samples or scales that a plan in a file may name
_FIRST_VERSION = {"cluster": "cluster", "potential": "resample"}  # its selectors and the stages they are now
_SPOKEN = {"lam": "lambda"}  # what Python cannot call so
_WRITTEN = {spoken: written for written, spoken in _SPOKEN.items()}


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON values, read back by `from_json`."""
    ahead = {"foreseen": True} if plan.foreseen else {}
    return {"name": plan.name, "samples": plan.samples, **ahead, "stages": [_entry(stage) for stage in plan.stages]}


def _entry(stage: Stage) -> dict[str, Any]:
    settings = {_SPOKEN.get(name, name): value for name, value in asdict(stage).items() if value is not None}
    return {"kind": stage.kind, **settings}


def from_json(data: Any) -> Plan:
    """The plan that `to_json` wrote, in this version or the first. Raises ValueError for a missing, unknown or misshaped entry."""
    if not isinstance(data, dict):
        raise ValueError(f"a plan is an object with 'samples' and 'stages', got {type(data).__name__}")
    try:
        if "survivors" in data:
            return _of_the_first_version(data)
        _refuse_unknown(data, {"name", "samples", "foreseen", "stages"}, "a plan")
        if "samples" not in data:
            raise ValueError("a plan needs 'samples': how many start")
        stages = tuple(_stage(dict(entry)) for entry in data.get("stages", []))
        return Plan(str(data.get("name", "custom")), _whole(data["samples"]), stages, _flag(data.get("foreseen", False)))
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"cannot read the plan: {error}; compare with one that a report holds") from error


def _of_the_first_version(data: dict[str, Any]) -> Plan:
    """A plan that lists survivors scale by scale, and selectors by scale."""
    _refuse_unknown(data, {"name", "samples", "survivors", "selectors", "score_at"}, "a plan")
    survivors = [_whole(count) for count in data["survivors"]]
    selectors = {_whole(scale): dict(entry) for scale, entry in data.get("selectors", {}).items()}
    if not survivors:
        raise ValueError("a plan needs 'survivors': for each scale, how many samples are left after it")
    samples, stages = _whole(data.get("samples", survivors[0])), []
    left = samples
    for scale, keep in enumerate(survivors):
        entry = selectors.pop(scale, None)
        if entry is None and keep != left:
            raise ValueError(f"the plan cuts {left} samples to {keep} at scale {scale}, where nothing selects")
        if entry is not None:
            kind = entry.get("kind")
            if kind not in _FIRST_VERSION:
                raise ValueError(f"unknown kind of stage {kind!r}; a selector is one of {' or '.join(_FIRST_VERSION)}")
            stages.append(_stage({**entry, "kind": _FIRST_VERSION[kind], "scale": scale, "keep": keep}))
        left = keep
    if selectors:
        raise ValueError(f"the plan has a selector at scale {min(selectors)} and survivors for {len(survivors)} scales")
    return scored_at(Plan(str(data.get("name", "custom")), samples, tuple(stages)), map(_whole, data.get("score_at", [])))


def _stage(entry: dict[str, Any]) -> Stage:
    kind = entry.pop("kind", None)
    if kind not in STAGES:
        raise ValueError(f"unknown kind of stage {kind!r}; use {' or '.join(STAGES)}")
    types = get_type_hints(STAGES[kind])
    known = {field.name: types[field.name] for field in fields(STAGES[kind])}
    settings = {_WRITTEN.get(name, name): value for name, value in entry.items()}
    _refuse_unknown(settings, set(known), f"a {kind} stage")
    missing = [field.name for field in fields(STAGES[kind]) if field.default is MISSING and field.name not in settings]
    if missing:
        raise ValueError(f"a {kind} stage needs {' and '.join(missing)}")
    return STAGES[kind](**{name: _READERS[known[name]](value) for name, value in settings.items()})


def _refuse_unknown(data: dict, known: set[str], what: str) -> None:
    unknown = sorted(set(map(str, data)) - known)
    if unknown:
        raise ValueError(f"{what} has no {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}")


def _number(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"expected a number in the plan, got {str(value)[:40]!r}") from None


def _whole(value: Any) -> int:
    number = _number(value)
    if not (number.is_integer() and number <= MAX_COUNT):
        raise ValueError(f"expected a whole number up to {MAX_COUNT} in the plan, got {str(value)[:40]!r}")
    return int(number)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false in the plan, got {str(value)[:40]!r}")
    return value


_READERS = {int: _whole, float: _number, float | None: _number, str: str}


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write `plan` as JSON."""
    from ..atomic import write

    write(path, json.dumps(to_json(plan), indent=2) + "\n")


def load_plan(path: str | Path) -> Plan:
    """Read a plan from JSON. Raises ValueError, naming the file, for text that is not JSON and where `from_json` does."""
    from ..reading import parse_json, read_text, refusing

    with refusing(path, "Correct it as save_plan writes them, or choose another."):
        return from_json(parse_json(read_text(path)))


def named_plan(name: str, n: int, scales: int) -> Plan:
    """A plan by its name, for ``n`` and a schedule of ``scales``, or the one in a JSON file. Raises ValueError for neither."""
    if name in PLANS:
        return PLANS[name](n, scales)
    if Path(name).is_file():
        return load_plan(name)
    raise ValueError(f"--plan: no plan {name!r}; write one of {', '.join(PLANS)} or the name of a JSON file.")
