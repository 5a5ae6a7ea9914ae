"""Options that every command has that draws samples of many prompts: which, with what, and where it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ttsvar_core import registry
from ttsvar_core.commands import numbers
from ttsvar_core.commands.choices import device

SPLITS = ("train", "validation", "test")


def add_prompts(parser: argparse.ArgumentParser, default: str, split: str = "test") -> None:
    """Which prompts and seeds."""
    parser.add_argument("--prompts", type=numbers.COUNT, metavar="K", help=f"the first K (default: {default})")
    parser.add_argument("--seeds", type=numbers.COUNT, default=1, help="seeds per prompt (default 1)")
    parser.add_argument("--first-seed", type=numbers.FROM_ZERO, default=0, metavar="S", help="seeds S, S+1, ... (default 0)")
    parser.add_argument("--prompts-file", type=Path, help="JSONL (GenEval's list) or text, one prompt per line")
    parser.add_argument("--split", choices=SPLITS, default=split, help="of the scene world's prompts (default %(default)s)")


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
    parser.add_argument("--pixel-budget", default="1M", help="for a model without a schedule of its own (default 1M)")
    parser.add_argument("--device", type=device, default="cpu", help="where the models run (default cpu)")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Where it runs."""
    parser.add_argument("--workers", type=numbers.COUNT, default=1, help="processes, one thread each; results do not depend on it")
    parser.add_argument("--engine", choices=("processes", "ray"), default="processes", help="where workers run")
    parser.add_argument("--ray-address", help="a running Ray cluster (default: a local one of --workers)")


def world_files(args: argparse.Namespace):
    """The world the options name. Raises ValueError for a model of two files or more than three."""
    from .world import BUNDLED_EXTRACTORS, BUNDLED_REWARDS, WorldFiles, spelled

    if len(args.model) not in (0, 1, 3):
        raise ValueError(f"--model takes one folder or three files (transformer, tokenizer, T5); {len(args.model)} were given")
    extractors = getattr(args, "extractor", None) or BUNDLED_EXTRACTORS
    return WorldFiles(
        tuple(str(Path(file).absolute()) for file in args.model), tuple(args.reward or BUNDLED_REWARDS),
        tuple(map(spelled, extractors)), pixel_budget=args.pixel_budget, device=args.device,
    )


def prompts(args: argparse.Namespace, default: int) -> Sequence:
    """The prompts the options name, of a file or of the world that the reward judges."""
    from .prompts import read_prompts, scene_prompts

    if args.prompts_file:
        return read_prompts(args.prompts_file, args.prompts)
    return scene_prompts(default if args.prompts is None else args.prompts, args.split)


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr: what to call with how many are done, of how many."""
    from tqdm import tqdm

    with tqdm(desc=title, unit="unit") as shown:

        def progress(done: int, total: int) -> None:
            if shown.total != total:
                shown.reset(total)
                shown.initial = done
            shown.update(done - shown.n)

        yield progress
