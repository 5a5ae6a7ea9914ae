"""The file that says which plan each budget in pictures is best spent on, for one model and reward; `advise` makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttsvar_core.atomic import write
from ttsvar_core.reading import finite, parse_json, read_text, refusing, whole

FORMAT = 1
ADVICE = "advice.json"


def write_advice(path: Path, advice: dict[str, Any]) -> None:
    """Write the file."""
    write(path, json.dumps(advice, indent=1, sort_keys=True) + "\n")


def read_advice(path: str | Path) -> dict[str, Any]:
    """What `to_json` made. Raises UnusableFile for anything else."""
    with refusing(Path(path), "Write it again: python -m lab.experiment advise."):
        advice = parse_json(read_text(path))
        if advice["format"] != FORMAT:
            raise ValueError(f"its format is {advice['format']!r}, expected {FORMAT}")
        for scale, value in advice["correlation"].items():
            whole(int(scale), 0, advice["scales"] - 1)
            finite(value)
        cuts(advice)
    return advice


def cuts(advice: Mapping[str, Any] | None) -> dict[int, tuple[int, int]]:
    """Per budget in pictures the scale and the finishers of the funnel that was advised, where the file's own reward scores it."""
    plans = (advice or {}).get("plans", {})
    return {
        int(pictures): (whole(plan["scale"], 0, 2**16), whole(plan["keep"], 1, 2**16))
        for pictures, plan in plans.items() if plan["by"] == advice["scorer"]
    }
