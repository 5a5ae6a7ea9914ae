"""``python -m lab.foresight collect | train``: a network that foretells, from a sample's first scales, what it becomes.

collect draws pictures and keeps what is known of them early; train fits the network. Put foresight.safetensors beside the
transformer, named as it is (my.foresight.safetensors for my.safetensors), and plans may look at foreseen sketches.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from lab.experiment import options
from ttsvar_core.cli import Parser, answered, program
from ttsvar_core.commands import numbers

PROMPTS = 1000


def main(argv: Sequence[str] | None = None) -> int:
    return answered(lambda: run(build_parser().parse_args(argv)))


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m lab.foresight", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    collect = commands.add_parser("collect", help="draw pictures and keep what is known of them early; goes on where it was")
    options.add_collecting(collect, PROMPTS, samples=8, scales=(6, 7), what="to foretell after")
    collect.add_argument(
        "--layers", type=numbers.FROM_ZERO, nargs="+", default=(1, 5), help="of the transformer that it is told of (default 1 5)"
    )
    train = commands.add_parser("train", help="fit the network; goes on where it was")
    options.add_fitting(train, "foresight.safetensors", 128, "samples", rate=2e-3, width=96, depth=4)
    options.add_world(train)
    return parser


def run(args: argparse.Namespace) -> int:
    if args.command == "collect":
        from lab.value.collect import collect

        from .collect import drawn

        print(collect(args, PROMPTS, partial(drawn, tuple(args.layers)), layers=list(args.layers)))
    else:
        from .train import train

        print(train(args))
    return 0


if __name__ == "__main__":
    program(main)
