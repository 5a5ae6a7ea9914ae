"""What `collect` wrote, read back a prompt at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ttsvar_core.reading import parse_json, read_text, refusing
from ttsvar_core.rewards.value import MadeFor
from ttsvar_core.search.value import ValueNetwork

from .collect import FORMAT, IDENTITY, PRICES

HELD_OUT = 10  # one prompt in so many is kept for validation while training
_REMEDY = "Collect again: python -m lab.value collect."


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
    """All folders as one. Raises UnusableFile for one that is none, ValueError where they are of different models or settings."""
    known, files = None, []
    for folder in folders:
        with refusing(str(folder / IDENTITY), _REMEDY):
            about = parse_json(read_text(folder / IDENTITY))
            if about["format"] != FORMAT or "samples" not in about:
                raise ValueError("not what collect writes")
            about["prices"] = parse_json(read_text(folder / PRICES))
        seen = {key: about["world"][key] for key in ("model", "fingerprint", "rewards", "networks", "schedule")} | {
            "scales": about["scales"]
        }
        if known is not None and seen != known[0]:
            differ = ", ".join(key for key in seen if seen[key] != known[0][key])
            raise ValueError(f"{folder} differs from {folders[0]} in {differ}; give folders of one model, reward and scales")
        known = known or (seen, about)
        files += sorted((folder / "samples").glob("*.safetensors"))
    if not files:
        raise ValueError(f"no samples in {', '.join(map(str, folders))}; collect some: python -m lab.value collect")
    return Collection(known[1], tuple(files))


def read_unit(path: Path, scales: Sequence[int]) -> Unit:
    """One unit. Raises UnusableFile, naming the file."""
    from safetensors import safe_open

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
