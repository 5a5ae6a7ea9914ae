"""Draw samples and keep their features on the way with the rewards of the way and of the end: one file per prompt and seed.

In the folder lie ``experiment.json`` (what samples depend on), ``prices.json`` and ``samples/*.safetensors``. Only this process
writes them; whoever draws sends tensors back, so workers may be on other machines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lab.experiment import options
from lab.experiment.engines import opened, reported
from lab.experiment.prompts import Prompt
from lab.experiment.runner import claim
from lab.experiment.unit import describe, loaded, prices_of
from lab.experiment.world import World
from ttsvar_core.atomic import write
from ttsvar_core.rewards.value import words_of
from ttsvar_core.search.memory import Sampler
from ttsvar_core.search.plan import best_of_n, scored_at
from ttsvar_core.search.run import search
from ttsvar_core.search.value import cells_of
from ttsvar_core.state import SearchState, start
from ttsvar_core.weights.write import write_safetensors

FORMAT = 1
IDENTITY = "experiment.json"  # as `runner.claim` calls it
PRICES = "prices.json"
Drawn = tuple[str, dict[str, Tensor], str]  # a file's name, its tensors, and the prompt


class Draw(NamedTuple):
    """What a worker is sent."""

    factory: Callable[[], World]
    prompt: Prompt
    number: int
    samples: int
    scales: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the file that holds what was drawn."""
        return f"{self.prompt.key(self.number)}.safetensors"

    def begin(self, world: World) -> SearchState:
        """The samples before their first scale."""
        return start(world.model, world.encode(self.prompt.text), self.samples, self.prompt.seed(self.number), world.schedule)


def collect(args: argparse.Namespace, prompts: int, draw: Callable[[Draw], Drawn], **kept: Any) -> Path:
    """Draw what is not there yet and return the folder. Ctrl-C keeps what is finished.

    draw: what is kept of each prompt, as `drawn` does it; kept: the settings of that, as JSON values. Raises OtherExperiment if the
    folder holds samples of another model, reward or setting, ValueError for a scale that is none.
    """
    factory, numbers = options.world_files(args), range(args.first_seed, args.first_seed + args.seeds)
    units = [(prompt, number) for prompt in options.prompts(args, prompts) for number in numbers]
    folder, scales = args.out / "samples", tuple(sorted(set(args.scales)))
    with opened(args.workers, args.engine, args.ray_address) as engine, options.bar("collect") as progress:
        (world,), (prices,) = engine(describe, [factory]), engine(prices_of, [(factory, units[0][0].text)])
        if scales[-1] >= len(world["schedule"]) - 1:
            raise ValueError(f"--scales {scales[-1]}: this model's last scale is {len(world['schedule']) - 1}; name earlier ones")
        world["networks"].pop("foresight", None)  # nothing here looks at foreseen sketches
        claim(args.out, {"format": FORMAT, "world": world, "samples": args.samples, "scales": list(scales), **kept})
        write(args.out / PRICES, json.dumps(prices) + "\n")
        folder.mkdir(exist_ok=True)
        tasks = [Draw(factory, prompt, number, args.samples, scales) for prompt, number in units]
        missing = [task for task in tasks if not (folder / task.name).is_file()]
        for name, tensors, prompt in reported(engine, draw, missing, len(tasks), progress):
            write_safetensors(folder / name, tensors, {"prompt": prompt})
    return args.out


def drawn(task: Draw) -> Drawn:
    """A unit's file name, what it holds, and its prompt.

    cells.S (P, Z, h, w) float16 after scale S; scores (P, scales + 1), of the sketches and of the end; pooled (C,), words (T, Ct),
    and verdicts `correct` (P,) where there are any.
    """
    world, prompt = loaded(task.factory), task.prompt
    reward = next(iter(world.rewards.values()))
    with torch.inference_mode():
        plan, found = scored_at(best_of_n(task.samples), task.scales), {}
        for step in search(task.begin(world), plan, reward, None, Sampler(world.sampling)):
            state, images = step.state, step.images
            if state.last_scale in task.scales:
                cells = cells_of(state.features, state.schedule, state.last_scale, state.model.patchify)
                found[f"cells.{state.last_scale}"] = cells.half().cpu()
        found["scores"] = state.scores[:, [*task.scales, len(world.schedule) - 1]].clone()
        found["pooled"], found["words"] = state.text.pooled[0].float().cpu(), words_of(state).cpu().half()
        if world.verdict:
            found["correct"] = torch.tensor([float(world.verdict(image, prompt.text)) for image in images.split(1)])
    return task.name, {name: part.contiguous() for name, part in found.items()}, prompt.text
