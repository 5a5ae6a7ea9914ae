"""``python -m lab.experiment NAME --prompts K --seeds K --workers W --out DIR``: measure what the search gains."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ttsvar_core import registry
from ttsvar_core.cli import Parser, answered, program
from ttsvar_core.commands import numbers

from . import options

SCENE_PROMPTS = 24
_ADVISE = "advise"  # a pool, and what it says
_BUDGETS = (1, 2, 4, 8)
_CHOOSING = ("pool", _ADVISE)  # what plans are chosen by is drawn of prompts that no plan is measured on
_NAMES = ("n-curve", "single-scale", "consistency", "ablations", "beyond", "equal-cost", "pool", _ADVISE)


def main(argv: Sequence[str] | None = None) -> int:
    return answered(lambda: run(build_parser().parse_args(argv)))


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m lab.experiment", description=__doc__)
    parser.add_argument("name", choices=_NAMES, help="what to measure; advise: draw a pool and tell the best plan per budget")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and report; an unfinished one is continued")
    options.add_prompts(parser, f"{SCENE_PROMPTS} of the scene world, or the whole file", "test; advise and pool: validation")
    parser.add_argument("--n", type=numbers.COUNT, nargs="+", help="values of N in place of the experiment's own")
    options.add_world(parser)
    parser.add_argument(
        "--extractor", nargs="+", metavar="NAME[=FILE]",
        help=f"extractors, the first one searches: tokenizer-PCA, chance, {registry.usages(registry.EXTRACTORS)}",
    )
    parser.add_argument(
        "--budgets", type=numbers.COUNT, nargs="+", help=f"advise: in pictures (default {' '.join(map(str, _BUDGETS))})"
    )
    parser.add_argument("--advice", type=Path, metavar="FILE", help="equal-cost: choose plans by this advice.json of a pool")
    parser.add_argument(
        "--arms", nargs="+", metavar="ARM", default=(),
        help="only these, by name, family (budget, funnel, beam) or pattern ('budget-4-*'), and what they are compared with",
    )
    parser.add_argument("--images", choices=("geneval", "t2i-compbench"), help="save every answer as this benchmark expects")
    options.add_workers(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run what is missing, write the report, say where it is. Ctrl-C keeps what is finished."""
    from .advise import read_advice, seen_before, write_advised
    from .definitions import ADVISED, EXPERIMENTS
    from .report import write_report
    from .runner import Asked, Where, run_experiment

    for option, value, only in (("--advice", args.advice, ADVISED), ("--budgets", args.budgets, _ADVISE)):
        if value is not None and args.name != only:
            raise ValueError(f"{option} is for {only}; leave it out")
    budgets, samples = sorted(set(args.budgets or _BUDGETS)), max(args.n or EXPERIMENTS["pool"][1])
    if args.name == _ADVISE and budgets[-1] > samples:
        raise ValueError(f"a budget of {budgets[-1]} pictures is rated on pools of as many samples; write --n {budgets[-1]}")
    advice = read_advice(args.advice) if args.advice else None
    asked = Asked("pool" if args.name == _ADVISE else args.name, args.n, args.arms, advice)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    where = Where(args.workers, args.engine, args.ray_address, args.images or "")
    files = options.world_files(args)
    prompts = options.prompts(args, SCENE_PROMPTS, "validation" if args.name in _CHOOSING else "test")
    if told := seen_before(advice, [prompt.text for prompt in prompts]):
        print(told, file=sys.stderr)
    try:
        with options.bar(asked.name) as progress:
            path = run_experiment(asked, files, prompts, seeds, args.out, where, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Interrupted; {args.out} keeps what is finished, the same command goes on from there.") from None
    print(f"{path}\n{write_report(path)}")
    if args.name == _ADVISE:
        print(write_advised(path, budgets))
    return 0


if __name__ == "__main__":
    program(main)
