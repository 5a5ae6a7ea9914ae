"""``python -m lab.gpu``: all that needs a graphics card, in at most nine minutes, as one table and one JSON file."""

import argparse
import math
from pathlib import Path

from .runner import Check, Notes, apart, here, run_all, table

BUDGET = 530.0  # seconds, of the nine minutes
CHECKS = (  # what is worth most comes first
    Check("device", 30, "lab.gpu.speed:device"),
    Check("parity", 100, "lab.gpu.parity:check"),
    Check("search", 110, "lab.gpu.speed:search"),
    Check("kernels", 40, "lab.gpu.speed:kernels"),
    Check("decoding", 30, "lab.gpu.speed:decoding"),
    Check("launches", 130, "lab.gpu.launches:check"),
    Check("cards", 80, "lab.gpu.limits:cards"),
    Check("out of memory", 40, "lab.gpu.limits:out_of_memory"),
    Check("options", 80, "lab.gpu.speed:options"),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; 0 if all are ok, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m lab.gpu", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("output/gpu.json"), help="file for what is found (default: %(default)s)")
    parser.add_argument("--device", default="cuda", help="the card (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=[check.name for check in CHECKS], help="some of the checks")
    parser.add_argument("--seconds", type=float, default=BUDGET, help="for all checks of a card together (default: %(default)s)")
    parser.add_argument("--rehearse", action="store_true", help="everything tiny and on the processor, to try the command itself")
    parser.add_argument("--check", help=argparse.SUPPRESS)  # how a check is begun in a process of its own
    parser.add_argument("--notes", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.check:
        next(check for check in CHECKS if check.name == chosen.check).function()(_place(chosen), Notes(chosen.notes))
        return 0
    path = chosen.json.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    run = here(_place(chosen)) if chosen.rehearse else apart(["-m", "lab.gpu", "--device", chosen.device])
    asked = [check for check in CHECKS if not chosen.only or check.name in chosen.only]
    record = run_all(asked, path, math.inf if chosen.rehearse else chosen.seconds, run)
    print(table(record))
    return 0 if all(check["ok"] for check in record.values()) else 1


def _place(chosen: argparse.Namespace):
    import torch

    from .place import Place

    torch.manual_seed(0)
    return Place(torch.device("cpu" if chosen.rehearse else chosen.device), chosen.rehearse)


if __name__ == "__main__":
    raise SystemExit(main())
