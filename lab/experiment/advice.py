"""The file that says which plan each budget in pictures is best spent on, for one model and reward; `advise` makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttsvar_core.atomic import write
from ttsvar_core.reading import parse_json, read_text, refusing
from ttsvar_core.search.budget import Measured, from_json

FORMAT = 1
ADVICE = "advice.json"


def write_advice(path: Path, advice: dict[str, Any]) -> None:
    write(path, json.dumps(advice, indent=1, sort_keys=True) + "\n")


def read_advice(path: str | Path) -> dict[str, Any]:
    """What `advise.to_json` made. Raises UnusableFile for anything else."""
    with refusing(Path(path), "Write it again: python -m lab.experiment advise."):
        advice = parse_json(read_text(path))
        if advice["format"] != FORMAT:
            raise ValueError(f"its format is {advice['format']!r}, expected {FORMAT}")
        from_json(advice)
    return advice


def measured_by(advice: Mapping[str, Any] | None, world: Mapping[str, Any]) -> Measured | None:
    """What foretells the end, as advice tells it. world: as `World.describe` tells it. Raises ValueError for another model's."""
    if advice is None:
        return None
    if advice["fingerprint"] != world["fingerprint"]:
        raise ValueError(
            f"the advice is of {advice['model']} ({advice['fingerprint'][:8]}), this is {world['model']} "
            f"({world['fingerprint'][:8]}); draw a pool of this model: python -m lab.experiment advise"
        )
    return from_json(advice)
