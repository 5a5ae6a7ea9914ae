"""Foresight: from what is sampled so far, the features that a sample will have in the end, so that a sketch shows what it becomes.

After an early scale the accumulated features hold a blur, which rewards judge badly, although the scales to come change little of
what the picture shows. A small convolutional network is told those features and what the transformer made of them, the values that
its cache holds anyway, and foretells the final features on the grid that sketches are decoded at. It learns from drawn pictures
alone, without a reward, and serves every reward, extractor and pair of eyes; `python -m lab.foresight` trains one for a model of
your own. Related: the clean picture that a diffusion model foretells at every step (DDIM, arXiv 2010.02502, equation 12).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bsq.bits import average, cell_grid
from .config import FORESIGHT_GROUPS, ForesightConfig
from .reading import UnusableFile, refusing, whole
from .scales import Grid
from .threads import threads_for
from .weights.described import filled, read_described
from .weights.write import write_safetensors

if TYPE_CHECKING:
    from .image_model import ImageModel
    from .state import SearchState

METADATA = "ttsvar-foresight"
FORMAT = 1
_NOTHING = "foretells no features: it says nothing of what it was trained on"
_MOST_WIDTH, _MOST_DEPTH, _MOST_CELLS = 2**10, 2**6, 2**12
_ADVICE = "Train it again: python -m lab.foresight."


class ForesightNetwork(nn.Module):
    """Convolutions over features and values, told the scale; what they find is added to the features so far."""

    def __init__(self, sizes: ForesightConfig, channels: int, values: int, scales: int) -> None:
        super().__init__()
        seen, width = channels + values, sizes.width
        self.register_buffer("mean", torch.zeros(seen))
        self.register_buffer("spread", torch.ones(seen))
        self.stem = nn.Conv2d(seen, width, 1)
        self.scale = nn.Embedding(scales, width)
        self.blocks = nn.ModuleList(ForesightBlock(width) for _ in range(sizes.depth))
        self.head = nn.Sequential(nn.GroupNorm(FORESIGHT_GROUPS, width), nn.Conv2d(width, channels, 1))
        nn.init.zeros_(self.head[1].weight)
        nn.init.zeros_(self.head[1].bias)

    def forward(self, features: Tensor, values: Tensor, scale: int, cells: Grid) -> Tensor:
        """(P, C, *cells), the final features, of those so far (P, C, h, w) and the values (P, V, h', w') on grids of their own."""
        features = F.interpolate(features, size=cells, mode="bicubic", align_corners=False)
        x = torch.cat([features, F.interpolate(values, size=cells, mode="bilinear", align_corners=False)], dim=1)
        x = self.stem((x - self.mean[:, None, None]) / self.spread[:, None, None]) + self.scale.weight[scale][:, None, None]
        for block in self.blocks:
            x = block(x)
        return features + self.head(x)


class ForesightBlock(nn.Module):
    """A residual convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(FORESIGHT_GROUPS, width)
        self.around, self.back = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.back(F.gelu(self.around(self.norm(x))))


@dataclass(frozen=True, eq=False, repr=False)
class Foresight:
    """A trained network, and the model and the schedule's grids that it was trained on. It computes where its weights are, in
    float32, whatever the transformer does."""

    sizes: ForesightConfig
    network: ForesightNetwork
    fingerprint: str
    grids: tuple[Grid, ...]

    @property
    def models(self) -> tuple[nn.Module, ...]:
        """Its network, as rewards list theirs."""
        return (self.network,)

    def sees(self, state: SearchState) -> bool:
        """Whether it was trained for pictures of this size, after this scale."""
        return state.last_scale in self.sizes.scales and state.schedule.grids == self.grids

    @torch.inference_mode()
    def foresee(self, state: SearchState, cells: Grid) -> Tensor:
        """(P, C, *cells): the final features of a state's samples, one by one, so that none depends on the others.

        Where a state keeps no keys and values, each sample's are replayed from its bits.
        """
        features = features_so_far(state)
        with threads_for(self.network, cells[0] * cells[1]):
            found = [self._one(state, row, features[row : row + 1], cells) for row in range(state.samples)]
        return torch.cat(found).to(features)

    def _one(self, state: SearchState, row: int, features: Tensor, cells: Grid) -> Tensor:
        place = self.network.mean
        values = values_of(state, row, self.sizes.layers)[None]
        return self.network(features.to(place), values.to(place), state.last_scale, cells)

    def __repr__(self) -> str:
        return f"Foresight({self.fingerprint[:8]}, scales {', '.join(map(str, self.sizes.scales))})"


