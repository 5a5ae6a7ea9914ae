"""Train the tokenizer: `python -m lab.training.tokenizer --out DIR`. Resumes from DIR when run again."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from lab.training.common import Run, add_common_arguments, export, train
from lab.training.scenes import coverage, sample_scenes
from ttsvar_core.bsq.autoencoder import Tokenizer
from ttsvar_core.bsq.bits import encode_bits
from ttsvar_core.config import TokenizerConfig
from ttsvar_core.names import BUNDLED as NAME
from ttsvar_core.scales import ScaleSchedule
from ttsvar_core.scenes.grammar import COLOURS, MOST_OBJECTS, SHAPES, Noun, ScenePrompt, benchmark_prompts
from ttsvar_core.scenes.render import Scenes, render
from ttsvar_core.scenes.verify import Judgement, judge_image

SCHEDULE = "1 1 1 2 2 3 4 5 6 8 10 12 16"
OBJECT_WEIGHT = 4.0
COMMITMENT = 0.05
UNQUANTISED_STEPS = 150
SKETCHES = 0.5  # share of the batch that is decoded from its first scales too, at half size, and of it again at full size
SKETCH_WEIGHT = 0.3
HELD_OUT_SEED = 7


def sides(text: str) -> list[int]:
    """Of the grids of a schedule."""
    return [int(side) for side in text.split()]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.training.tokenizer", description=__doc__)
    add_common_arguments(parser, steps=6000, batch=6, rate=2e-3)
    parser.add_argument("--schedule", type=sides, default=SCHEDULE, help="sides of the 13 token grids")
    parser.add_argument("--bits", type=int, default=16)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--ch-mult", default="1,1,2,4", help="the stride is 2 to the number of these less one")
    parser.add_argument("--res-blocks", type=int, default=1)
    parser.add_argument("--init", type=Path, help="folder with exported weights to go on from")
    parser.add_argument("--decoder-only", action="store_true", help="keep the encoder of --init, whose features are in use")
    return parser


def crowd(generator: numpy.random.Generator) -> ScenePrompt:
    """Objects of any kind, more than most prompts ask for, but no held-out combination: a tokenizer learns from
    objects, and most of a picture is background otherwise."""
    while True:
        kinds = generator.integers((len(SHAPES), len(COLOURS)), size=(int(generator.integers(1, MOST_OBJECTS + 1)), 2))
        nouns = tuple(Noun(SHAPES[shape], COLOURS[colour]) for shape, colour in kinds)
        if ScenePrompt(nouns).split == "train":
            return ScenePrompt(nouns)


def rendered(scenes: Scenes, side: int) -> Tensor:
    """Images (N, 3, side, side) in [-1, 1]."""
    return torch.from_numpy(render(scenes, side)).permute(0, 3, 1, 2) * 2 - 1


def picture_batch(args: argparse.Namespace, side: int, generator: numpy.random.Generator) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) in [-1, 1] and loss weights (B, 1, H, W), heavier on objects and just around them."""
    scenes = sample_scenes([crowd(generator) for _ in range(args.batch)], generator)
    images = rendered(scenes, side)
    weights = 1 + OBJECT_WEIGHT * torch.from_numpy(coverage(scenes, side, grown=1.5))[:, None]
    return images.to(args.device).contiguous(memory_format=torch.channels_last), weights.to(args.device)


def painting_loss(painted: Tensor, images: Tensor, weights: Tensor) -> Tensor:
    """Weighted difference of what was painted and the images (B, 3, H, W), both averaged down to the size painted."""
    if painted.shape != images.shape:
        images, weights = (F.interpolate(t, size=painted.shape[-2:], mode="area") for t in (images, weights))
    error = painted - images
    return ((error.abs() + error.square()) * weights).mean() / weights.mean()


def losses(model: Tokenizer, images: Tensor, weights: Tensor, schedule: ScaleSchedule, prefix: int) -> dict[str, Tensor]:
    """The picture from all scales at full and at half size, sketches of the first `prefix` scales, and the commitment.

    Codes are quantised straight-through. Sketches train the decoder alone: their gradient would flatten the features.
    """
    features = model.encoder(images)
    codes = encode_bits(features.detach(), schedule, False)[1]
    used = features + (codes - features).detach()
    few = max(1, int(len(images) * SKETCHES))
    fewer = max(1, int(few * SKETCHES))
    sketches = encode_bits(features[:few].detach(), schedule, False, prefix)[1]
    return {
        "whole": painting_loss(model.decoder(used), images, weights),
        "half": painting_loss(model.decoder(F.avg_pool2d(used, 2)), images, weights),
        "sketch": painting_loss(model.decoder(F.avg_pool2d(sketches, 2)), images[:few], weights[:few]),
        "large_sketch": painting_loss(model.decoder(sketches[:fewer]), images[:fewer], weights[:fewer]),
        "commitment": (features - codes).square().mean(),
    }


