"""``python -m lab.foresight collect | train``: a network that foretells, from a sample's first scales, what it becomes.

collect draws pictures and keeps what is known of them early; train fits the network. Put foresight.safetensors beside the
transformer, named as it is (my.foresight.safetensors for my.safetensors), and plans may look at foreseen sketches.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lab.experiment import options
from ttsvar_core.cli import Parser, answered, program
from ttsvar_core.commands import numbers

PROMPTS = 1000
LAYERS = (1, 5)
SCALES = (6, 7)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return answered(lambda: run(build_parser().parse_args(argv)))


def build_parser() -> argparse.ArgumentParser:
    """The options of both commands."""
    parser = Parser(prog="python -m lab.foresight", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_collect(commands.add_parser("collect", help="draw pictures and keep what is known of them early; goes on where it was"))
    _add_train(commands.add_parser("train", help="fit the network; goes on where it was"))
    return parser


def _add_collect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder for the samples; an unfinished one is continued")
    options.add_prompts(parser, f"{PROMPTS} of the scene world, or the whole file", split="train")
    parser.add_argument("--samples", type=numbers.COUNT, default=8, help="of each prompt and seed (default %(default)s)")
    parser.add_argument("--scales", type=numbers.FROM_ZERO, nargs="+", default=SCALES, help="to foretell after (default 6 7)")
    parser.add_argument(
        "--layers", type=numbers.FROM_ZERO, nargs="+", default=LAYERS, help="of the transformer that it is told of (default 1 5)"
    )
    options.add_world(parser)
    options.add_workers(parser)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders that collect wrote, of one model")
    parser.add_argument("--out", type=Path, required=True, help="folder for foresight.safetensors, the checkpoint and the log")
    parser.add_argument("--steps", type=numbers.COUNT, default=6000, help="optimiser steps (default %(default)s)")
    parser.add_argument("--minutes", type=numbers.NOT_NEGATIVE, default=0.0, help="end after this time instead")
    parser.add_argument("--batch", type=numbers.COUNT, default=128, help="samples in a step (default %(default)s)")
    parser.add_argument("--rate", type=numbers.POSITIVE, default=2e-3, help="highest learning rate (default %(default)s)")
    parser.add_argument("--width", type=numbers.COUNT, default=96, help="of the network (default %(default)s)")
    parser.add_argument("--depth", type=numbers.COUNT, default=4, help="of the network (default %(default)s)")
    parser.add_argument("--seed", type=numbers.FROM_ZERO, default=0, help="of weights and batches (default 0)")
    parser.add_argument("--save-every", type=numbers.POSITIVE, default=120.0, help="seconds between checkpoints (default 120)")
    options.add_world(parser)


def run(args: argparse.Namespace) -> int:
    """Carry out one of the two."""
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
