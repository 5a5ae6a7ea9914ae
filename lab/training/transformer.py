"""Train the scene transformer: `python -m lab.training.transformer --tokenizer DIR --out DIR`. Resumes when run again."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.training.common import Run, add_common_arguments, export, training_prompts
from lab.training.words import TEXT_CHANNELS, TEXT_MAXLEN, PromptTable, build_encoder, build_noun_reader, save_text_side
from ttsvar_core.atomic import replacing
from ttsvar_core.bsq.autoencoder import Tokenizer
from ttsvar_core.bsq.bits import codes_to_bits, empty_features, fuse, map_to_tokens, next_scale_input
from ttsvar_core.config import ModelConfig
from ttsvar_core.infinity.model import Infinity
from ttsvar_core.scales import ScaleSchedule
from ttsvar_core.scenes.grammar import COLOURS, SHAPES, all_prompts
from ttsvar_core.scenes.render import WORLD_SIDE, Scenes, coverage, render, sample_scenes

DROP_CONDITION = 0.1
SCALE_WEIGHT_POWER = 0.5
OBJECT_WEIGHT = 6.0
NOUN_LOSS_WEIGHT = 0.1
CONTENT_LOSS_WEIGHT = 0.15


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m lab.training.transformer", description=__doc__)
    add_common_arguments(parser, steps=8000, batch=32, rate=1.5e-3)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder the tokenizer training wrote")
    parser.add_argument("--pool", type=int, default=40960, help="scenes encoded once and drawn from")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--text-steps", type=int, default=300, help="steps in which a fresh text encoder learns words first")
    parser.add_argument("--flips", type=float, default=0.25, help="largest share of bits flipped and fed back")
    parser.add_argument(
        "--lengths", default="5:0.4:2,9:0.35:1,13:0.25:0.5",
        help="scales : share of the steps : batch relative to --batch; the first scales decide what is drawn, at little cost",
    )
    parser.add_argument("--compile", action="store_true", help="compile the layers (needs a C++ compiler on the CPU)")
    return parser


def description(args: argparse.Namespace) -> dict:
    """The json file of the whole model: the tokenizer's part and the transformer's."""
    own = {
        "kind": "infinity", "name": "scenes64", "embed_dim": args.width, "depth": args.depth, "num_heads": args.heads,
        "mlp_ratio": 4, "block_chunks": 2 if args.depth % 2 == 0 else 1, "text_channels": TEXT_CHANNELS,
        "text_maxlen": TEXT_MAXLEN, "apply_spatial_patchify": False, "rope2d_normalized_by_hw": 2,
    }
    return own | json.loads((args.tokenizer / "tokenizer.json").read_text(encoding="utf-8"))


def load_tokenizer(folder: Path, config: ModelConfig) -> Tokenizer:
    """The trained tokenizer, frozen."""
    from safetensors.torch import load_file

    tokenizer = Tokenizer(config.tokenizer)
    tokenizer.load_state_dict({k: v.float() for k, v in load_file(str(folder / "scenes64.vae.safetensors")).items()})
    return tokenizer.requires_grad_(False).eval()


@torch.no_grad()
def encoded_pool(args: argparse.Namespace, config: ModelConfig) -> dict[str, Tensor]:
    """Training scenes, encoded once: `features` (N, C, h, w) float16, the `places` (N,) of their prompts, and how much of
    every cell objects `cover` (N, 1, h, w) float16, and the `content` (N, 2, 2, 2) of every quarter: shape, colour, 0 if none."""
    path = args.out / "pool.pt"
    if path.exists():
        stored = torch.load(path, weights_only=True)
        if len(stored["features"]) == args.pool:
            return stored
    tokenizer = load_tokenizer(args.tokenizer, config).to(args.device, memory_format=torch.channels_last)
    known = {prompt: place for place, prompt in enumerate(all_prompts())}
    stride = config.tokenizer.patch_size
    features, places, cover, content = [], [], [], []
    for part in range(0, args.pool, 128):
        generator = numpy.random.default_rng([args.seed, 1, part])
        prompts = training_prompts(min(128, args.pool - part), generator)
        scenes = sample_scenes(prompts, generator)
        images = torch.from_numpy(render(scenes, stride * config.own_schedule.final[0]))
        covered = torch.from_numpy(coverage(scenes._replace(radii=scenes.radii + 1), images.shape[1]))
        cover.append(F.adaptive_avg_pool2d(covered[:, None], config.own_schedule.final).half())
        content.append(quarter_content(scenes))
        pixels = (images.permute(0, 3, 1, 2) * 2 - 1).to(args.device).contiguous(memory_format=torch.channels_last)
        features.append(tokenizer.encode(pixels).half().cpu().contiguous())
        places += [known[prompt] for prompt in prompts]
    stored = {"features": torch.cat(features), "places": torch.tensor(places), "cover": torch.cat(cover)}
    stored["content"] = torch.cat(content)
    args.out.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        torch.save(stored, file)
    return stored


def quarter_content(scenes: Scenes) -> Tensor:
    """What every quarter of the picture shows, (N, 2, 2, 2): shape and colour numbers from 1, rows and columns; 0 for nothing."""
    found = numpy.zeros((len(scenes.shapes), 2, 2, 2), numpy.int64)
    rows, places = numpy.nonzero(scenes.shapes >= 0)
    x, y = (scenes.centres[rows, places] > WORLD_SIDE / 2).astype(numpy.int64).T
    found[rows, 0, y, x] = scenes.shapes[rows, places] + 1
    found[rows, 1, y, x] = scenes.colours[rows, places] + 1
    return torch.from_numpy(found)


def build_content_reader(width: int) -> nn.Module:
    """Reads off a token's last state what its quarter shows. It makes binding a shape to a colour a goal of its own, which
    single bits barely reward, and is not exported."""
    return nn.Linear(width, 1 + len(SHAPES) + 1 + len(COLOURS))


def content_loss(reader: nn.Module, states: Tensor, content: Tensor, schedule: ScaleSchedule) -> Tensor:
    """How badly `reader` tells the content (B, 2, 2, 2) of quarters from token states (B, L, C), scales of one token aside."""
    skipped = sum(tokens for tokens in schedule.tokens if tokens == 1)
    maps = [F.interpolate(content.float(), size=grid, mode="nearest").flatten(2) for grid in schedule.grids if grid != (1, 1)]
    wanted = torch.cat(maps, dim=2).long()
    shape, colour = reader(states[:, skipped:]).split([1 + len(SHAPES), 1 + len(COLOURS)], dim=-1)
    errors = sum(F.cross_entropy(part.transpose(1, 2), wanted[:, i], reduction="none") for i, part in enumerate((shape, colour)))
    return (errors.mean(0) * scale_weights(schedule)[skipped:].to(errors.device)).sum()


def flipped_sequence(
    features: Tensor, schedule: ScaleSchedule, scales: int, flips: Tensor, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """What each scale sees and what it should answer when earlier answers were partly wrong.

    `features` (B, C, h, w); `flips` (B, 1, 1) is each row's share of flipped bits. The flipped bits are fed back and the next
    target is computed from what they left, so the model learns to correct itself. Returns the inputs (B, L, Z) of scales
    1, 2, ... and the target bits (B, L, Z) of the first `scales` scales. Source: Infinity, arXiv 2412.04431, section 3.4.
    """
    seen = empty_features(len(features), features.shape[1], schedule, False).to(features.device)
    inputs, targets = [], []
    for scale, grid in enumerate(schedule.grids[:scales]):
        if scale:
            inputs.append(next_scale_input(seen, grid, False))
        bits = codes_to_bits(map_to_tokens(F.interpolate(features - seen, size=grid, mode="area"), False))
        targets.append(bits)
        wrong = torch.rand(bits.shape, generator=generator).to(bits.device) < flips
        seen = fuse(seen, bits ^ wrong.to(torch.uint8), scale, schedule, False)
    return inputs, targets


def scale_weights(schedule: ScaleSchedule) -> Tensor:
    """Loss weight of every token (L,): scales of few tokens decide what is drawn, so they weigh more than their number."""
    tokens = torch.tensor(schedule.tokens, dtype=torch.float32)
    return torch.repeat_interleave(tokens**SCALE_WEIGHT_POWER / (tokens ** (1 + SCALE_WEIGHT_POWER)).sum(),
                                   torch.tensor(schedule.tokens))


def teach_words(modules: nn.ModuleDict, table: PromptTable, args: argparse.Namespace) -> None:
    """Train the fresh text encoder alone to tell colour, shape, place, count and order of every noun: seconds of work.

    Trained with the pictures from the start, it settled on a bag of words, from which it did not come back.
    """
    known = {prompt: place for place, prompt in enumerate(all_prompts())}
    learned = [*modules["text"].parameters(), *modules["reader"].parameters()]
    optimiser = torch.optim.AdamW(learned, lr=args.rate, betas=(0.9, 0.97))
    for step in range(args.text_steps):
        for group in optimiser.param_groups:
            group["lr"] = args.rate * (1 - step / args.text_steps)
        prompts = training_prompts(48, numpy.random.default_rng([args.seed, 2, step]))
        loss = table.noun_loss(modules["reader"], *table.states(modules["text"], [known[prompt] for prompt in prompts]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def draw_length(args: argparse.Namespace, generator: numpy.random.Generator) -> tuple[int, int]:
    """How many scales a step trains on, and with how many rows."""
    options = [tuple(float(part) for part in option.split(":")) for option in args.lengths.split(",")]
    shares = numpy.array([share for _, share, _ in options])
    scales, _, rows = options[generator.choice(len(options), p=shares / shares.sum())]
    return int(scales), max(1, round(rows * args.batch))


def object_weights(cover: Tensor, schedule: ScaleSchedule) -> Tensor:
    """Loss weights (B, L) of mean 1 in every scale: heavier where objects are, because most cells are background."""
    parts = []
    for grid in schedule.grids:
        part = 1 + OBJECT_WEIGHT * F.interpolate(cover, size=grid, mode="area").flatten(1)
        parts.append(part / part.mean())
    return torch.cat(parts, dim=1)


def train_step(run: Run, pool: dict[str, Tensor], table: PromptTable, schedule: ScaleSchedule) -> dict[str, float]:
    """One optimiser step; returns what is worth logging."""
    args, model = run.args, run.modules["transformer"]
    generator = run.generator()
    scales, batch = draw_length(args, generator)
    used = schedule.prefix(scales)
    rows = torch.from_numpy(generator.integers(len(pool["places"]), size=batch))
    flips = torch.from_numpy(generator.uniform(0, args.flips, (batch, 1, 1)))
    draws = torch.Generator().manual_seed(int(generator.integers(2**62)))
    dropped = generator.random(batch) < DROP_CONDITION
    features, cover = (pool[name][rows].float().to(args.device) for name in ("features", "cover"))
    inputs, targets = flipped_sequence(features, schedule, len(used), flips.to(args.device), draws)
    places = pool["places"][rows].tolist()
    unique, states = table.states(run.modules["text"], places)
    texts = [
        model.unconditional(len(text)) if drop else text
        for text, drop in zip(table.rows(unique, states, places), dropped, strict=True)
    ]
    kept: list[Tensor] = []
    watch = model.head_nm.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    logits = model.forward_sequence(inputs, used, model.project_text(texts))
    watch.remove()
    wanted = torch.cat(targets, dim=1).to(logits.dtype)
    errors = F.binary_cross_entropy_with_logits(logits[..., 1] - logits[..., 0], wanted, reduction="none").mean(2)
    errors = (errors * object_weights(cover, used)).mean(0)
    nouns = table.noun_loss(run.modules["reader"], unique, states)
    content = content_loss(run.modules["content"], kept[0].squeeze(1), pool["content"][rows].to(args.device), used)
    loss = (errors * scale_weights(used).to(errors.device)).sum()
    loss = loss + NOUN_LOSS_WEIGHT * nouns + CONTENT_LOSS_WEIGHT * content
    norm = run.update(loss)
    parts = errors.detach().split(used.tokens)
    logged = {f"loss{scales}": float(loss.detach()), f"content{scales}": float(content.detach())}
    logged |= {"nouns": float(nouns.detach()), "norm": norm, "rows": float(batch)}
    return logged | {f"scale{i}": float(part.mean()) for i, part in enumerate(parts)}


def save_all(run: Run, described: dict) -> None:
    """Write the checkpoint, and the averaged weights as a model folder that `load_model` reads."""
    run.save()
    out = run.args.out
    export(run.average["transformer"], out / "scenes64.transformer.safetensors")
    save_text_side(run.average["text"], out / "scenes64.t5")
    (out / "scenes64.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    vae = out / "scenes64.vae.safetensors"
    if not vae.exists():
        vae.write_bytes((run.args.tokenizer / vae.name).read_bytes())


def load_init(modules: nn.ModuleDict, folder: Path) -> None:
    """Start from exported weights."""
    from safetensors.torch import load_file

    for name, file in (("transformer", "scenes64.transformer.safetensors"), ("text", "scenes64.t5/model.safetensors")):
        stored = {key: tensor.float() for key, tensor in load_file(str(folder / file)).items()}
        missing = modules[name].load_state_dict(stored, strict=False).missing_keys
        tied = [key for key in missing if key != "encoder.embed_tokens.weight"]
        if tied:
            raise ValueError(f"{folder / file} lacks {len(tied)} tensors of the {name}, such as {tied[:3]}; sizes must agree.")


def main(argv: list[str] | None = None) -> int:
    """Train until the steps or the minutes are used up."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    described = description(args)
    config = ModelConfig.from_json(described)
    parts = {"transformer": Infinity(config.transformer), "text": build_encoder(), "reader": build_noun_reader()}
    parts["content"] = build_content_reader(args.width)
    modules = nn.ModuleDict(parts).to(args.device)
    if args.init:
        load_init(modules, args.init)
    pool = encoded_pool(args, config)
    table = PromptTable(args.device)
    if not args.init and not (args.out / "transformer.checkpoint.pt").exists():
        teach_words(modules, table, args)
    run = Run(modules, args, "transformer")
    if args.compile:
        for layer in modules["transformer"].layers:
            layer.compile(dynamic=False)
    sums: dict[str, list[float]] = {}
    while not run.done:
        for name, value in train_step(run, pool, table, config.own_schedule).items():
            sums.setdefault(name, []).append(value)
        if run.step % 50 == 0 or run.done:
            run.log(**{name: sum(values) / len(values) for name, values in sums.items()})
            sums.clear()
        if run.due():
            save_all(run, described)
    return 0


if __name__ == "__main__":
    sys.exit(main())
