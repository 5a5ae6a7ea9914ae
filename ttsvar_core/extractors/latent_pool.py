"""The extractor that needs no model."""

from typing import NamedTuple

import torch
from torch import Tensor


class LatentPool(NamedTuple):
    """Accumulated features averaged over a coarse grid: a layout in few numbers."""

    grid: int = 4
    name: str = "latent-pool"
    looks_at: str = "features"

    def describe(self, x: Tensor) -> Tensor:
        """(B, Cd * grid * grid) float32 on the CPU from accumulated features (B, Cd, h, w)."""
        if x.ndim != 4:
            raise ValueError(f"latent-pool describes features of shape (B, Cd, h, w), got {tuple(x.shape)}")
        return torch.nn.functional.adaptive_avg_pool2d(x.float().cpu(), self.grid).flatten(1)  # not every GPU can
