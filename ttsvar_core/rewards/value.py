"""A value model as a reward: unfinished samples are scored by what a small network foretells, finished ones by the reward it was
trained for. `python -m lab.value` trains one on a model and reward of your own."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import registry
from ..looks import counted
from ..reading import UnusableFile, refusing, whole
from ..scales import Grid, ScaleSchedule
from ..search.value import ValueNetwork, ValueSizes, cells_of, value_grid
from ..state import SearchState
from ..vision.network import NetworkBacked, placement
from ..weights.described import filled, read_described
from ..weights.fingerprint import fingerprints_of
from ..weights.write import write_safetensors
from .base import Reward, check_prompt

METADATA = "ttsvar-value"
FORMAT = 1
_NOTHING = "is no value model: it says nothing of what it was trained for"
_TEXT_TOKENS = 32  # of the prompt that its operations are counted for
_MOST_CELLS = 2**12  # along a side of a scale
_MOST = {"channels": 2**10, "pooled": 2**14, "words": 2**14, "scales": 2**6, "width": 2**10, "depth": 2**6, "heads": 2**6}
(VALUE,) = registry.REWARDS["value"].files


class MadeFor(NamedTuple):
    """What a value model was trained on: the image model by name and fingerprint, the reward as the registry calls it with the
    fingerprints of its networks, the schedule's grids, and the scales it can be asked after."""

    model: str
    fingerprint: str
    reward: str
    networks: tuple[str, ...]
    grids: tuple[Grid, ...]
    patchify: bool
    scales: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Value(NetworkBacked):
    """A reward that decodes nothing before the end. Its scores on the way are in the reward's unit, but relative to the prompt."""

    network: ValueNetwork
    reward: Reward | None
    made_for: MadeFor

    @property
    def name(self) -> str:
        return f"value of {self.reward.name}"

    @property
    def range(self) -> tuple[float, float]:
        return self.reward.range

    @property
    def models(self) -> tuple[nn.Module, ...]:
        return (self.network, *getattr(self.reward, "models", ()))

    def check_prompt(self, prompt: str) -> None:
        """Raise ValueError for a prompt that the reward cannot judge."""
        check_prompt(self.reward, prompt)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """(B,) float32: the reward's own word on pictures (B, H, W, 3) in [0, 1]."""
        return self.reward.score(images, prompt)

    @cached_property
    def foretelling_flops(self) -> tuple[tuple[int, int], ...]:
        """The scales it was trained for, with the operations of foretelling one sample."""
        sizes, made_for = self.network.sizes, self.made_for
        copy = ValueNetwork(sizes)  # wherever the network itself is, and in whatever precision
        schedule = ScaleSchedule(made_for.grids, made_for.grids[-1])
        pooled, words = torch.zeros(1, sizes.pooled), torch.zeros(1, _TEXT_TOKENS, sizes.words)
        mask = torch.ones(1, _TEXT_TOKENS, dtype=torch.bool)
        cells = {
            scale: torch.zeros(1, 1, sizes.channels, *value_grid(schedule, scale, made_for.patchify)) for scale in made_for.scales
        }
        with torch.no_grad():
            return tuple((scale, counted(copy, seen, scale, pooled, words, mask)) for scale, seen in cells.items())

    def check_state(self, state: SearchState, scales: Iterable[int]) -> None:
        """Raise ValueError unless it was trained for the state's model and schedule and for these scales."""
        made_for, schedule = self.made_for, state.schedule
        if state.model.fingerprint != made_for.fingerprint:
            raise ValueError(
                f"this value model was trained on {made_for.model} ({made_for.fingerprint[:8]}), the samples are of "
                f"{state.model.name} ({state.model.fingerprint[:8]}). Train one for that (python -m lab.value), or score by "
                f"{self.reward.name} itself"
            )
        if schedule.grids != made_for.grids:
            raise ValueError(
                f"this value model was trained on pictures of {made_for.grids[-1]} tokens in {len(made_for.grids)} scales, these "
                f"have {schedule.final} in {len(schedule)}. Take that size, or score by {self.reward.name} itself"
            )
        unknown = sorted(set(scales) - set(made_for.scales))
        if unknown:
            raise ValueError(
                f"this value model was trained for scales {', '.join(map(str, made_for.scales))}, not for {unknown[0]}. Score "
                f"there, or take {self.reward.name} itself"
            )

    @torch.no_grad()
    def foretell(self, state: SearchState) -> Tensor:
        """(P,) float32 on the CPU. Raises ValueError as `check_state`."""
        self.check_state(state, [state.last_scale])
        device, dtype = placement(self.network)
        cells = cells_of(state.features, state.schedule, state.last_scale, state.model.patchify)
        words = words_of(state)
        pooled, mask = state.text.pooled[:1], torch.ones(1, len(words), dtype=torch.bool)
        seen = [part.to(device, dtype) for part in (pooled, words[None])]
        return self.network(cells[None].to(device, dtype), state.last_scale, *seen, mask.to(device))[0].float().cpu()


