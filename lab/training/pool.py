"""Encode training scenes ahead: `python -m lab.training.pool --tokenizer DIR --scenes 24576`.

Written in parts beside the tokenizer, so that a training can start on the first parts and find more later on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from lab.training.scenes import coverage, sample_scenes
from lab.training.text import tokenised
from lab.training.tokenizer import NAME, rendered, sizes
from ttsvar_core.atomic import replacing
from ttsvar_core.bsq.autoencoder import Tokenizer
from ttsvar_core.scenes.grammar import COLOURS, SHAPES, ScenePrompt, draw_prompt
from ttsvar_core.scenes.render import Scenes, cover_of

SHARES = {
    "single": 0.04, "colours": 0.06, "two": 0.08, "counting": 0.14, "position": 0.14, "attribution": 0.12, "sizes": 0.12,
    "three": 0.10, "groups": 0.10, "chain": 0.10,
}
CONTENTS = 1 + len(SHAPES) * len(COLOURS)
PART = 2048
BATCH = 32
PREFIX, PREFIX_SHARE = "a photo of ", 0.15


def described(folder: Path) -> dict:
    """What the tokenizer training says of its schedule and sizes."""
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The trained tokenizer, frozen."""
    tokenizer = Tokenizer(sizes(described(folder)))
    tokenizer.load_state_dict({k: v.float() for k, v in load_file(str(folder / f"{NAME}.vae.safetensors")).items()})
    return tokenizer.requires_grad_(False).eval()


def training_prompts(count: int, generator: numpy.random.Generator) -> list[ScenePrompt]:
    """Draw prompts of the training split in the categories' shares."""
    picks = generator.choice(list(SHARES), count, p=list(SHARES.values()))
    return [draw_prompt(str(category), "train", generator) for category in picks]


def worded(prompts: list[ScenePrompt], generator: numpy.random.Generator) -> list[str]:
    """The prompts' texts, some of them as photos."""
    return [PREFIX * int(generator.random() < PREFIX_SHARE) + prompt.text for prompt in prompts]


def content_map(scenes: Scenes, side: int) -> Tensor:
    """Which object every cell shows, (N, side, side) uint8: 1 + shape * colours + colour, 0 for none."""
    found = numpy.zeros((len(scenes.shapes), side, side), numpy.uint8)
    for row, place in zip(*numpy.nonzero(scenes.shapes >= 0), strict=True):
        top, left, cover = cover_of(scenes, row, place, side, grown=1.0)
        part = found[row, top : top + cover.shape[0], left : left + cover.shape[1]]
        part[cover > 0.45] = 1 + scenes.shapes[row, place] * len(COLOURS) + scenes.colours[row, place]
    return torch.from_numpy(found)


@torch.no_grad()
def encoded_part(tokenizer: Tokenizer, side: int, count: int, generator: numpy.random.Generator, device: str) -> dict[str, Tensor]:
    """Some scenes: `features` (N, C, h, w) float16, how much of every cell objects `cover` (N, 1, h, w) float16, the
    `content` (N, h, w) of every cell, and the prompt's `ids` (N, T) and `facts` (N, T, 7)."""
    pixels, found = side * tokenizer.config.patch_size, []
    for _ in range(0, count, BATCH):
        prompts = training_prompts(BATCH, generator)
        scenes = sample_scenes(prompts, generator)
        images = rendered(scenes, pixels)
        features = tokenizer.encode(images.to(device).contiguous(memory_format=torch.channels_last))
        covered = torch.from_numpy(coverage(scenes, pixels, grown=1.0))[:, None]
        ids, facts = tokenised(prompts, worded(prompts, generator))
        found.append({
            "features": features.half().cpu().contiguous(), "cover": F.adaptive_avg_pool2d(covered, side).half(),
            "content": content_map(scenes, side), "ids": ids, "facts": facts,
        })
    return {name: torch.cat([batch[name] for batch in found]) for name in found[0]}


def load_pool(folder: Path) -> dict[str, Tensor]:
    """All parts written so far as one."""
    parts = [torch.load(path, weights_only=True) for path in sorted(folder.glob("pool.*.pt"))]
    if not parts:
        raise FileNotFoundError(f"No encoded scenes in {folder}; run lab.training.pool --tokenizer {folder}")
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def main(argv: list[str] | None = None) -> int:
    """Write the parts that are missing."""
    parser = argparse.ArgumentParser(prog="python -m lab.training.pool", description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder the tokenizer training wrote")
    parser.add_argument("--scenes", type=int, default=24576)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    tokenizer = load_tokenizer(args.tokenizer).to(args.device, memory_format=torch.channels_last)
    side = described(args.tokenizer)["scale_schedule"][-1][0]
    for part, begin in enumerate(range(0, args.scenes, PART)):
        path = args.tokenizer / f"pool.{part:04d}.pt"
        if not path.exists():
            generator = numpy.random.default_rng([args.seed, 1, part])
            stored = encoded_part(tokenizer, side, min(PART, args.scenes - begin), generator, args.device)
            with replacing(path) as file:
                torch.save(stored, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
