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
from ttsvar_core.commands.choices import device

PROMPTS = 1000


def main(argv: Sequence[str] | None = None) -> int:
    return answered(lambda: run(build_parser().parse_args(argv)))


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m lab.value", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    collect = commands.add_parser("collect", help="draw samples and keep what a value model learns from; goes on where it was")
    options.add_collecting(collect, PROMPTS, samples=16, scales=(4, 5, 6), what="to keep features of")
    train = commands.add_parser("train", help="fit the network; goes on where it was")
    options.add_fitting(train, "value.safetensors", 16, "prompts", rate=1e-3, width=64, depth=3)
    train.add_argument("--device", type=device, default="cpu", help="where to train (default cpu)")
    check = commands.add_parser("check", help="measure it on prompts it has not seen")
    check.add_argument("--value", type=Path, required=True, help="the value.safetensors to check")
    check.add_argument("--data", type=Path, nargs="+", required=True, help="folders that collect wrote of prompts held out")
    check.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


def run(args: argparse.Namespace) -> int:
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
