"""Two-dimensional rotary positions that every scale shares.

A scale's grid is stretched over the reference grid of its schedule, so that a place in the picture keeps its position at every
scale. Half of a head's channel pairs turn with the row, half with the column.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..scales import Grid

BASE = 10_000.0  # as in RoFormer (arXiv 2104.09864) and the published models


class Rotation(NamedTuple):
    """Cosines and sines (L, D/2) float32 by which the channel pairs of every token of a grid are turned."""

    cos: Tensor
    sin: Tensor


def rotation(grid: Grid, reference: Grid, head_dim: int, device: torch.device | None = None) -> Rotation:
    """The rotations of a grid's tokens (row by row), positions stretched onto ``reference`` and rounded to whole cells.

    Computed on ``device``, which takes a few small kernels there and no copy of a table to it.
    """
    frequencies = 1.0 / (BASE ** (torch.arange(0, head_dim // 2, 2, device=device).float() / (head_dim // 2)))
    rows, columns = (
        torch.round(torch.arange(n, device=device) * (full / n)) for n, full in zip(grid, reference, strict=True)
    )
    row_angles = torch.outer(rows, frequencies)[:, None].expand(-1, grid[1], -1)
    column_angles = torch.outer(columns, frequencies)[None].expand(grid[0], -1, -1)
    angles = torch.cat((row_angles, column_angles), dim=-1).flatten(0, 1)
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, turn: Rotation) -> Tensor:
    """Turn the neighbouring channel pairs of (..., L, D) float32; shape and lengths stay."""
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack((even * turn.cos - odd * turn.sin, even * turn.sin + odd * turn.cos), dim=-1)
    return turned.flatten(-2)
