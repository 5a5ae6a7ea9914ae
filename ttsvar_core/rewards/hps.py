"""HPS v2.1: a ViT-H CLIP tuned on human preferences; the score is the plain cosine.

Source: Wu et al., "Human Preference Score v2" (2023), and the hpsv2 package for the image transform: the longer side
is scaled to 224 and the rest is black, so nothing of a wide image is cut away.
"""

from __future__ import annotations

from pathlib import Path

import torch

from .clip import ClipReward, load_clip_reward
from .clip_layout import VIT_H
from .files import Published

PUBLISHED = Published("HPS v2.1", "HPS_v2.1_compressed.pt", "https://huggingface.co/xswu/HPSv2")


def load_hps(path: str | Path, vocabulary: str | Path | None = None, dtype=torch.float32) -> ClipReward:
    """HPS v2.1 from HPS_v2.1_compressed.pt or the same tensors as .safetensors; scores about 0.15 to 0.4.

    Raises MissingWeights or WrongWeights; see `load_clip_reward`.
    """
    options = {"activation": "gelu", "fit": "pad", "dtype": dtype, "sizes": VIT_H}
    return load_clip_reward(path, PUBLISHED, "HPSv2.1", (0.15, 0.4), vocabulary, **options)
