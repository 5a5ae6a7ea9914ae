"""Pack a run's checkpoint for keeping, or unpack it to train on: `python -m lab.training.keep {pack,unpack} FROM TO`.

Packed, weights are float16 and the optimiser's moments bfloat16: a quarter of the size is left with the averages, and what is
lost is far below what one step changes. A run that was unpacked is not bit-equal to one that was not interrupted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttsvar_core.atomic import replacing

STEM = "transformer.checkpoint"


def converted(stored: Any, change: Callable[[Tensor, bool], Tensor], moment: bool = False) -> Any:
    """`stored` with every floating-point tensor of more than one value changed; the change is told which are moments."""
    if isinstance(stored, dict):
        return {key: converted(value, change, moment or key == "optimiser") for key, value in stored.items()}
    if isinstance(stored, list):
        return [converted(value, change, moment) for value in stored]
    return change(stored, moment) if isinstance(stored, Tensor) and stored.is_floating_point() and stored.numel() > 1 else stored


def packed(tensor: Tensor, moment: bool) -> Tensor:
    """A tensor in half the bytes: moments need the range of float32, weights rather the digits."""
    return tensor.to(torch.bfloat16 if moment else torch.float16)


def main(argv: list[str] | None = None) -> int:
    """Write the other form of the checkpoint, and copy the loss log along."""
    parser = argparse.ArgumentParser(prog="python -m lab.training.keep", description=__doc__)
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path, help="folder of the run, or of the packed checkpoint")
    parser.add_argument("target", type=Path)
    parser.add_argument("--no-optimiser", action="store_true", help="leave the moments out; the run starts them from nothing")
    args = parser.parse_args(argv)
    stored = torch.load(args.source / f"{STEM}.pt", map_location="cpu", weights_only=True)
    if args.no_optimiser:
        stored["optimiser"] = {name: part | {"state": {}} for name, part in stored["optimiser"].items()}
    change = packed if args.action == "pack" else lambda tensor, _moment: tensor.float()
    args.target.mkdir(parents=True, exist_ok=True)
    with replacing(args.target / f"{STEM}.pt") as file:
        torch.save(converted(stored, change), file)
    log = args.source / "transformer.log.jsonl"
    if log.exists():
        shutil.copyfile(log, args.target / log.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
