"""What trainings share: options, learning-rate schedule, moving averages, checkpoints that resume, loss logs, their loops."""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from ttsvar_core.atomic import replacing
from ttsvar_core.weights.write import write_safetensors

LOGGED = 50  # steps whose means make a line of the log


def add_common_arguments(parser: argparse.ArgumentParser, steps: int, batch: int, rate: float) -> None:
    """Options of the trainings of tokenizer and transformer."""
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, the log and the weights")
    parser.add_argument("--steps", type=int, default=steps, help="optimiser steps of the whole run")
    parser.add_argument("--minutes", type=float, default=0.0, help="end the run, and its learning rate, after this time")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=rate, help="highest learning rate")
    parser.add_argument("--warmup", type=int, default=200, help="steps until the highest learning rate")
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights that are exported")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--save-every", type=float, default=180.0, help="seconds between checkpoints")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


class Run:
    """A resumable training run: trained modules, their averages, the optimisers, and where the run stands.

    Every step draws its randomness from (seed, step), so that the step counter is all the randomness there is to store.
    """

    def __init__(self, modules: nn.ModuleDict, args: argparse.Namespace, name: str) -> None:
        self.modules, self.args, self.name = modules, args, name
        self.average = copy.deepcopy(modules).requires_grad_(False).eval()
        self.optimisers = self.build_optimisers()
        self.step, self.seconds = 0, 0.0
        self._last_save = self._mark = time.monotonic()
        args.out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = args.out / f"{name}.checkpoint.pt"
        if self.checkpoint.exists():
            stored = torch.load(self.checkpoint, map_location=args.device, weights_only=True)
            self.modules.load_state_dict(stored["modules"])
            self.average.load_state_dict(stored["average"])
            for part, optimiser in self.optimisers.items():
                optimiser.load_state_dict(stored["optimiser"][part])
            self.step, self.seconds = stored["step"], stored["seconds"]

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW for everything."""
        return {"adamw": adamw(self.modules.parameters(), self.args.rate)}

    @property
    def progress(self) -> float:
        """How much of the run is done, in [0, 1]: of its steps, or of its minutes where they were limited."""
        by_time = self.seconds / (self.args.minutes * 60) if self.args.minutes else 0.0
        return min(1.0, max(self.step / self.args.steps, by_time))

    @property
    def done(self) -> bool:
        """Whether the run has used up its steps or its time."""
        return self.progress >= 1.0

    def generator(self) -> numpy.random.Generator:
        """The random numbers of the step about to be made."""
        return numpy.random.default_rng([self.args.seed, self.step])

    def update(self, loss: torch.Tensor) -> float:
        """One optimiser step on `loss` with warm-up and cosine decay; returns the gradient norm."""
        rate = self.args.rate * min(1.0, (self.step + 1) / max(1, self.args.warmup))
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress))
        self.modules.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        self.step += 1
        decay = min(self.args.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            ours, theirs = list(self.average.parameters()), list(self.modules.parameters())
            torch._foreach_lerp_(ours, theirs, 1 - decay)
        now = time.monotonic()
        self.seconds += now - self._mark
        self._mark = now
        return float(norm)

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self.done or time.monotonic() - self._last_save > self.args.save_every

    def save(self) -> None:
        """Write everything a resumed run needs, whole or not at all."""
        stored = {
            "modules": self.modules.state_dict(), "average": self.average.state_dict(),
            "optimiser": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "step": self.step, "seconds": self.seconds,
        }
        with replacing(self.checkpoint) as file:
            torch.save(stored, file)
        self._last_save = time.monotonic()

    def log(self, **values: Any) -> None:
        line = {"step": self.step, "seconds": round(self.seconds, 1), **values}
        with open(self.args.out / f"{self.name}.log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in line.items()}) + "\n")


def adamw(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.AdamW:
    """AdamW for those that are trained, with weight decay on matrices."""
    trained = [p for p in parameters if p.requires_grad]
    decayed, plain = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.97), fused=True)


def train(run: Run, step: Callable[[], dict[str, float]], save: Callable[[], None], **told: Any) -> None:
    """Step until the run is done. The log gets the means of what steps return, and ``told``; ``save`` is called when it is time."""
    window: dict[str, list[float]] = defaultdict(list)
    while not run.done:
        for name, value in step().items():
            window[name].append(value)
        if run.step % LOGGED == 0 or run.done:
            run.log(**{name: sum(values) / len(values) for name, values in window.items()}, **told)
            window.clear()
        if run.due():
            save()


def fit(run: Run, loss: Callable[[], Tensor], made: Path, make: Callable[[float], None]) -> Path:
    """Step on ``loss`` until the run is done. After every checkpoint ``make``, told the last loss, writes ``made`` and a line of
    the log; once more if the run was stopped between the two. Returns ``made``."""
    while not run.done:
        last = loss()
        run.update(last)
        if run.due():
            run.save()
            make(float(last.detach()))
    if not made.exists() or made.stat().st_mtime_ns < run.checkpoint.stat().st_mtime_ns:
        make(math.nan)
    return made


def export(module: nn.Module, path: Path) -> None:
    """Write a module's weights as safetensors, whole or not at all."""
    write_safetensors(path, {name: tensor.detach().float().cpu() for name, tensor in module.state_dict().items()})
