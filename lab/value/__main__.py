"""``python -m lab.value collect | train | check``: a network that foretells a reward from half-drawn samples, decoding nothing.

collect draws samples and keeps their features at some scales with the reward of the end; train fits the network to tell a prompt's
samples apart; check measures it on prompts it has not seen, beside what the reward itself sees in the sketches.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lab.experiment import options
from ttsvar_core.cli import Parser, answered, program
from ttsvar_core.commands import numbers
from ttsvar_core.commands.choices import device

PROMPTS = 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return answered(lambda: run(build_parser().parse_args(argv)))


def build_parser() -> argparse.ArgumentParser:
    """The options of the three commands."""
    parser = Parser(prog="python -m lab.value", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_collect(commands.add_parser("collect", help="draw samples and keep what a value model learns from; goes on where it was"))
    _add_train(commands.add_parser("train", help="fit the network; goes on where it was"))
    _add_check(commands.add_parser("check", help="measure it on prompts it has not seen"))
    return parser


def _add_collect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder for the samples; an unfinished one is continued")
    options.add_prompts(parser, f"{PROMPTS} of the scene world, or the whole file", split="train")
    parser.add_argument("--samples", type=numbers.COUNT, default=16, help="of each prompt and seed (default %(default)s)")
    parser.add_argument(
        "--scales", type=numbers.FROM_ZERO, nargs="+", default=(4, 5, 6), help="to keep features of (default 4 5 6)"
    )
    options.add_world(parser)
    options.add_workers(parser)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders that collect wrote, of one model and reward")
    parser.add_argument("--out", type=Path, required=True, help="folder for value.safetensors, the checkpoint and the log")
    parser.add_argument("--steps", type=numbers.COUNT, default=6000, help="optimiser steps (default %(default)s)")
    parser.add_argument("--minutes", type=numbers.NOT_NEGATIVE, default=0.0, help="end after this time instead")
    parser.add_argument("--batch", type=numbers.COUNT, default=16, help="prompts in a step (default %(default)s)")
    parser.add_argument("--rate", type=numbers.POSITIVE, default=1e-3, help="highest learning rate (default %(default)s)")
    parser.add_argument("--width", type=numbers.COUNT, default=64, help="of the network (default %(default)s)")
    parser.add_argument("--depth", type=numbers.COUNT, default=3, help="of the network (default %(default)s)")
    parser.add_argument("--seed", type=numbers.FROM_ZERO, default=0, help="of weights and batches (default 0)")
    parser.add_argument("--save-every", type=numbers.POSITIVE, default=120.0, help="seconds between checkpoints (default 120)")
    parser.add_argument("--device", type=device, default="cpu", help="where to train (default cpu)")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--value", type=Path, required=True, help="the value.safetensors to check")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders that collect wrote of prompts held out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")


def run(args: argparse.Namespace) -> int:
    """Carry out one of the three."""
    if args.command == "collect":
        from .collect import collect, drawn

        print(collect(args, PROMPTS, drawn))
    elif args.command == "train":
        from .train import train

        print(train(args))
    else:
        from .check import check

        print(check(args.value, args.data, args.json))
    return 0


if __name__ == "__main__":
    program(main)
