"""A loaded image model: transformer and tokenizer that belong together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .config import ModelConfig
from .scales import ScaleSchedule

if TYPE_CHECKING:
    from .bsq.autoencoder import Tokenizer
    from .foresight import Foresight
    from .infinity.model import Infinity


@dataclass(frozen=True, eq=False)
class ImageModel:
    """A transformer with its tokenizer. ``fingerprint`` identifies their weights, so that a saved state finds its model again.
    ``foresight`` foretells what unfinished samples become, for a model that has it."""

    config: ModelConfig
    transformer: Infinity = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    fingerprint: str = ""
    foresight: Foresight | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def patchify(self) -> bool:
        """Whether a token covers 2x2 cells of the tokenizer."""
        return self.config.transformer.apply_spatial_patchify

    def schedule(self, height_over_width: float = 1.0, pixel_budget: str = "1M") -> ScaleSchedule:
        return self.config.schedule(height_over_width, pixel_budget)

    def __repr__(self) -> str:
        return f"ImageModel({self.name}, {self.fingerprint[:8]})"
