"""A tiny world for the tests of experiments, loadable in other processes."""

from __future__ import annotations

import argparse
import os
import signal
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from tiny_models import make_conditioning, make_tiny_model

from lab.experiment import options
from lab.experiment.controls import Chance, TokenizerExtractor
from lab.experiment.prompts import Prompt
from lab.experiment.world import World
from ttsvar_core.extractors.latent_pool import LatentPool

SCHEDULE = "1 2 3 3 4 4 6"


class Warmth:
    """Red minus blue: a reward any picture can be scored by."""

    name = "warmth"
    range = (-1.0, 1.0)

    def score(self, images: torch.Tensor, prompt: str) -> torch.Tensor:
        return (images[..., 0] - images[..., 2]).mean(dim=(1, 2)) * 5


class Brightness:
    name = "brightness"
    range = (0.0, 1.0)

    def score(self, images: torch.Tensor, prompt: str) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class TinyFiles:
    """Makes the tiny world. killer: a file; the process that loads the world while it exists deletes it and kills itself.
    slow: seconds every prompt takes longer, or only this one and later ones."""

    seed: int = 0
    killer: str = ""
    slow: float = 0.0
    slow_after: str = ""

    def __call__(self) -> World:
        model = make_tiny_model(self.seed, schedule=SCHEDULE)
        extractors = {"latent-pool": LatentPool(), "tokenizer-Pool": TokenizerExtractor(model, "Pool"), "chance": Chance()}
        rewards = {"warmth": Warmth(), "brightness": Brightness()}
        return World(model, self._encode, rewards, extractors, model.schedule(), model.config.sampling, warm)

    def _encode(self, prompt: str):
        import time

        if self.killer and Path(self.killer).exists():
            Path(self.killer).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if prompt >= self.slow_after and prompt.startswith("prompt"):
            time.sleep(self.slow)
        return make_conditioning(seed=zlib.crc32(prompt.encode()), prompt=prompt)


def asked(**given) -> argparse.Namespace:
    """What the commands that collect and fit are asked: very little of everything, and what is given."""
    usual = {
        "first_seed": 0, "seeds": 1, "samples": 4, "workers": 1, "engine": "processes", "ray_address": None, "minutes": 0.0,
        "seed": 0, "save_every": 1e9, "device": "cpu",
    }
    return argparse.Namespace(**{**usual, **given})


def use_tiny_world(monkeypatch) -> None:
    """Whatever files and prompts the commands are asked for."""
    monkeypatch.setattr(options, "world_files", lambda args: TinyFiles())
    monkeypatch.setattr(options, "prompts", lambda args, default, split: prompts(default))


def warm(image: torch.Tensor, prompt: str) -> bool:
    return bool(image[..., 0].mean() > image[..., 2].mean())


def prompts(count: int) -> tuple[Prompt, ...]:
    """Prompts in two categories."""
    return tuple(Prompt(f"prompt {i}", "even" if i % 2 == 0 else "odd") for i in range(count))


def threads_in_use(_) -> tuple[int, int]:
    """PyTorch's threads, and the most of any other thread pool in this process."""
    from threadpoolctl import threadpool_info

    return torch.get_num_threads(), max(pool["num_threads"] for pool in threadpool_info())
