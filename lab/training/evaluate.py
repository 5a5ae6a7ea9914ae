"""How good raw pictures are, by category: `python -m lab.training.evaluate --model DIR`. Also tunes and draws sheets."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import fmean, median_low, stdev
from typing import NamedTuple

import torch
from torch import Tensor

from lab.training.tokenizer import NAME, clear_atoms
from ttsvar_core.config import Sampling
from ttsvar_core.decoding import decode
from ttsvar_core.infinity.text import encode_prompt, load_text_encoder
from ttsvar_core.inspect.canvas import to_pictures
from ttsvar_core.sampling import sample
from ttsvar_core.scenes.grammar import CATEGORIES, ScenePrompt, benchmark_prompts
from ttsvar_core.scenes.verify import Judgement, judge_image
from ttsvar_core.state import start
from ttsvar_core.weights import load_model


class Outcome(NamedTuple):
    """Images of one prompt (P, H, W, 3) and the verifier's word on each."""

    prompt: ScenePrompt
    images: Tensor
    judged: list[Judgement]

    @property
    def right(self) -> float:
        """Share of the images that are right."""
        return fmean(verdict.correct for verdict in self.judged)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.training.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help=f"folder with {NAME}.*")
    parser.add_argument("--split", default="validation", choices=("train", "validation", "test"))
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--samples", type=int, default=1, help="pictures of each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--settings", default="",
        help="guidance:tau:top_p, several separated by commas, each a number or per scale, as 1x7+0.5x6; the model's own if empty",
    )
    parser.add_argument("--sheet", type=Path, default=None, help="write a picture with one row of samples per category")
    parser.add_argument("--columns", type=int, default=10, help="pictures in a row of the sheet")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def load_folder(folder: Path):
    """Model and text encoder of a training or bundled folder."""
    paths = (str(folder / f"{NAME}.{part}.safetensors") for part in ("transformer", "vae"))
    return load_model(*paths), load_text_encoder(folder / f"{NAME}.t5")


def draw(model, encoder, prompt: ScenePrompt, samples: int, seed: int, sampling: Sampling | None) -> Outcome:
    """Raw pictures of a prompt and the verifier's word on them."""
    state = start(model, encode_prompt(encoder, prompt.text), samples, seed)
    images = decode(sample(state, len(model.schedule()) - 1, sampling))
    return Outcome(prompt, images, [judge_image(image, prompt) for image in images.float().numpy()])


def summary(outcomes: list[Outcome]) -> dict[str, float]:
    """Share of right pictures by category and over all prompts, share of prompts with none right, the mean grade, the mean
    share of clear atoms, and the median over prompts of the grade's standard deviation within one."""
    by_category = {category: [o.right for o in outcomes if o.prompt.category == category] for category in CATEGORIES}
    judged = [verdict for outcome in outcomes for verdict in outcome.judged]
    shares = {category: fmean(rights) for category, rights in by_category.items() if rights} | {
        "overall": fmean(o.right for o in outcomes), "never": fmean(o.right == 0 for o in outcomes),
        "grade": fmean(verdict.score for verdict in judged), "atoms": clear_atoms(judged),
    }
    if len(outcomes[0].judged) > 1:
        shares["spread"] = median_low(stdev(verdict.score for verdict in o.judged) for o in outcomes)
    return {name: round(value, 4) for name, value in shares.items()}


def per_scale(text: str) -> float | tuple[float, ...]:
    """A number, or one for every scale: "1x7+0.5x6" is seven times 1 and six times 0.5."""
    if "x" not in text:
        return float(text)
    runs = (part.split("x") for part in text.split("+"))
    return tuple(float(value) for value, times in runs for _ in range(int(times)))


def write_sheet(outcomes: list[Outcome], columns: int, path: Path) -> None:
    """One row of pictures per category."""
    rows = []
    for category in CATEGORIES:
        found = [image for o in outcomes if o.prompt.category == category for image in o.images][:columns]
        rows.append(torch.cat([torch.nn.functional.pad(p, (0, 0, 1, 1, 1, 1), value=0.5) for p in found], 1))
    widest = max(row.shape[1] for row in rows)
    rows = [torch.nn.functional.pad(row, (0, 0, 0, widest - row.shape[1]), value=1.0) for row in rows]
    save_image(torch.cat(rows), path)


def save_image(image: Tensor, path: Path) -> None:
    """Write an image (H, W, 3) in [0, 1] in the format its name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pictures(image[None])[0].save(path, optimize=True, quality=88)


def main(argv: list[str] | None = None) -> int:
    """Print one line of json per setting."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    prompts, (model, encoder) = benchmark_prompts(args.split, args.prompts, args.seed), load_folder(args.model)
    for setting in args.settings.split(","):
        used = Sampling(*map(per_scale, setting.split(":"))) if setting else model.config.sampling
        begun = time.monotonic()
        outcomes = [
            draw(model, encoder, prompt, args.samples, args.seed * 10_000 + place, used) for place, prompt in enumerate(prompts)
        ]
        told = {"guidance": used.guidance, "tau": used.tau, "top_p": used.top_p, **summary(outcomes)}
        told["seconds_each"] = round((time.monotonic() - begun) / (len(prompts) * args.samples), 3)
        print(json.dumps(told), flush=True)
        if args.sheet:
            write_sheet(outcomes, args.columns, args.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
