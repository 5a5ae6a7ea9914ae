"""What a diversity search looks at: one feature vector per sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .state import SearchState


@runtime_checkable
class FeatureExtractor(Protocol):
    """Anything that turns samples into vectors.

    name: for reports. looks_at: "images", then `describe` is given (B, H, W, 3) in [0, 1], or "features", then it is
    given the accumulated features (B, Cd, h, w) and no decode is needed.
    """

    name: str
    looks_at: str

    def describe(self, x: Tensor) -> Tensor:
        """(B, F) float32, one vector per sample."""
        ...


class LatentPool(NamedTuple):
    """The extractor that needs no model: accumulated features averaged over a coarse grid, a layout in few numbers."""

    grid: int = 4
    name: str = "latent-pool"
    looks_at: str = "features"

    def describe(self, x: Tensor) -> Tensor:
        """(B, Cd * grid * grid) float32 on the CPU from accumulated features (B, Cd, h, w)."""
        if x.ndim != 4:
            raise ValueError(f"latent-pool describes features of shape (B, Cd, h, w), got {tuple(x.shape)}")
        return torch.nn.functional.adaptive_avg_pool2d(x.float().cpu(), self.grid).flatten(1)  # not every GPU can


def describe_state(state: SearchState, extractor: FeatureExtractor, images: Tensor | None = None) -> Tensor:
    """(P, F) vectors of the samples of `state`, decoding only if the extractor looks at images and none are given.

    images: (P, H, W, 3) of this very state, when something else has decoded them already.
    Raises ValueError for an extractor that looks at something else or answers in another shape.
    """
    vectors = extractor.describe(_view(state, extractor, images))
    if vectors.ndim != 2 or len(vectors) != state.samples:
        raise ValueError(
            f"extractor {extractor.name} gave shape {tuple(vectors.shape)} for {state.samples} samples; expected (P, F)"
        )
    return vectors


def _view(state: SearchState, extractor: FeatureExtractor, images: Tensor | None) -> Tensor:
    if extractor.looks_at == "features":
        return state.features
    if extractor.looks_at != "images":
        raise ValueError(f"extractor {extractor.name} looks at {extractor.looks_at!r}; expected 'images' or 'features'")
    if images is not None:
        return images
    from ..decoding import decode

    return decode(state)
