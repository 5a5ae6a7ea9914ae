"""Bits, codes and accumulated features of the multi-scale binary-spherical tokenizer.

A cell's bits are the signs of its code, a point of the hypercube scaled onto the unit sphere (BSQ, arXiv 2406.07548). Every
scale adds its codes, resized to the final grid, to the accumulated features; the next scale sees those features resized to
its own grid (Infinity, arXiv 2412.04431, section 3.2).

Tokens are (P, L, Z) with the scale's grid flattened row by row; maps are (P, C, h, w) on the tokenizer's cells. With spatial
patchify a token covers 2x2 cells, and Z = 4 C.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from ..scales import Grid, ScaleSchedule


def cell_grid(grid: Grid, patchify: bool) -> Grid:
    """The tokenizer's grid for a grid of tokens: twice the sides with spatial patchify."""
    return (2 * grid[0], 2 * grid[1]) if patchify else grid


def tokens_to_map(tokens: torch.Tensor, grid: Grid, patchify: bool) -> torch.Tensor:
    """(P, L, Z) on a token grid -> (P, C, h, w) on the tokenizer's cells."""
    samples, _, channels = tokens.shape
    cells = tokens.transpose(1, 2).reshape(samples, channels, *grid)
    return F.pixel_shuffle(cells, 2) if patchify else cells


def map_to_tokens(cells: torch.Tensor, patchify: bool) -> torch.Tensor:
    """(P, C, h, w) on the tokenizer's cells -> (P, L, Z)."""
    tokens = F.pixel_unshuffle(cells, 2) if patchify else cells
    return tokens.flatten(2).transpose(1, 2)


def bits_to_codes(bits: torch.Tensor, codebook_dim: int) -> torch.Tensor:
    """Bits {0, 1} of any shape -> codes of the same shape, float32: +-1/sqrt(codebook_dim)."""
    return (bits.float() * 2 - 1) * codebook_dim**-0.5


def codes_to_bits(codes: torch.Tensor) -> torch.Tensor:
    """Codes (or unquantised residuals) of any shape -> bits, uint8: the sign, with zero counted as 0."""
    return (codes > 0).to(torch.uint8)


def fuse(features: torch.Tensor, bits: torch.Tensor, scale: int, schedule: ScaleSchedule, patchify: bool) -> torch.Tensor:
    """Accumulated features after a scale: ``features`` (P, C, h, w) plus the scale's ``bits`` (P, L, Z) as resized codes."""
    codes = bits_to_codes(tokens_to_map(bits, schedule.grids[scale], patchify), features.shape[1])
    return features + _resize(codes, tuple(features.shape[-2:]))


def fused(
    features: torch.Tensor, bits: Sequence[torch.Tensor], schedule: ScaleSchedule, patchify: bool
) -> Iterator[torch.Tensor]:
    """The accumulated features after every scale that ``bits`` has, from ``features`` before the first."""
    for scale, of_scale in enumerate(bits):
        features = fuse(features, of_scale, scale, schedule, patchify)
        yield features


def next_scale_input(features: torch.Tensor, grid: Grid, patchify: bool) -> torch.Tensor:
    """What a scale sees of the accumulated features: (P, C, h, w) resized to its grid, as tokens (P, L, Z)."""
    return map_to_tokens(_resize(features, cell_grid(grid, patchify)), patchify)


def empty_features(samples: int, codebook_dim: int, schedule: ScaleSchedule, patchify: bool) -> torch.Tensor:
    """Accumulated features before the first scale: zeros (P, C, h, w) on the tokenizer's final grid."""
    return torch.zeros(samples, codebook_dim, *cell_grid(schedule.final, patchify))


def encode_bits(
    features: torch.Tensor, schedule: ScaleSchedule, patchify: bool, scales: int | None = None
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Quantise encoder features (P, C, h, w) scale by scale (residual quantisation).

    Returns the bits of the first ``scales`` scales (all by default), each (P, L, Z) uint8, and the accumulated features of
    those scales. Raises ValueError if the features do not lie on the schedule's final grid.
    """
    expected = cell_grid(schedule.final, patchify)
    if tuple(features.shape[-2:]) != expected:
        raise ValueError(f"The features lie on a {tuple(features.shape[-2:])} grid; this schedule ends on {expected}.")
    accumulated = torch.zeros_like(features)
    all_bits = []
    for scale, grid in enumerate(schedule.grids[:scales]):
        residual = average(features - accumulated, cell_grid(grid, patchify))
        bits = codes_to_bits(map_to_tokens(residual, patchify))
        accumulated = fuse(accumulated, bits, scale, schedule, patchify)
        all_bits.append(bits)
    return tuple(all_bits), accumulated


def average(cells: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Cells averaged over the areas of a coarser grid; on the CPU for Apple's GPUs, which refuse sides that do not divide."""
    if cells.device.type == "mps":
        return F.interpolate(cells.cpu(), size=grid, mode="area").to(cells)
    return F.interpolate(cells, size=grid, mode="area")


def _resize(cells: torch.Tensor, grid: Grid) -> torch.Tensor:
    if tuple(cells.shape[-2:]) == grid:
        return cells
    return F.interpolate(cells, size=grid, mode="bilinear", align_corners=False)
