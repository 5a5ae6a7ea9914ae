"""``python -m ttsvar_core verify DIR``: compare every model in a folder with its reference numbers."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from ..verified import VerifyResult

SUMMARY = "compare models with stored reference numbers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory", type=Path,
        help="a folder with <name>.json, <name>*.safetensors and <name>.golden.safetensors for every model",
    )


def main(args: argparse.Namespace) -> int:
    """Print one line per model; 0 if all are ok, 1 otherwise. Raises OSError and ValueError for a folder without models."""
    if not args.directory.is_dir():
        raise NotADirectoryError(f"There is no folder {args.directory}.")
    results = []
    for result in verify_directory(args.directory):
        print(result.line(), flush=True)
        results.append(result)
    if not results:
        raise ValueError(f"{args.directory} holds no reference models: expected <name>.json files with a 'kind'.")
    return 0 if all(result.ok for result in results) else 1


def verify_directory(directory: Path) -> Iterator[VerifyResult]:
    """Check the models of a folder one by one, in the order of their names. A model that cannot be checked has failed."""
    for path in sorted(directory.glob("*.json")):
        name = path.stem
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            yield VerifyResult(name, {}, False, f"{path.name} cannot be read: {error}")
            continue
        if isinstance(data, dict) and "kind" in data:
            yield _verify(directory, data, name)


def _verify(directory: Path, data: dict, name: str) -> VerifyResult:
    from ..infinity import verify as infinity
    from ..rewards import verify as rewards

    try:
        check = infinity.verify_model if data["kind"] == "infinity" else rewards.verify_model
        return check(directory, data, name)
    except Exception as error:  # whatever is wrong with one model, the others are still checked
        return VerifyResult(name, {}, False, " ".join(f"{type(error).__name__}: {error}".split()))
