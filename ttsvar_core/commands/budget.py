"""A budget in pictures on the command line, in a plan's place."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import numbers

if TYPE_CHECKING:
    from ..config import Sampling
    from ..search.budget import Chosen, Measured

PICTURES = numbers.Number(least=1, most=2**16)


def add_arguments(group: Any, instead: Any) -> None:
    """The options; `instead`: the group of what excludes the budget."""
    instead.add_argument(
        "--budget", type=PICTURES, metavar="PICTURES", help="find the plan that should give the best answer for the work of so many"
    )
    group.add_argument(
        "--measured", type=Path, metavar="FILE", help="how scores foretell the end for this model and reward, for --budget (JSON)"
    )


def check(args: argparse.Namespace) -> None:
    """Raise ValueError for options that contradict each other, and for a file that holds no measurement."""
    if args.budget and args.schedule:
        raise ValueError("--budget finds the survivors of every scale itself; leave out --schedule, or the budget.")
    if args.measured and not args.budget:
        raise ValueError("--measured tells a budget how scores foretell the end; name one with --budget.")
    measured(args)


def measured(args: argparse.Namespace) -> Measured | None:
    """The measurement named, if one is."""
    from ..search.budget import load_measured

    return load_measured(args.measured) if args.measured else None


def found(args: argparse.Namespace, model: Any, conditioning: Any, schedule: Any, sampling: Sampling, reward: Any) -> Chosen:
    """The plan for the budget, told on the terminal; see `search.budget`."""
    from ..search.budget import plan_within

    table = measured(args)
    chosen = plan_within(args.budget, model, conditioning, schedule, sampling, reward, table, args.whole_sketches)
    print(chosen.why)
    return chosen