def words_of(state: SearchState) -> Tensor:
    """(T, Ct) float32: the features of the prompt's words, or of the text that stands for no prompt."""
    return state.model.transformer.guidance_texts(state.conditioning)[0].float()


def load_value(path: str | Path, dtype: torch.dtype = torch.float32, reward: Reward | None = None) -> Value:
    """A value model from the file that `save_value` wrote, with the reward it was trained for.

    dtype: of the reward's networks; the value model is small and stays in float32. reward: where it is none of the registry's;
    otherwise it is loaded, its files found beside the value model's under their usual names. Raises MissingFile or UnusableFile,
    naming the file, also for a reward of other weights.
    """
    value = read_value(path)
    reward = reward or _reward(value.made_for.reward, Path(path), dtype)
    _check_networks(reward, value.made_for, Path(path))
    return replace(value, reward=reward)


def read_value(path: str | Path) -> Value:
    """The same without a reward: it only foretells. Raises as `load_value`, but for the reward."""
    path = Path(path)
    with refusing(str(path), VALUE.advice):
        checkpoint, about = read_described(path, METADATA, FORMAT, _NOTHING)
        sizes = ValueSizes(**{name: whole(value, 1, _MOST[name]) for name, value in about["sizes"].items()})
        made_for = _made_for(about["made_for"], sizes)
        with torch.device("meta"):
            network = ValueNetwork(sizes)
        return Value(filled(network, checkpoint, path), None, made_for)


def save_value(path: str | Path, value: Value) -> None:
    """Write network and what it was trained for as safetensors, whole or not at all."""
    about = {"format": FORMAT, "sizes": asdict(value.network.sizes), "made_for": value.made_for._asdict()}
    write_safetensors(path, value.network.state_dict(), {METADATA: json.dumps(about)}, torch.float32)


def _made_for(data: dict[str, Any], sizes: ValueSizes) -> MadeFor:
    grids = tuple(tuple(whole(side, 1, _MOST_CELLS) for side in grid) for grid in data["grids"])
    scales = tuple(whole(scale, 0, sizes.scales - 1) for scale in data["scales"])
    ScaleSchedule(grids, grids[-1])
    return MadeFor(**{**data, "grids": grids, "scales": scales, "networks": tuple(data["networks"])})


def _reward(key: str, path: Path, dtype: torch.dtype) -> Reward:
    """The reward of a name, its files beside ``path``. Raises UnusableFile, saying which file to put there."""
    entry = registry.find(registry.REWARDS, key)
    if entry is None or entry.key == "value":
        raise UnusableFile(
            f"{path.name} was trained for the reward {key!r}, which is none of this package's; give it: load_value(..., reward=...)"
        )
    found = []
    for file in entry.files:
        there = next((path.parent / name for name in file.names if (path.parent / name).exists()), None)
        if there is None:
            raise UnusableFile(f"{path.name} was trained for {entry.title} and needs {file.names[0]} beside it. {file.advice}")
        found.append(str(there))
    return entry.load(*found, **({"dtype": dtype} if found else {}))


def _check_networks(reward: Reward, made_for: MadeFor, path: Path) -> None:
    found = fingerprints_of(reward)
    if found != list(made_for.networks):
        raise UnusableFile(
            f"{path.name} was trained for other weights of {reward.name} ({', '.join(made_for.networks) or 'none'}) than these "
            f"({', '.join(found) or 'none'}). Take the same, or train it again"
        )
