"""Draw held-out scenes, sketches and reconstructions: `python -m lab.training.reconstructions --model DIR --out FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy
import torch

from lab.training.evaluate import load_folder
from lab.training.tokenizer import survival
from ttsvar_core.bsq.bits import encode_bits
from ttsvar_core.scenes.grammar import benchmark_prompts
from ttsvar_core.scenes.render import render, sample_scenes

SKETCHES = (1, 3, 6, 9, 11, 13)


def main(argv: list[str] | None = None) -> int:
    """Write the picture, one scene per column: original, then what its first scales show. Print how many scenes survive."""
    parser = argparse.ArgumentParser(prog="python -m lab.training.reconstructions", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=300, help="held-out scenes to count survivors among")
    args = parser.parse_args(argv)
    from PIL import Image

    model, _ = load_folder(args.model)
    schedule, tokenizer = model.schedule(), model.tokenizer
    scenes = sample_scenes(list(benchmark_prompts("test", 12, 1)), numpy.random.default_rng(1))
    images = torch.from_numpy(render(scenes)).permute(0, 3, 1, 2) * 2 - 1
    with torch.inference_mode():
        features = tokenizer.encode(images)
        rows = [images] + [tokenizer.decode(encode_bits(features, schedule, False, count)[1]) for count in SKETCHES]
    sheet = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    pixels = ((sheet.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.numpy()).save(args.out, optimize=True, quality=88)
    sys.stdout.write(json.dumps({"scenes": args.scenes, "survival": survival(tokenizer, schedule, args.scenes)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
