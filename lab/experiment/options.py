"""Options that every command has that draws samples of many prompts: which, with what, and where it runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ttsvar_core import registry
from ttsvar_core.commands import numbers
from ttsvar_core.commands.choices import device
from ttsvar_core.names import PIXEL_BUDGETS

from .engines import ENGINES, Progress

SPLITS = ("train", "validation", "test")


def add_prompts(parser: argparse.ArgumentParser, default: str, split: str = "test") -> None:
    """Which prompts and seeds."""
    parser.add_argument("--prompts", type=numbers.COUNT, metavar="K", help=f"the first K (default: {default})")
    parser.add_argument("--seeds", type=numbers.COUNT, default=1, help="seeds per prompt (default 1)")
    parser.add_argument("--first-seed", type=numbers.FROM_ZERO, default=0, metavar="S", help="seeds S, S+1, ... (default 0)")
    parser.add_argument("--prompts-file", type=Path, help="JSONL (GenEval's list) or text, one prompt per line")
    parser.add_argument("--split", choices=SPLITS, help=f"of the scene world's prompts (default {split})")


def add_world(parser: argparse.ArgumentParser) -> None:
    """Which model and rewards."""
    parser.add_argument(
        "--model", nargs="+", metavar="FILE", default=(),
        help="in place of the bundled model: transformer, tokenizer and T5, or a folder that holds the three",
    )
    parser.add_argument(
        "--reward", nargs="+", metavar="NAME[=FILE]",
        help=f"rewards, the first one searches, all measure: clarity, {registry.usages(registry.REWARDS)}",
    )
    parser.add_argument("--pixel-budget", choices=PIXEL_BUDGETS, help="for a model without a schedule of its own (default 1M)")
    parser.add_argument("--device", type=device, default="cpu", help="where the models run (default cpu)")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Where it runs."""
    parser.add_argument("--workers", type=numbers.COUNT, default=1, help="processes, one thread each; results do not depend on it")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help="where workers run")
    parser.add_argument("--ray-address", help="a running Ray cluster (default: a local one of --workers)")


def add_collecting(parser: argparse.ArgumentParser, prompts: int, samples: int, scales: tuple[int, ...], what: str) -> None:
    """What is drawn to learn from: of ``prompts`` prompts so many samples each; what is kept after which scales."""
    parser.add_argument("--out", type=Path, required=True, help="folder for the samples; an unfinished one is continued")
    add_prompts(parser, f"{prompts} of the scene world, or the whole file", split="train")
    parser.add_argument("--samples", type=numbers.COUNT, default=samples, help="of each prompt and seed (default %(default)s)")
    usual = " ".join(map(str, scales))
    parser.add_argument("--scales", type=numbers.FROM_ZERO, nargs="+", default=scales, help=f"{what} (default {usual})")
    add_world(parser)
    add_workers(parser)


def add_fitting(parser: argparse.ArgumentParser, name: str, batch: int, what: str, rate: float, width: int, depth: int) -> None:
    """How a small network is fitted to what was collected. name: of the file that comes of it. batch: so many of ``what``."""
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders that collect wrote, with the same settings")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {name}, the checkpoint and the log")
    parser.add_argument("--steps", type=numbers.COUNT, default=6000, help="optimiser steps (default %(default)s)")
    parser.add_argument("--minutes", type=numbers.NOT_NEGATIVE, default=0.0, help="end after this time instead")
    parser.add_argument("--batch", type=numbers.COUNT, default=batch, help=f"{what} in a step (default %(default)s)")
    parser.add_argument("--rate", type=numbers.POSITIVE, default=rate, help="highest learning rate (default %(default)s)")
    parser.add_argument("--width", type=numbers.COUNT, default=width, help="of the network (default %(default)s)")
    parser.add_argument("--depth", type=numbers.COUNT, default=depth, help="of the network (default %(default)s)")
    parser.add_argument("--seed", type=numbers.FROM_ZERO, default=0, help="of weights and batches (default 0)")
    parser.add_argument("--save-every", type=numbers.POSITIVE, default=120.0, help="seconds between checkpoints (default 120)")


def world_files(args: argparse.Namespace):
    """The world the options name. Raises ValueError for a model of two files or more than three."""
    from .world import BUNDLED_EXTRACTORS, BUNDLED_REWARDS, WorldFiles, spelled

    if len(args.model) not in (0, 1, 3):
        raise ValueError(f"--model takes one folder or three files (transformer, tokenizer, T5); {len(args.model)} were given")
    model = tuple(str(Path(file).absolute()) for file in args.model)
    extractors = tuple(map(spelled, getattr(args, "extractor", None) or BUNDLED_EXTRACTORS))
    return WorldFiles(model, tuple(args.reward or BUNDLED_REWARDS), extractors, args.pixel_budget or "", args.device)


def prompts(args: argparse.Namespace, default: int, split: str) -> Sequence:
    """The prompts the options name, of a file or of the world that the reward judges: by default so many of this split.

    Raises ValueError for a split of a file."""
    from .prompts import read_prompts, scene_prompts

    if args.prompts_file:
        if args.split:
            raise ValueError("--split is of the scene world's prompts, and --prompts-file names others; leave one of the two out")
        return read_prompts(args.prompts_file, args.prompts)
    return scene_prompts(default if args.prompts is None else args.prompts, args.split or split)


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A progress bar on stderr: what to call with how many are done, of how many."""
    from tqdm import tqdm

    with tqdm(desc=title, unit="unit") as shown:

        def progress(done: int, total: int) -> None:
            if shown.total != total:
                shown.reset(total)
                shown.initial = done
            shown.update(done - shown.n)

        yield progress
