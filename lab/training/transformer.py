"""Train the transformer: `python -m lab.training.transformer --tokenizer DIR --out DIR`. Resumes when run again."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.training.attention import TrainingAttention
from lab.training.common import Run, add_common_arguments, export, train
from lab.training.optimiser import MuonRun
from lab.training.pool import CONTENTS, load_pool, training_prompts, worded
from lab.training.sequence import flipped_sequence, object_weights, scale_weights
from lab.training.text import (
    TEXT_CHANNELS,
    TEXT_MAXLEN,
    build_encoder,
    build_noun_reader,
    noun_loss,
    padded_states,
    save_text_side,
    tokenised,
)
from lab.training.tokenizer import NAME
from ttsvar_core.config import ModelConfig
from ttsvar_core.infinity.model import Infinity
from ttsvar_core.scales import ScaleSchedule

DROP_CONDITION = 0.1
NOUN_LOSS_WEIGHT = 0.1
CONTENT_LOSS_WEIGHT = 0.15


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.training.transformer", description=__doc__)
    add_common_arguments(parser, steps=20000, batch=32, rate=1.5e-3)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with the trained tokenizer and encoded scenes")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--text-steps", type=int, default=400, help="steps in which a fresh text encoder learns words first")
    parser.add_argument("--flips", type=float, default=0.25, help="largest share of bits flipped and fed back")
    parser.add_argument(
        "--lengths", default="7:0.45:2,9:0.35:1,13:0.2:0.25",
        help="scales : share of the steps : batch relative to --batch; the first scales decide what is drawn, at little cost",
    )
    parser.add_argument("--compile", action="store_true", help="compile the layers (needs a C++ compiler on the CPU)")
    return parser


def description(args: argparse.Namespace) -> dict:
    """The json file of the whole model: the tokenizer's part and the transformer's."""
    own = {
        "kind": "infinity", "name": NAME, "embed_dim": args.width, "depth": args.depth, "num_heads": args.heads,
        "mlp_ratio": 4, "block_chunks": 2 if args.depth % 2 == 0 else 1, "text_channels": TEXT_CHANNELS,
        "text_maxlen": TEXT_MAXLEN, "apply_spatial_patchify": False, "rope2d_normalized_by_hw": 2,
    }
    return own | json.loads((args.tokenizer / "tokenizer.json").read_text(encoding="utf-8"))


def content_loss(reader: nn.Module, states: Tensor, content: Tensor, weights: Tensor, schedule: ScaleSchedule) -> Tensor:
    """How badly `reader` tells the shares of the objects in a token's cell from its last state: states (B, L, C), content
    (B, h, w) of the finest cells, weights (B, L) of the tokens. It makes binding a shape to a colour a goal of its own, which
    single bits barely reward."""
    shares = F.one_hot(content.long(), CONTENTS).permute(0, 3, 1, 2).float()
    maps = [shares.mean((2, 3))[..., None] if grid == (1, 1) else F.interpolate(shares, size=grid, mode="area").flatten(2)
            for grid in schedule.grids]
    wanted = torch.cat(maps, dim=2).transpose(1, 2)
    errors = -(wanted * F.log_softmax(reader(states), dim=-1)).sum(-1)
    return ((errors * weights).mean(0) * scale_weights(schedule).to(errors.device)).sum()


def teach_words(modules: nn.ModuleDict, args: argparse.Namespace) -> None:
    """Train the fresh text encoder alone to tell what is said of every noun: seconds of work.

    Trained with the pictures from the start, it settled on a bag of words, from which it did not come back.
    """
    learned = [*modules["text"].parameters(), *modules["reader"].parameters()]
    optimiser = torch.optim.AdamW(learned, lr=args.rate, betas=(0.9, 0.97))
    for step in range(args.text_steps):
        for group in optimiser.param_groups:
            group["lr"] = args.rate * (1 - step / args.text_steps)
        generator = numpy.random.default_rng([args.seed, 2, step])
        prompts = training_prompts(48, generator)
        ids, facts = (t.to(args.device) for t in tokenised(prompts, worded(prompts, generator)))
        loss = noun_loss(modules["reader"], padded_states(modules["text"], ids), facts)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def losses(modules: nn.ModuleDict, batch: dict[str, Tensor], used: ScaleSchedule) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch of `inputs`, `targets` and what the pool tells of every row, and its parts for the log.

    `dropped` (B,) marks the rows whose prompt the model is not told.
    """
    model, ids, seen = modules["transformer"], batch["ids"], ~batch["dropped"]
    states = padded_states(modules["text"], ids)
    rows = zip(states, (ids != 0).sum(1).tolist(), seen.tolist(), strict=True)
    texts = [text[:length] if told else model.unconditional(length) for text, length, told in rows]
    kept: list[Tensor] = []
    watch = model.head_nm.register_forward_hook(lambda _module, _inputs, output: kept.append(output.float()))
    # Products are faster in bfloat16 on cards, and on processors that have instructions for them.
    fast = ids.device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=fast), TrainingAttention(used.tokens):
        logits = model.forward_sequence(batch["inputs"], used, model.project_text(texts))
    watch.remove()
    wanted = torch.cat(batch["targets"], dim=1).to(logits.dtype)
    weights = object_weights(batch["cover"].float(), used)
    errors = F.binary_cross_entropy_with_logits(logits[..., 1] - logits[..., 0], wanted, reduction="none").mean(2)
    errors = (errors * weights).mean(0)
    nouns = noun_loss(modules["reader"], states, batch["facts"])
    content = content_loss(modules["content"], kept[0].squeeze(1)[seen], batch["content"][seen], weights[seen], used)
    loss = (errors * scale_weights(used).to(errors.device)).sum()
    loss = loss + NOUN_LOSS_WEIGHT * nouns + CONTENT_LOSS_WEIGHT * content
    logged = {f"loss{len(used)}": float(loss.detach()), f"content{len(used)}": float(content.detach())}
    logged |= {f"scale{i}": float(part.mean()) for i, part in enumerate(errors.detach().split(used.tokens))}
    return loss, logged | {"nouns": float(nouns.detach())}