def train_step(run: Run, schedule: ScaleSchedule) -> dict[str, float]:
    """One optimiser step; returns what is worth logging."""
    args, model, generator = run.args, run.modules["tokenizer"], run.generator()
    images, weights = picture_batch(args, schedule.final[0] * model.config.patch_size, generator)
    prefix = int(generator.integers(2, len(schedule)))
    if args.init is None and run.step < UNQUANTISED_STEPS:
        parts = {"whole": painting_loss(model.decoder(model.encoder(images)), images, weights)}
    else:
        parts = losses(model, images, weights, schedule, prefix)
    factors = {"whole": 1.0, "half": 1.0, "sketch": SKETCH_WEIGHT, "large_sketch": SKETCH_WEIGHT, "commitment": COMMITMENT}
    norm = run.update(sum(factors[name] * part for name, part in parts.items()))
    return {name: float(part.detach()) for name, part in parts.items()} | {"norm": norm}


@torch.no_grad()
def survival(model: Tokenizer, schedule: ScaleSchedule, count: int, shrink: int = 1) -> tuple[float, float]:
    """How held-out scenes survive encoding and decoding, at 1 / `shrink` the size: the share that the verifier finds whole,
    and the mean share of atoms."""
    prompts = benchmark_prompts("test", count, HELD_OUT_SEED)
    scenes = sample_scenes(list(prompts), numpy.random.default_rng([HELD_OUT_SEED, 1]))
    images = rendered(scenes, model.config.patch_size * schedule.final[0])
    device = next(model.parameters()).device
    judged = []
    for start in range(0, count, 16):
        codes = encode_bits(model.encode(images[start : start + 16].to(device)), schedule, False)[1]
        decoded = model.decode(F.avg_pool2d(codes, shrink)).cpu()
        pictures = ((decoded + 1) / 2).permute(0, 2, 3, 1).numpy()
        judged += [judge_image(p, q) for p, q in zip(pictures, prompts[start : start + 16], strict=True)]
    return sum(j.correct for j in judged) / count, clear_atoms(judged)


def clear_atoms(judged: list[Judgement]) -> float:
    """The mean share of atoms that are clear, which is above a half."""
    return sum(sum(value > 0.5 for value in j.atoms.values()) / len(j.atoms) for j in judged) / len(judged)


def description(args: argparse.Namespace) -> dict:
    """The tokenizer's part of the model's json file."""
    multipliers, last = [int(m) for m in args.ch_mult.split(",")], args.schedule[-1]
    patch = 2 ** (len(multipliers) - 1)
    return {
        "scale_schedule": [[side, side] for side in args.schedule], "rope_reference_grid": [last, last], "codebook_dim": args.bits,
        "vae_base_ch": args.width, "vae_ch_mult": multipliers, "vae_num_res_blocks": args.res_blocks,
        "patch_size": patch, "image_size": [patch * last, patch * last], "vae_smallest_side": patch * last // 2,
    }


def sizes(described: dict) -> TokenizerConfig:
    """Of the tokenizer that `description` tells of."""
    names = ("codebook_dim", "vae_base_ch", "vae_ch_mult", "vae_num_res_blocks", "patch_size", "vae_smallest_side")
    return TokenizerConfig(*(tuple(described[name]) if name == "vae_ch_mult" else described[name] for name in names))


def save_all(run: Run) -> None:
    """Write the checkpoint and the averaged weights in the published layout."""
    run.save()
    export(run.average["tokenizer"], run.args.out / f"{NAME}.vae.safetensors")
    (run.args.out / "tokenizer.json").write_text(json.dumps(description(run.args)) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Train until the steps or the minutes are used up."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    described = description(args)
    grids = tuple(map(tuple, described["scale_schedule"]))
    model = Tokenizer(sizes(described)).to(args.device, memory_format=torch.channels_last)
    if args.init:
        model.load_state_dict(load_file(args.init / f"{NAME}.vae.safetensors"))
    model.encoder.requires_grad_(not args.decoder_only)
    run = Run(nn.ModuleDict({"tokenizer": model}), args, "tokenizer")
    train(run, partial(train_step, run, ScaleSchedule(grids, grids[-1])), partial(save_all, run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
