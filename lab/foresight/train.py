"""Fit a foresight network: the mean absolute error of the features it foretells.

The absolute error asks for the likeliest feature, the squared one for the mean of all likely ones, which decodes to a blur that
rewards cannot judge; on the bundled model it made the squared error itself smaller, too (docs/log.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from lab.experiment import options
from lab.training.common import Run, fit
from lab.value.collect import divided, read_folders
from ttsvar_core.config import ForesightConfig
from ttsvar_core.foresight import Foresight, ForesightNetwork, network_for, save_foresight

NAME = "foresight.safetensors"
WARMUP, AVERAGING = 50, 0.998
KEPT_IN_MEMORY = 2048  # files
MEASURED = 100  # files that the mean and spread of what the network sees are taken of, and as many that it is watched on


class Seen(NamedTuple):
    """What is known of P samples after a scale, and what came of them: see `collect.drawn`."""

    features: Tensor
    values: Tensor
    final: Tensor


Read = Callable[[Path, int], Seen]


def train(args: argparse.Namespace) -> Path:
    """Train from where it stands to the end; returns the file. Raises ValueError for folders without samples or that differ."""
    about, files = read_folders(args.data, "lab.foresight", "model", "fingerprint", "schedule", "scales", "layers")
    known, unseen = divided(files, "lab.foresight")
    model = options.world_files(args)().model
    if about["world"]["fingerprint"] != model.fingerprint:
        raise ValueError(f"the samples are of {about['world']['model']} ({about['world']['fingerprint'][:8]}), not of {model!r}")
    grids = tuple(map(tuple, about["world"]["schedule"]))
    sizes = ForesightConfig(tuple(about["layers"]), tuple(about["scales"]), args.width, args.depth)
    torch.manual_seed(args.seed)
    network, read = network_for(model, sizes, len(grids)).to(args.device), reader(args.device)
    measure(network, [read(path, scale) for path in known[:MEASURED] for scale in sizes.scales])
    args.warmup, args.ema = WARMUP, AVERAGING
    run = Run(nn.ModuleDict({"foresight": network}), args, "foresight")

    def export(loss: float) -> None:
        run.log(loss=loss, **_watched(run, read, unseen[:MEASURED], sizes.scales))
        save_foresight(args.out / NAME, Foresight(sizes, run.average["foresight"], model.fingerprint, grids), torch.float16)

    return fit(run, partial(step_loss, run, read, known, sizes.scales), args.out / NAME, export)


def reader(device: str) -> Read:
    """Reads what was collected of a prompt, and remembers the latest files."""
    load = lru_cache(KEPT_IN_MEMORY)(load_file)

    def read(path: Path, scale: int) -> Seen:
        tensors = load(path)
        return Seen(*(tensors[name].to(device) for name in (f"features.{scale}", f"values.{scale}", "final")))

    return read


def measure(network: ForesightNetwork, seen: Sequence[Seen]) -> None:
    """Set the mean and the spread of what the network sees, channel by channel."""
    channels = []
    for part in seen:
        values = F.interpolate(part.values.float(), size=part.features.shape[-2:], mode="bilinear", align_corners=False)
        channels.append(torch.cat([part.features.float(), values], dim=1).flatten(2))
    flat = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in channels])
    network.mean.copy_(flat.mean(0))
    network.spread.copy_(flat.std(0).clamp_min(1e-3))


def step_loss(run: Run, read: Read, files: Sequence[Path], scales: Sequence[int]) -> Tensor:
    """The loss of one step: samples of many prompts, all at one scale."""
    generator = run.generator()
    scale = scales[generator.integers(len(scales))]
    parts = [read(files[row], scale) for row in generator.integers(len(files), size=run.args.batch)]
    rows = [int(generator.integers(len(part.final))) for part in parts]
    features, values, final = (torch.stack([part[at][row] for part, row in zip(parts, rows, strict=True)]) for at in range(3))
    return error(run.modules["foresight"], Seen(features, values, final), scale)


def error(network: ForesightNetwork, seen: Seen, scale: int) -> Tensor:
    """The mean absolute error of what it foretells."""
    found = network(seen.features.float(), seen.values.float(), scale, tuple(seen.final.shape[-2:]))
    return (found - seen.final.float()).abs().mean()


@torch.no_grad()
def _watched(run: Run, read: Read, files: Sequence[Path], scales: Sequence[int]) -> dict[str, float]:
    """The error on prompts that it is not trained on, by scale."""
    network = run.average["foresight"]
    return {f"held_out_{scale}": fmean(float(error(network, read(path, scale), scale)) for path in files) for scale in scales}
