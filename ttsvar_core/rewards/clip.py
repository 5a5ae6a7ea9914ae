"""Rewards that compare an image's embedding with the prompt's: CLIPScore and PickScore, from any CLIP.

Sources: Hessel et al., "CLIPScore" (2021), here the plain cosine, as the paper's tables report it; Kirstain et al.,
"Pick-a-Pic" (2023) for PickScore, the cosine times the learned temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..weights.reading import reading
from .base import CHUNK, Recent, SingleNetwork, placement
from .clip_layout import VIT_H, ClipNetwork, ClipSizes, build_clip, check_vocabulary
from .files import Published, WrongWeights, read_config, read_tensors
from .preprocess import Preprocess
from .tokens import PromptTokenizer, clip_tokenizer

CLIP = Published("CLIP", "model.safetensors", "https://huggingface.co/openai/clip-vit-large-patch14")
PICK = Published("PickScore", "model.safetensors", "https://huggingface.co/yuvalkirstain/PickScore_v1")


@dataclass(frozen=True, repr=False, eq=False)
class ClipReward(SingleNetwork):
    """Cosine of image and prompt, times the model's temperature if `scaled`. A prompt is embedded once."""

    model: ClipNetwork
    tokenizer: PromptTokenizer
    preprocess: Preprocess
    name: str
    range: tuple[float, float]
    scaled: bool = False
    chunk: int = CHUNK
    recent: Recent = field(default_factory=Recent)

    @torch.no_grad()
    def score(self, images: Tensor, prompt: str) -> Tensor:
        """(B,) float32 on the images' device, of images (B, H, W, 3) in [0, 1]."""

        def cosines(pixels: Tensor) -> Tensor:
            text = self.recent.get((prompt, pixels.dtype), lambda: self._embed(prompt)).to(pixels.device)
            return (self.model(pixels) * text).sum(dim=-1)

        cosine = self.look(images, cosines).to(images.device)
        return cosine * self.model.temperature().to(cosine.device) if self.scaled else cosine

    def _embed(self, prompt: str) -> Tensor:
        return self.model.embed_text(self.tokenizer(prompt).to(placement(self.model)[0])).cpu()


def load_clip_score(
    path: str | Path, vocabulary: str | Path | None = None, activation: str = "auto", dtype=torch.float32
) -> ClipReward:
    """CLIPScore from any CLIP, a file or folder in Hugging Face or open_clip layout; see `load_clip_reward`."""
    return load_clip_reward(path, CLIP, "CLIPScore", (0.0, 0.5), vocabulary, activation=activation, dtype=dtype)


def load_pick_score(path: str | Path, vocabulary: str | Path | None = None, dtype=torch.float32) -> ClipReward:
    """PickScore from its published weights (a ViT-H CLIP, so with plain GELU); see `load_clip_reward`."""
    options = {"scaled": True, "dtype": dtype, "sizes": VIT_H}
    return load_clip_reward(path, PICK, "PickScore", (15.0, 27.0), vocabulary, activation="gelu", **options)


def load_clip_reward(
    path: str | Path,
    published: Published,
    name: str,
    range: tuple[float, float],
    vocabulary: str | Path | None = None,
    *,
    activation: str = "auto",
    config: Mapping | None = None,
    fit: str = "crop",
    scaled: bool = False,
    sizes: ClipSizes | None = None,
    dtype=torch.float32,
) -> ClipReward:
    """A reward over the CLIP at `path`.

    vocabulary: a folder with CLIP's merges, or None for the ones that are shipped. activation, config, sizes: see
    `build_clip`; config=None reads the one published beside the weights. fit: see `Preprocess`. dtype: of the network.
    Raises MissingWeights or WrongWeights, naming the file, the folder and the page it is published on.
    """
    with reading(str(path), published.advice, WrongWeights):
        config = read_config(path) if config is None else config
        model = build_clip(read_tensors(path, published), config, str(path), published, activation, sizes)
    tokenizer = clip_tokenizer(vocabulary, model.text_length)
    check_vocabulary(model, tokenizer.size, str(path), published)
    preprocess = Preprocess(model.image_size, fit=fit)
    return ClipReward(model.network.to(dtype), tokenizer, preprocess, name, range, scaled)
