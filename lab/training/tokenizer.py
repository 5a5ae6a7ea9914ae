"""Train the scene tokenizer: `python -m lab.training.tokenizer --out DIR`. Resumes from DIR when run again."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from lab.training.common import Run, add_common_arguments, export, training_prompts
from ttsvar_core.bsq.autoencoder import Tokenizer
from ttsvar_core.bsq.bits import encode_bits
from ttsvar_core.config import TokenizerConfig
from ttsvar_core.scales import ScaleSchedule, parse_schedule
from ttsvar_core.scenes.render import coverage, render, sample_scenes

SCHEDULE = "1 1 2 2 2 4 4 4 4 6 6 8 8"
OBJECT_WEIGHT = 8.0
COMMITMENT = 0.05
PREFIX_SHARE = 0.25
UNQUANTISED_SHARE = 0.06


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m lab.training.tokenizer", description=__doc__)
    add_common_arguments(parser, steps=9000, batch=16, rate=2e-3)
    parser.add_argument("--schedule", default=SCHEDULE, help="sides of the 13 token grids")
    parser.add_argument("--bits", type=int, default=16)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--ch-mult", default="1,2,4,8")
    parser.add_argument("--res-blocks", type=int, default=1)
    parser.add_argument("--side", type=int, default=64, help="side of the pictures in pixels")
    return parser


def picture_batch(args: argparse.Namespace, generator) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) in [-1, 1] and loss weights (B, 1, H, W), heavier on objects and just around them."""
    scenes = sample_scenes(training_prompts(args.batch, generator), generator)
    images = torch.from_numpy(render(scenes, args.side)).permute(0, 3, 1, 2) * 2 - 1
    near = coverage(scenes._replace(radii=scenes.radii + 1.5), args.side)
    weights = 1 + OBJECT_WEIGHT * torch.from_numpy(near)[:, None]
    layout = torch.channels_last
    return images.to(args.device).contiguous(memory_format=layout), weights.to(args.device)


def reconstruct(model: Tokenizer, images: Tensor, schedule: ScaleSchedule, prefix: int, quantised: bool):
    """Encode, quantise straight-through and decode: (images (B, 3, H, W), commitment loss).

    The last PREFIX_SHARE of the batch is decoded from its first `prefix` scales only, so that sketches mean something;
    those rows train the decoder alone, because a sketch's gradient would flatten the features.
    """
    features = model.encoder(images)
    if not quantised:
        return model.decoder(features), features.new_zeros(())
    codes = encode_bits(features.detach(), schedule, False)[1]
    commitment = (features - codes).square().mean()
    used = features + (codes - features).detach()
    few = int(len(images) * PREFIX_SHARE)
    if few:
        sketches = encode_bits(features[-few:].detach(), schedule, False, prefix)[1]
        used = torch.cat([used[:-few], sketches])
    return model.decoder(used), commitment


def train_step(run: Run, schedule: ScaleSchedule) -> dict[str, float]:
    """One optimiser step; returns what is worth logging."""
    args = run.args
    generator = run.generator()
    images, weights = picture_batch(args, generator)
    quantised = args.init is not None or run.progress >= UNQUANTISED_SHARE
    prefix = int(generator.integers(2, len(schedule)))
    model = run.modules["tokenizer"]
    painted, commitment = reconstruct(model, images, schedule, prefix, quantised)
    error = painted - images
    pixel = ((error.abs() + error.square()) * weights).mean(dim=(1, 2, 3)) / weights.mean(dim=(1, 2, 3))
    few = int(len(images) * PREFIX_SHARE)
    share = torch.ones_like(pixel)
    share[len(pixel) - few :] = 0.3 if quantised else 1.0
    loss = (pixel * share).sum() / share.sum() + COMMITMENT * commitment
    norm = run.update(loss)
    return {"loss": float(pixel.detach()[: len(pixel) - few].mean()), "commitment": float(commitment.detach()), "norm": norm}


@torch.no_grad()
def survival(model: Tokenizer, schedule: ScaleSchedule, count: int, seed: int = 7, split: str = "test") -> float:
    """Share of held-out scenes in which the verifier finds what the prompt asks for after encoding and decoding."""
    import numpy

    from ttsvar_core.scenes.grammar import benchmark_prompts
    from ttsvar_core.scenes.verify import judge_image

    prompts = benchmark_prompts(split, count, seed)
    scenes = sample_scenes(list(prompts), numpy.random.default_rng([seed, 1]))
    images = torch.from_numpy(render(scenes, 8 * schedule.final[0])).permute(0, 3, 1, 2) * 2 - 1
    device = next(model.parameters()).device
    kept = 0
    for start in range(0, count, 32):
        features = model.encode(images[start : start + 32].to(device))
        decoded = model.decode(encode_bits(features, schedule, False)[1]).cpu()
        pictures = ((decoded + 1) / 2).permute(0, 2, 3, 1).numpy()
        kept += sum(judge_image(p, q).correct for p, q in zip(pictures, prompts[start : start + 32], strict=True))
    return kept / count


def tokenizer_config(args: argparse.Namespace) -> TokenizerConfig:
    """The sizes the options ask for."""
    multipliers = tuple(int(m) for m in args.ch_mult.split(","))
    return TokenizerConfig(args.bits, args.width, multipliers, args.res_blocks, 2 ** (len(multipliers) - 1))


def description(args: argparse.Namespace) -> dict:
    """The tokenizer's part of the model's json file."""
    grids = [list(grid) for grid in parse_schedule(args.schedule).grids]
    return {
        "scale_schedule": grids, "rope_reference_grid": grids[-1], "codebook_dim": args.bits,
        "vae_base_ch": args.width, "vae_ch_mult": [int(m) for m in args.ch_mult.split(",")],
        "vae_num_res_blocks": args.res_blocks, "patch_size": tokenizer_config(args).patch_size,
        "image_size": [args.side, args.side],
    }


def save_all(run: Run) -> None:
    """Write the checkpoint and the averaged weights in the published layout."""
    run.save()
    export(run.average["tokenizer"], run.args.out / "scenes64.vae.safetensors")
    (run.args.out / "tokenizer.json").write_text(json.dumps(description(run.args), indent=1) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Train until the steps or the minutes are used up."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    schedule = parse_schedule(args.schedule)
    model = Tokenizer(tokenizer_config(args)).to(args.device, memory_format=torch.channels_last)
    if args.init:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(str(Path(args.init) / "scenes64.vae.safetensors")))
    run = Run(nn.ModuleDict({"tokenizer": model}), args, "tokenizer")
    window: list[dict[str, float]] = []
    while not run.done:
        window.append(train_step(run, schedule))
        if len(window) == 50 or run.done:
            run.log(**{name: sum(w[name] for w in window) / len(window) for name in window[0]})
            window.clear()
        if run.due():
            save_all(run)
            run.log(survival=survival(run.average["tokenizer"], schedule, 60, split="validation"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
