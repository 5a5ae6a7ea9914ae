"""Rewards that compare an image's embedding with the prompt's: CLIPScore from any CLIP, PickScore and HPS v2.1 from their own.

Sources: Hessel et al., "CLIPScore" (2021), here the plain cosine, as the paper's tables report it; Kirstain et al.,
"Pick-a-Pic" (2023) for PickScore, the cosine times the learned temperature; Wu et al., "Human Preference Score v2" (2023) for
HPS v2.1, the plain cosine of a ViT-H tuned on preferences, and the hpsv2 package for its transform: the longer side is scaled to
224 and the rest is black, so nothing of a wide image is cut away.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from ..reading import refusing
from ..registry import REWARDS, WeightFile
from ..vision.clip import VIT_H, ClipNetwork, ClipSizes, build_clip
from ..vision.network import SingleNetwork, placement
from ..vision.preprocess import Preprocess
from ..vision.tokens import PromptTokenizer, clip_tokenizer
from ..weights.tensors import read_config, read_tensors

(CLIP,), (PICK,), (HPS,) = (REWARDS[key].files for key in ("clip", "pick", "hps"))
REMEMBERED = 8  # prompts, whose embeddings a reward keeps


@dataclass(frozen=True, repr=False, eq=False)
class ClipReward(SingleNetwork):
    """Cosine of image and prompt, times the model's temperature if `scaled`. A prompt is embedded once."""

    model: ClipNetwork
    tokenizer: PromptTokenizer
    preprocess: Preprocess
    name: str
    range: tuple[float, float]
    scaled: bool = False

    def __post_init__(self):
        embed = partial(_embedded, self.model, self.tokenizer)  # not of the reward itself: a circle would hold the network longer
        object.__setattr__(self, "_text", lru_cache(REMEMBERED)(embed))

    @torch.no_grad()
    def score(self, images: Tensor, prompt: str) -> Tensor:
        """(B,) float32 on the images' device, of images (B, H, W, 3) in [0, 1]."""

        def cosines(pixels: Tensor) -> Tensor:
            return (self.model(pixels) * self._text(prompt, pixels.dtype).to(pixels.device)).sum(dim=-1)

        cosine = self.look(images, cosines).to(images.device)
        return cosine * self.model.temperature().to(cosine.device) if self.scaled else cosine


def _embedded(model: ClipNetwork, tokenizer: PromptTokenizer, prompt: str, dtype: torch.dtype) -> Tensor:
    """(1, C) on the CPU; ``dtype``, that of the network at the time, tells its results apart."""
    return model.embed_text(tokenizer(prompt).to(placement(model)[0])).cpu()


def load_clip_score(path: str | Path, dtype=torch.float32) -> ClipReward:
    """CLIPScore from any CLIP, a file or folder in Hugging Face or open_clip layout; see `load_clip_reward`."""
    return load_clip_reward(path, CLIP, "CLIPScore", (0.0, 0.5), dtype=dtype)


def load_pick_score(path: str | Path, dtype=torch.float32) -> ClipReward:
    """PickScore from its published weights (a ViT-H CLIP, so with plain GELU); see `load_clip_reward`."""
    return load_clip_reward(path, PICK, "PickScore", (15.0, 27.0), sizes=VIT_H, scaled=True, dtype=dtype)


def load_hps(path: str | Path, dtype=torch.float32) -> ClipReward:
    """HPS v2.1 from HPS_v2.1_compressed.pt or the same tensors as .safetensors; see `load_clip_reward`."""
    return load_clip_reward(path, HPS, "HPSv2.1", (0.15, 0.4), sizes=VIT_H, fit="pad", dtype=dtype)


def load_clip_reward(
    path: str | Path, published: WeightFile, name: str, range: tuple[float, float], *, sizes: ClipSizes | None = None,
    fit: str = "crop", scaled: bool = False, dtype=torch.float32,
) -> ClipReward:
    """A reward over the CLIP at `path`.

    sizes: see `build_clip`; a CLIP of given sizes uses plain GELU. fit: see `Preprocess`. dtype: of the network.
    Raises MissingFile or UnusableFile, naming the file, the folder and the page it is published on.
    """
    with refusing(str(path), published.advice):
        tensors = read_tensors(path, published)
        model = build_clip(tensors, read_config(path), str(path), published, "gelu" if sizes else "auto", sizes)
    tokenizer = clip_tokenizer(model.text_length)
    tokenizer.check(model.vocabulary, tensors)
    preprocess = Preprocess(model.image_size, fit=fit)
    return ClipReward(model.network.to(dtype), tokenizer, preprocess, name, range, scaled)
