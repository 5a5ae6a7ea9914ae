"""Raw accuracy of a model folder by category: `python -m lab.training.evaluate --model DIR`. Also tunes and draws sample sheets."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lab.training.world import evaluate as world
from ttsvar_core.config import Sampling
from ttsvar_core.scenes.grammar import CATEGORIES, ScenePrompt, benchmark_prompts


class Outcome(NamedTuple):
    """Images of one prompt (P, H, W, 3), how many are right, and the sum of their grades."""

    prompt: ScenePrompt
    images: Tensor
    right: int
    grade: float


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m lab.training.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with scenes64.*")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--samples", type=int, default=1, help="pictures of each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", default="", help="guidance:tau:top_p, several separated by commas; the model's own if empty")
    parser.add_argument("--sheet", type=Path, default=None, help="write a picture with one row of samples per category")
    parser.add_argument("--columns", type=int, default=10, help="pictures in a row of the sheet")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def load_folder(folder: Path):
    """Model and text encoder of a training or bundled folder."""
    return world.load_folder(folder, "scenes64")


def draw(model, encoder, prompt: ScenePrompt, samples: int, seed: int, sampling: Sampling | None) -> Outcome:
    """Raw pictures of a prompt and the verifier's word on them."""
    from ttsvar_core.rewards.scenes import judge_images

    images = world.pictures(model, encoder, prompt.text, samples, seed, sampling)
    judged = judge_images(images, prompt)
    return Outcome(prompt, images, sum(j.correct for j in judged), sum(j.score for j in judged))


def summary(outcomes: list[Outcome], samples: int) -> dict[str, float]:
    """Accuracy by category, their mean (GenEval's overall), and the mean grade."""
    shares = {}
    for category in CATEGORIES:
        of_category = [o for o in outcomes if o.prompt.category == category]
        if of_category:
            shares[category] = sum(o.right for o in of_category) / (len(of_category) * samples)
    shares["overall"] = sum(shares.values()) / len(shares)
    shares["grade"] = sum(o.grade for o in outcomes) / (len(outcomes) * samples)
    return {name: round(value, 4) for name, value in shares.items()}


def main(argv: list[str] | None = None) -> int:
    """Print one line of json per setting."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    prompts = benchmark_prompts(args.split, args.prompts, args.seed)
    for outcomes in world.measure(args, load_folder(args.model), prompts, draw, partial(summary, samples=args.samples)):
        if args.sheet:
            world.write_sheet(outcomes, CATEGORIES, args.columns, args.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
