"""Fit a value network: of every pair of a prompt's samples it should say which ends better, and the more so the further apart."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.training.common import Run, fit
from ttsvar_core.rewards.value import Value, save_value
from ttsvar_core.search.value import ValueNetwork, ValueSizes

from .collect import Collection, Unit, batched, divided, read_collection, read_unit, values_of

NAME = "value.safetensors"
WARMUP, AVERAGING = 100, 0.998
VALIDATED = 200  # units that a save looks at


def train(args: argparse.Namespace) -> Path:
    """Train from where it stands to the end; returns the file."""
    collection = read_collection(args.data)
    known, unseen = divided(collection.files, "lab.value")
    fitted, watched = ([read_unit(path, collection.scales) for path in some[:VALIDATED]] for some in (known, unseen))
    unit, scales = fitted[0], len(collection.made_for.grids)
    channels = unit.cells[collection.scales[0]].shape[1]
    torch.manual_seed(args.seed)
    network = ValueNetwork(ValueSizes(channels, len(unit.pooled), unit.words.shape[1], scales, args.width, args.depth))
    args.warmup, args.ema = WARMUP, AVERAGING
    run = Run(nn.ModuleDict({"value": network.to(args.device)}), args, "value")
    export = partial(_export, run, collection, fitted, watched, args.out / NAME)
    return fit(run, partial(step_loss, run, known, collection.scales), args.out / NAME, export)


def step_loss(run: Run, files: Sequence[Path], scales: Sequence[int]) -> Tensor:
    """The loss of one step: some prompts, all at one scale."""
    generator, args = run.generator(), run.args
    rows = generator.choice(len(files), min(args.batch, len(files)), replace=False)
    scale = scales[generator.integers(len(scales))]
    units = [read_unit(files[row], (scale,)) for row in rows]
    cells, *rest = batched(units, scale, args.device)
    values = run.modules["value"](cells, scale, *rest)
    return pairwise_loss(values, torch.stack([unit.scores[:, -1] for unit in units]).to(args.device))


def pairwise_loss(values: Tensor, final: Tensor) -> Tensor:
    """How badly values (B, P) order the pairs of each prompt by their final rewards (B, P): logistic (RankNet, Burges et al. 2005),
    each pair weighted by how far apart it ends. Failures end far below, so telling them counts most; equal ends count nothing."""
    apart = final[:, :, None] - final[:, None, :]
    wrong = F.softplus(-(values[:, :, None] - values[:, None, :]) * apart.sign())
    weight = apart.abs()
    return (wrong * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def _export(run: Run, collection: Collection, fitted: list[Unit], watched: list[Unit], path: Path, loss: float) -> None:
    """The averaged weights as a value model, brought to the reward's unit, and a line in the log."""
    network, device = run.average["value"], run.args.device
    calibrate(network, fitted, collection.scales, device)
    save_value(path, Value(network, None, collection.made_for))
    losses = {
        f"held_out_{scale}": [
            pairwise_loss(values_of(network, unit, scale, device)[None], unit.scores[None, :, -1].to(device)) for unit in watched
        ]
        for scale in collection.scales
    }
    run.log(loss=loss, **{name: float(torch.stack(found).mean()) for name, found in losses.items()})


@torch.no_grad()
def calibrate(network: ValueNetwork, units: Sequence[Unit], scales: Sequence[int], device: str = "cpu") -> None:
    """Set ``network.unit`` so that differences of values within a prompt are, in least squares, those of the final rewards."""
    network.unit.fill_(1.0)
    for scale in scales:
        above, below = 0.0, 0.0
        for unit in units:
            values, final = values_of(network, unit, scale, device).cpu().double(), unit.scores[:, -1].double()
            values, final = values - values.mean(), final - final.mean()
            above, below = above + float(values @ final), below + float(values @ values)
        network.unit[scale] = max(above / below, 1e-6) if below else 1.0  # never zero or negative: the order is what was learnt
