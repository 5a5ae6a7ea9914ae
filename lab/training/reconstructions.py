"""Draw held-out scenes, sketches and reconstructions: `python -m lab.training.reconstructions --model DIR --out FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.training.evaluate import load_folder, save_image
from lab.training.scenes import sample_scenes
from lab.training.tokenizer import rendered, survival
from ttsvar_core.bsq.bits import encode_bits
from ttsvar_core.image_model import ImageModel
from ttsvar_core.scenes.grammar import benchmark_prompts

SKETCHES = (3, 6, 9, 11, 13)


def shown(model: ImageModel, images: Tensor, count: int) -> Tensor:
    """What the first `count` scales of encoded images (B, 3, H, W) show, decoded as small as sketches are, at full size."""
    schedule = model.schedule()
    features = encode_bits(model.tokenizer.encode(images), schedule, False, count)[1]
    grid = model.config.sketch_cells(schedule, count - 1)
    return F.interpolate(model.tokenizer.decode(F.adaptive_avg_pool2d(features, grid)), size=images.shape[-2:])


def main(argv: list[str] | None = None) -> int:
    """Write the picture, one scene per column: original, then what its first scales show. Print how many scenes survive."""
    parser = argparse.ArgumentParser(prog="python -m lab.training.reconstructions", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=300, help="held-out scenes to count survivors among")
    args = parser.parse_args(argv)
    model, _ = load_folder(args.model)
    scenes = sample_scenes(list(benchmark_prompts("test", 10, 1)), numpy.random.default_rng(1))
    images = rendered(scenes, model.config.pixels_per_token * model.schedule().final[0])
    with torch.inference_mode():
        rows = [images, *(shown(model, images, count) for count in SKETCHES)]
    sheet = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    save_image((sheet.permute(1, 2, 0) + 1) / 2, args.out)
    told = {"scenes": args.scenes}
    for name, shrink in (("whole", 1), ("half", 2)):
        right, atoms = survival(model.tokenizer, model.schedule(), args.scenes, shrink=shrink)
        told[name] = {"right": right, "atoms": atoms}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
