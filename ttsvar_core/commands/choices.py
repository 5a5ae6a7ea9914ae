"""Models, rewards and extractors named on a command line."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import registry
from ..names import DTYPES

if TYPE_CHECKING:
    from ..config import ModelConfig
    from ..image_model import ImageModel
    from ..infinity.text import TextEncoder
    from ..scales import ScaleSchedule
    from ..search.plan import Plan

BUNDLED = "bundled"


def device(name: str) -> str:
    """A device that computes here. Raises ArgumentTypeError for any other."""
    if name != "cpu" and importlib.util.find_spec("torch"):
        import torch

        try:
            torch.zeros(1, device=name).item()
        except Exception as error:  # every backend has errors of its own
            said = " ".join(str(error).split())[:160]
            raise argparse.ArgumentTypeError(f"{name!r} does not compute here ({said}); cpu always does") from error
    return name


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model to run, and where."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", default=BUNDLED, metavar="FILE", help="transformer file or folder (default: the bundled model)")
    group.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer (VAE) file that belongs to --model")
    group.add_argument("--text-encoder", type=Path, metavar="FOLDER", help="T5 folder that belongs to --model")
    group.add_argument("--device", type=device, default="cpu", help="where to compute, such as cuda (default: %(default)s)")
    group.add_argument("--dtype", default="float32", choices=DTYPES, help="of transformer and encoder")
    group.add_argument("--float8-weights", action="store_true", help="store the blocks' weights in one byte per number")
    group.add_argument("--compile", action="store_true", help="compile the blocks; gains nothing on a CPU, see docs/memory.md")


def load_models(args: argparse.Namespace) -> tuple[ImageModel, TextEncoder]:
    """The model and text encoder named by `add_model_arguments`. Raises ValueError for an incomplete choice."""
    import torch

    from ..compiled import check_compiler, compile_blocks
    from ..infinity.text import load_text_encoder
    from ..quantize import check_float8, store_blocks_in_float8
    from ..weights import load_bundled, load_model

    if args.compile:
        check_compiler(torch.device(args.device))
    if args.float8_weights:
        check_float8(torch.device(args.device))
    dtype = getattr(torch, args.dtype)
    if args.model == BUNDLED:
        model, encoder = load_bundled(dtype=dtype, device=args.device)
    elif args.tokenizer is None or args.text_encoder is None:
        raise ValueError("--model needs the files that belong to it: name them with --tokenizer and --text-encoder.")
    else:
        model = load_model(args.model, args.tokenizer, dtype=dtype, device=args.device)
        encoder = load_text_encoder(args.text_encoder, dtype=dtype, device=args.device)
    model = store_blocks_in_float8(model) if args.float8_weights else model
    return (compile_blocks(model) if args.compile else model), encoder


def load_reward(specs: Sequence[str], blend: str, device: str, dtype: str = "float32") -> Any:
    """The reward that `specs` name, blended if there are several; None without any. Raises ValueError for an unknown name."""
    import torch

    rewards = [registry.load(registry.REWARDS, spec, device, dtype=getattr(torch, dtype)) for spec in specs]
    if len(rewards) < 2:
        return rewards[0] if rewards else None
    from ..rewards.blend import Blend

    return Blend(rewards, blend)


def load_extractor(spec: str, device: str, dtype: str = "float32") -> Any:
    """The feature extractor that `spec` names. Raises ValueError for an unknown name."""
    import torch

    return registry.load(registry.EXTRACTORS, spec, device, dtype=getattr(torch, dtype))


def plan_by_name(name: str, n: int | None, scales: int) -> Plan:
    """`plan_file.named_plan` for ``n``, 1 where that is None. Raises ValueError for an ``n`` that would change nothing."""
    from ..search.plan_file import named_plan

    plan = named_plan(name, n or 1, scales)
    if n and plan == named_plan(name, n + 1, scales):
        raise ValueError(f"--n is for plans that grow with it, and {name} does not; leave it out")
    return plan


def schedule_of(config: ModelConfig, asked: Mapping[str, Any]) -> ScaleSchedule:
    """The schedule for an aspect ratio and a pixel budget, ``asked`` for by the options of these names, None where they are not.

    Raises ValueError for an option that would change nothing, as the model has a schedule of its own."""
    given = {name: value for name, value in asked.items() if value is not None}
    if given and config.own_schedule is not None:
        size = "x".join(str(config.pixels_per_token * side) for side in config.own_schedule.grids[-1])
        raise ValueError(f"{config.name} draws {size} pixels, by a schedule of its own; leave {next(iter(given))} out")
    return config.schedule(given.get("--aspect-ratio", 1.0), given.get("--pixel-budget", "1M"))
