"""How good raw pictures are, by category: `python -m lab.training.evaluate --model DIR`. Also tunes and draws sheets."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lab.training.tokenizer import NAME, clear_atoms
from ttsvar_core.config import Sampling
from ttsvar_core.inspect.canvas import to_pictures
from ttsvar_core.scenes.grammar import CATEGORIES, ScenePrompt, benchmark_prompts
from ttsvar_core.scenes.verify import Judgement, judge_image


class Outcome(NamedTuple):
    """Images of one prompt (P, H, W, 3) and the verifier's word on each."""

    prompt: ScenePrompt
    images: Tensor
    judged: list[Judgement]

    @property
    def right(self) -> float:
        """Share of the images that are right."""
        return sum(verdict.correct for verdict in self.judged) / len(self.judged)


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
    from ttsvar_core.infinity.text import load_text_encoder
    from ttsvar_core.weights import load_model

    paths = (str(folder / f"{NAME}.{part}.safetensors") for part in ("transformer", "vae"))
    return load_model(*paths), load_text_encoder(folder / f"{NAME}.t5")


def draw(model, encoder, prompt: ScenePrompt, samples: int, seed: int, sampling: Sampling | None) -> Outcome:
    """Raw pictures of a prompt and the verifier's word on them."""
    from ttsvar_core.decoding import decode
    from ttsvar_core.infinity.text import encode_prompt
    from ttsvar_core.sampling import sample
    from ttsvar_core.state import start

    state = start(model, encode_prompt(encoder, prompt.text), samples, seed)
    images = decode(sample(state, len(model.schedule()) - 1, sampling))
    return Outcome(prompt, images, [judge_image(image, prompt) for image in images.float().numpy()])


def summary(outcomes: list[Outcome]) -> dict[str, float]:
    """Share of right pictures by category and over all prompts, share of prompts with none right, the mean grade, the mean
    share of clear atoms, and the median over prompts of the grade's standard deviation within one."""
    shares = {}
    for category in CATEGORIES:
        of_category = [o.right for o in outcomes if o.prompt.category == category]
        if of_category:
            shares[category] = sum(of_category) / len(of_category)
    judged = [verdict for outcome in outcomes for verdict in outcome.judged]
    shares["overall"] = sum(o.right for o in outcomes) / len(outcomes)
    shares["never"] = sum(o.right == 0 for o in outcomes) / len(outcomes)
    shares["grade"] = sum(verdict.score for verdict in judged) / len(judged)
    shares["atoms"] = clear_atoms(judged)
    if len(outcomes[0].judged) > 1:
        within = torch.stack([torch.tensor([verdict.score for verdict in o.judged]).std() for o in outcomes])
        shares["spread"] = float(within.median())
    return {name: round(value, 4) for name, value in shares.items()}


def per_scale(text: str) -> float | tuple[float, ...]:
    """A number, or one for every scale: "1x7+0.5x6" is seven times 1 and six times 0.5."""
    if "x" not in text:
        return float(text)
    runs = (part.split("x") for part in text.split("+"))
    return tuple(float(value) for value, times in runs for _ in range(int(times)))


def parse_settings(text: str) -> list[Sampling | None]:
    """Sampling settings from text such as "3:0.7:0.97,2:1x7+0.5x6:1"; None stands for the model's own."""
    return [Sampling(*(per_scale(part) for part in one.split(":"))) for one in text.split(",")] if text else [None]


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


def measure(args: argparse.Namespace, models: tuple, prompts: Sequence[ScenePrompt]) -> Iterator[list[Outcome]]:
    """The outcomes of every setting; prints a line of json for each."""
    model, encoder = models
    for sampling in parse_settings(args.settings):
        begun = time.monotonic()
        outcomes = [
            draw(model, encoder, prompt, args.samples, args.seed * 10_000 + place, sampling)
            for place, prompt in enumerate(prompts)
        ]
        used = sampling or model.config.sampling
        setting = {"guidance": used.guidance, "tau": used.tau, "top_p": used.top_p}
        seconds = round((time.monotonic() - begun) / (len(prompts) * args.samples), 3)
        sys.stdout.write(json.dumps(setting | summary(outcomes) | {"seconds_each": seconds}) + "\n")
        sys.stdout.flush()
        yield outcomes


def main(argv: list[str] | None = None) -> int:
    """Print one line of json per setting."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    prompts = benchmark_prompts(args.split, args.prompts, args.seed)
    for outcomes in measure(args, load_folder(args.model), prompts):
        if args.sheet:
            write_sheet(outcomes, args.columns, args.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
