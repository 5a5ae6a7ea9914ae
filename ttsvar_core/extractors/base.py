"""What a diversity search looks at: one feature vector per sample."""

from typing import Protocol, runtime_checkable

from torch import Tensor


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