def check_foresight(state: SearchState) -> None:
    """Raise ValueError, with the remedy, unless it can be foretold what a state's samples become."""
    ahead, scale = state.model.foresight, state.last_scale
    if ahead is None:
        raise ValueError(f"{state.model.name} foretells nothing: score samples as they look so far, or train it (lab/foresight)")
    if not state.finished and not ahead.sees(state):
        known = ", ".join(map(str, ahead.sizes.scales))
        raise ValueError(f"{state.model.name} foretells after scales {known} of its own size of picture, not after {scale}")


def features_so_far(state: SearchState) -> Tensor:
    """(P, C, h, w) float32 on the grid of the state's last scale, which holds all there is."""
    return average(state.features.float(), cell_grid(state.schedule.grids[state.last_scale], state.model.patchify))


def values_of(state: SearchState, row: int, layers: Sequence[int]) -> Tensor:
    """(V, h, w) float32: the values that the attention of these layers, under the prompt, keeps of a sample's last scale."""
    if state.cache is None:
        from .sampling import replay

        bits = tuple(bits[row : row + 1] for bits in state.bits)
        state, row = replay(state._replace(bits=bits, features=state.features[row : row + 1])), 0
    chunk = state.cache.chunks[-1]
    stored = row if chunk.rows is None else int(chunk.rows[row])
    values = torch.cat([chunk.values[layer][0, stored].float().transpose(1, 2).flatten(0, 1) for layer in layers])
    return values.unflatten(1, state.schedule.grids[state.last_scale])


def foresight_beside(transformer: Path) -> Path:
    """Where the network of a transformer's file lies: ``name.foresight.safetensors`` for ``name.transformer.safetensors``."""
    return transformer.with_name(re.sub(r"(\.transformer)?(\.\w+)?$", "", transformer.name) + ".foresight.safetensors")


def with_foresight(model: ImageModel, path: str | Path) -> ImageModel:
    """The model with the network in a file that `save_foresight` wrote, on the processor.

    Raises MissingFile or UnusableFile, naming the file, also for one that was trained on another model.
    """
    path, transformer = Path(path), model.config.transformer
    with refusing(str(path), _ADVICE):
        checkpoint, about = read_described(path, METADATA, FORMAT, _NOTHING)
        if about["fingerprint"] != model.fingerprint:
            other = about["fingerprint"][:8]
            raise UnusableFile(f"{path.name} was trained on another model ({other}, not {model.fingerprint[:8]})")
        grids = tuple((whole(height, 1, _MOST_CELLS), whole(width, 1, _MOST_CELLS)) for height, width in about["grids"])
        sizes = _sizes(about["sizes"], transformer.depth, len(grids))
        with torch.device("meta"):
            network = network_for(model, sizes, len(grids))
        foresight = Foresight(sizes, filled(network, checkpoint, path), model.fingerprint, grids)
    return replace(model, config=replace(model.config, foresight=sizes), foresight=foresight)


def network_for(model: ImageModel, sizes: ForesightConfig, scales: int) -> ForesightNetwork:
    """An untrained network for a model and a schedule of so many scales."""
    transformer = model.config.transformer
    return ForesightNetwork(sizes, transformer.codebook_dim, len(sizes.layers) * transformer.embed_dim, scales)


def save_foresight(path: str | Path, foresight: Foresight, dtype: torch.dtype = torch.float32) -> None:
    """Write the network and what it was trained on as safetensors, whole or not at all."""
    about = {"format": FORMAT, "fingerprint": foresight.fingerprint, "grids": foresight.grids, "sizes": asdict(foresight.sizes)}
    write_safetensors(path, {name: weight.to(dtype) for name, weight in foresight.network.state_dict().items()},
                      {METADATA: json.dumps(about)}, dtype)


def _sizes(data: dict[str, Any], depth: int, scales: int) -> ForesightConfig:
    """What a file says of itself. Raises ValueError for sizes that no network of this kind has."""
    layers = tuple(whole(layer, 0, depth - 1) for layer in data["layers"])
    known = tuple(whole(scale, 0, scales - 1) for scale in data["scales"])
    return ForesightConfig(layers, known, whole(data["width"], 1, _MOST_WIDTH), whole(data["depth"], 1, _MOST_DEPTH))
