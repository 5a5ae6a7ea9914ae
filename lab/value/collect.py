"""Draw samples and keep their features on the way with the rewards of the way and of the end; read back what was kept.

In the folder lie ``experiment.json`` (what samples depend on), ``prices.json`` and ``samples/*.safetensors``. Only this process
writes them; whoever draws sends tensors back, so workers may be on other machines.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from lab.experiment import options
from lab.experiment.engines import opened, reported
from lab.experiment.prompts import Prompt
from lab.experiment.runner import claim
from lab.experiment.unit import describe, loaded, prices_of
from lab.experiment.world import World
from ttsvar_core.atomic import write
from ttsvar_core.reading import parse_json, read_text, refusing
from ttsvar_core.rewards.value import MadeFor, words_of
from ttsvar_core.search.memory import Sampler
from ttsvar_core.search.plan import best_of_n, scored_at
from ttsvar_core.search.run import search
from ttsvar_core.search.value import ValueNetwork, cells_of
from ttsvar_core.state import SearchState, start
from ttsvar_core.weights.write import write_safetensors

FORMAT = 1
IDENTITY = "experiment.json"  # as `runner.claim` calls it
PRICES = "prices.json"
HELD_OUT = 10  # one prompt in so many is kept for validation while training
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
    units = [(prompt, number) for prompt in options.prompts(args, prompts, "train") for number in numbers]
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


# Read back ------------------------------------------------------------------------------------------------------------


class Unit(NamedTuple):
    """The samples of one prompt and seed; see `collect.drawn`. cells: by scale. scores: (P, scales + 1)."""

    prompt: str
    cells: dict[int, Tensor]
    scores: Tensor
    pooled: Tensor
    words: Tensor
    correct: Tensor | None


class Collection(NamedTuple):
    """The folders' common settings, and a file per unit."""

    about: dict[str, Any]
    files: tuple[Path, ...]

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales whose features are kept."""
        return tuple(self.about["scales"])

    @property
    def made_for(self) -> MadeFor:
        """What a value model trained on this is made for."""
        world, reward = self.about["world"], self.about["world"]["rewards"][0]
        patchify = bool(self.about["prices"]["transformer"]["apply_spatial_patchify"])
        grids = tuple(map(tuple, world["schedule"]))
        networks = tuple(world["networks"][f"reward {reward}"])
        return MadeFor(world["model"], world["fingerprint"], reward, networks, grids, patchify, self.scales)


def read_collection(folders: Sequence[Path]) -> Collection:
    """All folders of `drawn` as one. Raises as `read_folders`."""
    alike = "model", "fingerprint", "rewards", "networks", "schedule", "scales", "samples"
    about, files = read_folders(folders, "lab.value", *alike)
    with refusing(str(folders[0] / PRICES), "Collect again: python -m lab.value collect."):
        return Collection({**about, "prices": parse_json(read_text(folders[0] / PRICES))}, tuple(files))


def read_folders(folders: Sequence[Path], room: str, *alike: str) -> tuple[dict[str, Any], list[Path]]:
    """What the first folder says of its samples, and the files of all.

    room: whose `collect` wrote them. alike: what they must say alike, of themselves or of their world. Raises UnusableFile for a
    folder that is none, ValueError where they differ or hold nothing.
    """
    abouts, said = [], []
    for folder in folders:
        with refusing(str(folder / IDENTITY), f"Collect again: python -m {room} collect."):
            abouts.append(about := parse_json(read_text(folder / IDENTITY)))
            if about["format"] != FORMAT or "samples" not in about:
                raise ValueError("not what collect writes")
            said.append({key: (about["world"] | about)[key] for key in alike})
        if differ := [key for key in alike if said[-1][key] != said[0][key]]:
            raise ValueError(f"{folder} differs from {folders[0]} in {', '.join(differ)}; give folders that agree in it")
    files = [path for folder in folders for path in sorted((folder / "samples").glob("*.safetensors"))]
    if not files:
        raise ValueError(f"no samples in {', '.join(map(str, folders))}; collect some: python -m {room} collect")
    return abouts[0], files


def read_unit(path: Path, scales: Sequence[int]) -> Unit:
    """One unit. Raises UnusableFile, naming the file."""
    with refusing(str(path), "Remove it and repeat collect: it is drawn again."), safe_open(str(path), "pt") as file:
        cells = {scale: file.get_tensor(f"cells.{scale}").float() for scale in scales}
        names = file.keys()
        correct = file.get_tensor("correct") if "correct" in names else None
        scores, pooled, words = (file.get_tensor(name) for name in ("scores", "pooled", "words"))
        return Unit(file.metadata()["prompt"], cells, scores, pooled, words.float(), correct)


def divided(files: Sequence[Path], room: str) -> tuple[list[Path], list[Path]]:
    """Units to train on, and those to watch: of prompts held out, all seeds of each together, or the same where there are none.

    room: whose `collect` draws more. Raises ValueError where none is left to train on.
    """
    sides: tuple[list[Path], list[Path]] = [], []
    for path in files:
        sides[int(hashlib.sha256(path.stem.split("-")[0].encode()).hexdigest(), 16) % HELD_OUT == 0].append(path)
    known, held_out = sides
    if not known:
        raise ValueError(f"{len(files)} prompts leave none to train on; collect more: python -m {room} collect")
    return known, held_out or known


def batched(units: Sequence[Unit], scale: int, device: str = "cpu") -> tuple[Tensor, ...]:
    """What the network takes of units of equally many samples: cells (B, P, Z, h, w), pooled (B, C), words (B, T, Ct), mask."""
    words = torch.nn.utils.rnn.pad_sequence([unit.words for unit in units], batch_first=True)
    lengths = torch.tensor([len(unit.words) for unit in units])
    mask = torch.arange(words.shape[1]) < lengths[:, None]
    parts = torch.stack([unit.cells[scale] for unit in units]), torch.stack([unit.pooled for unit in units]), words, mask
    return tuple(part.to(device) for part in parts)


@torch.no_grad()
def values_of(network: ValueNetwork, unit: Unit, scale: int, device: str = "cpu") -> Tensor:
    """(P,) what the network says of a unit's samples after a scale."""
    cells, *rest = batched([unit], scale, device)
    return network(cells, scale, *rest)[0]