def draw_length(args: argparse.Namespace, generator: numpy.random.Generator) -> tuple[int, int]:
    """How many scales a step trains on, and with how many rows."""
    options = [tuple(float(part) for part in option.split(":")) for option in args.lengths.split(",")]
    shares = numpy.array([share for _, share, _ in options])
    scales, _, rows = options[generator.choice(len(options), p=shares / shares.sum())]
    return int(scales), max(1, round(rows * args.batch))


def train_step(run: Run, pool: dict[str, Tensor], schedule: ScaleSchedule) -> dict[str, float]:
    """One optimiser step; returns what is worth logging."""
    args, generator = run.args, run.generator()
    scales, size = draw_length(args, generator)
    used = schedule.prefix(scales)
    rows = torch.from_numpy(generator.integers(len(pool["ids"]), size=size))
    flips = torch.from_numpy(generator.uniform(0, args.flips, (size, 1, 1))).to(args.device)
    draws = torch.Generator().manual_seed(int(generator.integers(2**62)))
    batch = {name: tensor[rows].to(args.device) for name, tensor in pool.items()}
    batch["dropped"] = torch.from_numpy(generator.random(size) < DROP_CONDITION).to(args.device)
    batch["inputs"], batch["targets"] = flipped_sequence(batch["features"].float(), schedule, len(used), flips, draws)
    loss, logged = losses(run.modules, batch, used)
    return logged | {"norm": run.update(loss)}


def save_all(run: Run, described: dict) -> None:
    """Write the checkpoint, and the averaged weights as a model folder that `load_model` reads."""
    run.save()
    out = run.args.out
    export(run.average["transformer"], out / f"{NAME}.transformer.safetensors")
    save_text_side(run.average["text"], out / f"{NAME}.t5")
    (out / f"{NAME}.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(run.args.tokenizer / f"{NAME}.vae.safetensors", out / f"{NAME}.vae.safetensors")


def main(argv: list[str] | None = None) -> int:
    """Train until the steps or the minutes are used up."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    described = description(args)
    config = ModelConfig.from_json(described)
    modules = nn.ModuleDict({
        "transformer": Infinity(config.transformer), "text": build_encoder(), "reader": build_noun_reader(),
        "content": nn.Linear(args.width, CONTENTS),  # see `content_loss`; it is not exported
    }).to(args.device)
    pool = load_pool(args.tokenizer)
    if not (args.out / "transformer.checkpoint.pt").exists():
        teach_words(modules, args)
    run = MuonRun(modules, args, "transformer")
    if args.compile:
        for layer in modules["transformer"].layers:
            layer.compile(dynamic=False)
    train(run, partial(train_step, run, pool, config.own_schedule), partial(save_all, run, described), scenes=len(pool["ids"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
