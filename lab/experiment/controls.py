"""Extractors and a reward that need no downloaded weights: stand-ins for the paper's, and controls that must not help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ttsvar_core.extractors.reduce import REDUCERS
from ttsvar_core.image_model import ImageModel
from ttsvar_core.scenes.verify import detect

_CHANCE_KEY = 7


@dataclass(frozen=True, eq=False)
class TokenizerExtractor:
    """The model's own tokenizer encoder in DINOv2's place: patch vectors of the decoded image, reduced as in the paper.

    reducer: "PCA", "PCA-shared" or "Pool", see `extractors.reduce`.
    """

    model: ImageModel
    reducer: str = "PCA"
    looks_at: str = "images"

    @property
    def name(self) -> str:
        return f"tokenizer-{self.reducer}"

    def describe(self, x: Tensor) -> Tensor:
        """(B, F) float32 from images (B, H, W, 3) in [0, 1]."""
        with torch.inference_mode():
            pixels = x.permute(0, 3, 1, 2).float() * 2 - 1
            features = torch.cat([self.model.tokenizer.encode(one) for one in pixels.split(1)])
        return REDUCERS[self.reducer](features.flatten(2).transpose(1, 2))


class Chance(NamedTuple):
    """Vectors that depend on the row and on nothing else: clustering by them keeps samples at random."""

    width: int = 16
    name: str = "chance"
    looks_at: str = "features"

    def describe(self, x: Tensor) -> Tensor:
        """(B, width) float32."""
        rows = np.random.default_rng(_CHANCE_KEY).standard_normal((len(x), self.width))
        return torch.from_numpy(rows).float()


class Clarity:
    """How clearly a scene's objects stand out, whatever the prompt: a reward blind to the prompt, as the aesthetic score is."""

    name = "clarity"
    range = (0.0, 1.0)

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """(B,) float32: the mean over detected objects of presence times the fit of the best shape; 0 without objects."""
        found = [detect(image) for image in images.detach().float().cpu().numpy()]
        clear = [np.mean([one.presence * one.shapes.max() for one in objects]) if objects else 0.0 for objects in found]
        return torch.tensor(clear, dtype=torch.float32)
