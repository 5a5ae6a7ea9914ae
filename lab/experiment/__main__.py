"""``python -m lab.experiment NAME --prompts K --seeds K --workers W --out DIR``: measure what the search gains."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ttsvar_core import registry
from ttsvar_core.cli import Parser, answered, program
from ttsvar_core.commands import numbers
from ttsvar_core.commands.choices import device

SCENE_PROMPTS = 24
_ADVISE = "advise"  # a pool, and what it says
_NAMES = ("n-curve", "single-scale", "consistency", "ablations", "beyond", "equal-cost", "pool", _ADVISE)
_SPLITS = ("train", "validation", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return answered(lambda: run(build_parser().parse_args(argv)))


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = Parser(prog="python -m lab.experiment", description=__doc__)
    parser.add_argument("name", choices=_NAMES, help="what to measure; advise: draw a pool and tell the best plan per budget")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and report; an unfinished one is continued")
    parser.add_argument(
        "--prompts", type=numbers.COUNT, metavar="K",
        help=f"the first K (default: {SCENE_PROMPTS} of the scene world, or the whole file)",
    )
    parser.add_argument("--seeds", type=numbers.COUNT, default=1, help="seeds per prompt (default 1)")
    parser.add_argument("--first-seed", type=numbers.FROM_ZERO, default=0, metavar="S", help="seeds S, S+1, ... (default 0)")
    parser.add_argument("--workers", type=numbers.COUNT, default=1, help="processes, one thread each; results do not depend on it")
    parser.add_argument("--n", type=numbers.COUNT, nargs="+", help="values of N in place of the experiment's own")
    parser.add_argument("--prompts-file", type=Path, help="JSONL (GenEval's list) or text, one prompt per line")
    parser.add_argument("--split", choices=_SPLITS, default="test", help="of the scene world's prompts (default test)")
    parser.add_argument(
        "--model", nargs="+", metavar="FILE", default=(),
        help="in place of the bundled model: transformer, tokenizer and T5, or a folder that holds the three",
    )
    parser.add_argument(
        "--reward", nargs="+", metavar="NAME[=FILE]",
        help=f"rewards, the first one searches, all measure: clarity, world, {registry.usages(registry.REWARDS)}",
    )
    parser.add_argument(
        "--extractor", nargs="+", metavar="NAME[=FILE]",
        help=f"extractors, the first one searches: tokenizer-PCA, chance, {registry.usages(registry.EXTRACTORS)}",
    )
    parser.add_argument("--pixel-budget", default="1M", help="for a model without a schedule of its own (default 1M)")
    parser.add_argument("--device", type=device, default="cpu", help="where the models run (default cpu)")
    parser.add_argument(
        "--budgets", type=numbers.COUNT, nargs="+", default=(1, 2, 4, 8), help="advise: in pictures (default 1 2 4 8)"
    )
    parser.add_argument("--advice", type=Path, metavar="FILE", help="equal-cost: cut as the advice.json of a pool says")
    parser.add_argument("--images", choices=("geneval", "t2i-compbench"), help="save every answer as this benchmark expects")
    parser.add_argument("--engine", choices=("processes", "ray"), default="processes", help="where workers run")
    parser.add_argument("--ray-address", help="a running Ray cluster (default: a local one of --workers)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run what is missing, write the report, say where it is. Ctrl-C keeps what is finished."""
    from .advise import write_advised
    from .report import write_report
    from .runner import Where, run_experiment

    name = "pool" if args.name == _ADVISE else args.name
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    where = Where(args.workers, args.engine, args.ray_address, args.images or "")
    files, prompts = _files(args), _prompts(args)
    _keep_advice(args)
    try:
        with _bar(name) as progress:
            path = run_experiment(name, files, prompts, seeds, args.out, where, args.n, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Interrupted; {args.out} keeps what is finished, the same command goes on from there.") from None
    print(f"{path}\n{write_report(path)}")
    if args.name == _ADVISE:
        print(write_advised(path, sorted(set(args.budgets))))
    return 0


def _keep_advice(args: argparse.Namespace) -> None:
    """Put the advice that arms follow into the experiment's folder, where it is found when the command is repeated."""
    from .advice import ADVICE, read_advice, write_advice

    if args.advice:
        advice = read_advice(args.advice)
        args.out.mkdir(parents=True, exist_ok=True)
        write_advice(args.out / ADVICE, advice)


def _files(args: argparse.Namespace):
    from .world import BUNDLED_EXTRACTORS, BUNDLED_REWARDS, WorldFiles, spelled

    if len(args.model) not in (0, 1, 3):
        raise ValueError(f"--model takes one folder or three files (transformer, tokenizer, T5); {len(args.model)} were given")
    return WorldFiles(
        tuple(str(Path(file).absolute()) for file in args.model), tuple(args.reward or BUNDLED_REWARDS),
        tuple(map(spelled, args.extractor or BUNDLED_EXTRACTORS)), pixel_budget=args.pixel_budget, device=args.device,
    )


def _prompts(args: argparse.Namespace) -> Sequence:
    from .prompts import read_prompts, scene_prompts, world_prompts

    if args.prompts_file:
        return read_prompts(args.prompts_file, args.prompts)
    of_world = world_prompts if "world" in (args.reward or ()) else scene_prompts
    return of_world(SCENE_PROMPTS if args.prompts is None else args.prompts, args.split)


class _bar:
    """A progress bar on stderr, or one line per unit without tqdm."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar = None

    def __enter__(self) -> Callable[[int, int], None]:
        try:
            from tqdm import tqdm
        except ImportError:
            return lambda done, total: print(f"{self._title}: {done}/{total}", file=sys.stderr)

        def progress(done: int, total: int) -> None:
            if self._bar is None:
                self._bar = tqdm(total=total, initial=done, desc=self._title, unit="unit")
            self._bar.update(done - self._bar.n)

        return progress

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


if __name__ == "__main__":
    program(main)
