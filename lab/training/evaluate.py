"""Raw accuracy of a model folder by category: `python -m lab.training.evaluate --model DIR`. Also tunes and draws sample sheets."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

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
    from ttsvar_core.infinity.text import load_text_encoder
    from ttsvar_core.weights import load_model

    paths = (str(folder / f"scenes64.{part}.safetensors") for part in ("transformer", "vae"))
    return load_model(*paths), load_text_encoder(folder / "scenes64.t5")


def draw(model, encoder, prompt: ScenePrompt, samples: int, seed: int, sampling: Sampling | None) -> Outcome:
    """Raw pictures of a prompt and the verifier's word on them."""
    from ttsvar_core.decoding import decode
    from ttsvar_core.infinity.text import encode_prompt
    from ttsvar_core.rewards.scenes import judge_images
    from ttsvar_core.sampling import sample
    from ttsvar_core.state import start

    state = start(model, encode_prompt(encoder, prompt.text), samples, seed)
    images = decode(sample(state, len(model.schedule()) - 1, sampling))
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


def parse_settings(text: str) -> list[Sampling | None]:
    """Sampling settings from text such as "3:0.7:0.97,2:1:1"; None stands for the model's own."""
    if not text:
        return [None]
    return [Sampling(*(float(part) for part in setting.split(":"))) for setting in text.split(",")]


def write_sheet(outcomes: list[Outcome], columns: int, path: Path) -> None:
    """One row of pictures per category."""
    from PIL import Image

    rows = []
    for category in CATEGORIES:
        pictures = []
        for outcome in (o for o in outcomes if o.prompt.category == category):
            pictures += list(outcome.images)
        rows.append(torch.cat([torch.nn.functional.pad(p, (0, 0, 1, 1, 1, 1), value=0.5) for p in pictures[:columns]], 1))
    sheet = (torch.cat(rows).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path, optimize=True, quality=88)


def main(argv: list[str] | None = None) -> int:
    """Print one line of json per setting."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    model, encoder = load_folder(args.model)
    prompts = benchmark_prompts(args.split, args.prompts, args.seed)
    for sampling in parse_settings(args.settings):
        begun = time.monotonic()
        outcomes = [
            draw(model, encoder, prompt, args.samples, args.seed * 10_000 + place, sampling)
            for place, prompt in enumerate(prompts)
        ]
        used = sampling or model.config.sampling
        setting = {"guidance": used.guidance, "tau": used.tau, "top_p": used.top_p}
        seconds = round((time.monotonic() - begun) / (len(prompts) * args.samples), 3)
        sys.stdout.write(json.dumps(setting | summary(outcomes, args.samples) | {"seconds_each": seconds}) + "\n")
        sys.stdout.flush()
        if args.sheet:
            write_sheet(outcomes, args.columns, args.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
