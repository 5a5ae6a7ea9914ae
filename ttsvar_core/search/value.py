"""A network that foretells how samples will be judged in the end, from what is sampled so far and the prompt; no decode.

It reads the accumulated features on the grid of their scale, the prompt as the transformer pools it, and its words one by one, and
compares nothing across samples: what it says means something only beside other samples of the same prompt. Related: a verifier on a
generator's own states (VHS, arXiv 2603.22492), a scorer of 4M on accumulated features (LSRS, arXiv 2512.03796).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bsq.bits import average, cell_grid
from ..scales import Grid, ScaleSchedule

LARGEST_SIDE = 16  # cells; finer grids are averaged down, and what foretells is coarse
GROUPS = 4


@dataclass(frozen=True)
class ValueSizes:
    """channels: of the accumulated features. pooled, words: width of the pooled prompt and of its words' features. scales: how many
    the schedule has. width, depth, heads: of the network itself. Raises ValueError for a width that does not divide."""

    channels: int
    pooled: int
    words: int
    scales: int
    width: int = 64
    depth: int = 3
    heads: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % GROUPS:
            raise ValueError(f"a value network of width {self.width} does not divide into {self.heads} heads and {GROUPS} groups")


class ValueNetwork(nn.Module):
    """Convolutions over the cells, modulated by scale and pooled prompt, that attend to the words; mean and maximum, then a head.

    ``unit`` (scales,) brings what it says of a scale to the unit of the final reward, within a prompt.
    """

    def __init__(self, sizes: ValueSizes) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.width
        self.stem = nn.Conv2d(sizes.channels + 2, width, 3, padding=1)
        self.scale = nn.Embedding(sizes.scales, width)
        self.pooled = nn.Sequential(nn.LayerNorm(sizes.pooled), nn.Linear(sizes.pooled, width))
        self.words = nn.Sequential(nn.LayerNorm(sizes.words), nn.Linear(sizes.words, 2 * width))
        self.blocks = nn.ModuleList(ValueBlock(width, sizes.heads) for _ in range(sizes.depth))
        self.head = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 1))
        self.register_buffer("unit", torch.ones(sizes.scales))

    def forward(self, cells: Tensor, scale: int, pooled: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """(B, P) of P samples of each of B prompts: cells (B, P, Z, h, w), pooled (B, C), words (B, T, Ct), mask (B, T), True on
        words. Raises ValueError, naming the shape, for cells that are none."""
        if cells.ndim != 5 or cells.shape[2] != self.sizes.channels:
            raise ValueError(f"cells of shape {tuple(cells.shape)}; expected (prompts, samples, {self.sizes.channels}, h, w)")
        prompts, samples, _, height, width = cells.shape
        x = self.stem(torch.cat([cells.flatten(0, 1), _places(height, width, cells).expand(prompts * samples, -1, -1, -1)], 1))
        told = self.pooled(pooled) + self.scale.weight[scale]
        keys, values = self.words(words).chunk(2, dim=-1)
        for block in self.blocks:
            x = block(x, told.repeat_interleave(samples, 0), keys, values, mask)
        summary = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        return self.head(summary).reshape(prompts, samples) * self.unit[scale]


class ValueBlock(nn.Module):
    """A residual convolution whose norm is set by the prompt, then every cell's look at the words."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.attending = nn.GroupNorm(GROUPS, width, affine=False), nn.GroupNorm(GROUPS, width)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.convolution = nn.Conv2d(width, width, 3, padding=1)
        self.query, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, told: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """x (B * P, W, h, w), told (B * P, W), keys and values (B, T, W), mask (B, T)."""
        gain, shift = self.modulation(told)[..., None, None].chunk(2, dim=1)
        x = x + self.convolution(F.gelu(self.norm(x) * (1 + gain) + shift))
        cells = self.attending(x).flatten(2).transpose(1, 2).reshape(len(keys), -1, x.shape[1])  # all cells of a prompt's samples
        queries, keys, values = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query(cells), keys, values))
        seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask[:, None, None])
        seen = self.output(seen.transpose(1, 2).flatten(2))
        return x + seen.reshape(len(x), -1, x.shape[1]).transpose(1, 2).reshape(x.shape)


def cells_of(features: Tensor, schedule: ScaleSchedule, scale: int, patchify: bool) -> Tensor:
    """(P, Z, h, w) float32: accumulated features (P, Z, H, W) on the grid of ``scale``, or a coarser one of at most 16 a side."""
    return average(features.float(), value_grid(schedule, scale, patchify))


def value_grid(schedule: ScaleSchedule, scale: int, patchify: bool) -> Grid:
    """The grid that the network sees after a scale."""
    height, width = cell_grid(schedule.grids[scale], patchify)
    times = -(-max(height, width) // LARGEST_SIDE)
    return -(-height // times), -(-width // times)


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """(1, 2, h, w): each cell's place from -1 to 1, since prompts say left of and above."""
    rows, columns = (((torch.arange(side) + 0.5) / side * 2 - 1) for side in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None].to(like)
