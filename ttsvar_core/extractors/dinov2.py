"""DINOv2 with registers: what the paper clusters images by.

Sources: Darcet et al., "Vision Transformers Need Registers" (2023); TTS-VAR for the transform (stretched to 224 pixels,
bilinear, ImageNet statistics) and for taking the patch tokens after the last norm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..reading import refusing
from ..registry import EXTRACTORS
from ..vision.layout import HEAD_SIZE, rename, split_rows
from ..vision.network import SingleNetwork
from ..vision.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from ..weights.published import load_published
from ..weights.stated import count_blocks, stated
from ..weights.tensors import Tensors, read_config, read_tensors
from .reduce import REDUCERS

(PUBLISHED,) = EXTRACTORS["dinov2-PCA"].files
PATCHES = 16
"""Patches per side the paper looks at: 224 pixels of 14-pixel patches."""
HUB_NAMES = (
    (r"(cls_token|mask_token|register_tokens)", r"embeddings.\1"),
    (r"pos_embed", "embeddings.position_embeddings"),
    (r"patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"blocks\.(\d+)\.ls([12])\.gamma", r"encoder.layer.\1.layer_scale\2.lambda1"),
    (r"blocks\.(\d+)\.mlp\.w12\.", r"encoder.layer.\1.mlp.weights_in."),
    (r"blocks\.(\d+)\.mlp\.w3\.", r"encoder.layer.\1.mlp.weights_out."),
    (r"blocks\.(\d+)\.", r"encoder.layer.\1."),
    (r"norm\.", "layernorm."),
)


@dataclass(frozen=True, repr=False, eq=False)
class DinoExtractor(SingleNetwork):
    """Patch tokens reduced to one vector per image; reducer: "PCA", "PCA-shared" or "Pool"."""

    model: nn.Module
    preprocess: Preprocess
    reducer: str = "PCA"
    looks_at: str = "images"

    @property
    def name(self) -> str:
        return f"DINOv2 {self.reducer}"

    def describe(self, x: Tensor) -> Tensor:
        """(B, F) float32 on the CPU, of images (B, H, W, 3) in [0, 1]; F is 256 for PCA, the model's width for Pool."""
        return REDUCERS[self.reducer](self.patch_tokens(x))

    @torch.no_grad()
    def patch_tokens(self, images: Tensor) -> Tensor:
        """(B, L, C) float32 tokens of the patches, rows first, of images (B, H, W, 3) in [0, 1]."""
        return self.look(images, lambda pixels: normed_patches(self.model, pixels))


def normed_patches(model: nn.Module, pixels: Tensor) -> Tensor:
    """(B, L, C) float32 patch tokens after the last norm, without class and register tokens, of pixels (B, 3, h, w)."""
    return model(pixel_values=pixels).last_hidden_state[:, 1 + model.config.num_register_tokens :].float()


def load_dinov2(path: str | Path, reducer: str = "PCA", dtype=torch.float32) -> DinoExtractor:
    """DINOv2 with registers of any size, from the hub's .pth or a file or folder in Hugging Face layout.

    Raises MissingFile or UnusableFile, naming the file and the page; ValueError for an unknown reducer.
    """
    if reducer not in REDUCERS:
        raise ValueError(f"no reducer {reducer!r}; expected one of {', '.join(REDUCERS)}")
    with refusing(str(path), PUBLISHED.advice):
        model = build_dinov2(read_tensors(path, PUBLISHED), read_config(path), str(path))
    preprocess = Preprocess(PATCHES * model.config.patch_size, "stretch", "bilinear", IMAGENET_MEAN, IMAGENET_STD)
    return DinoExtractor(model.to(dtype), preprocess, reducer)


def build_dinov2(tensors: Mapping[str, Tensor], config: Mapping, source: str) -> nn.Module:
    """The transformers model, from tensors in either layout; config may tell the number of heads."""
    named = _published_names(Tensors(tensors, source, PUBLISHED))
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    width, _, patch, _ = named["embeddings.patch_embeddings.projection.weight"].shape
    gated = "encoder.layer.0.mlp.weights_in.weight" in named
    settings = Dinov2WithRegistersConfig(
        hidden_size=width,
        num_hidden_layers=count_blocks(named, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=stated(config, "num_attention_heads", max(1, width // HEAD_SIZE)),
        mlp_ratio=_mlp_ratio(named, width, gated),
        image_size=round((named["embeddings.position_embeddings"].shape[1] - 1) ** 0.5) * patch,
        patch_size=patch,
        num_register_tokens=named["embeddings.register_tokens"].shape[1],
        use_swiglu_ffn=gated,
        layer_norm_eps=stated(config, "layer_norm_eps", 1e-6),
    )
    return load_published(Dinov2WithRegistersModel, settings, named)


def _published_names(tensors: Tensors) -> Tensors:
    """The tensors under the names of Hugging Face's published checkpoints."""
    if "blocks.0.norm1.weight" in tensors:
        parts = [f"attention.attention.{part}." for part in ("query", "key", "value")]
        tensors = tensors.alike(rename(split_rows(tensors, r"attn\.qkv\.", parts), HUB_NAMES))
    tensors.require("embeddings.patch_embeddings.projection.weight")
    if "embeddings.register_tokens" not in tensors:
        raise tensors.refusal("is a DINOv2 without registers, whose patch maps have artefacts")
    return tensors


def _mlp_ratio(tensors: Tensors, width: int, gated: bool) -> int:
    """The whole multiple of the width the feed-forward layers are configured by; the gated ones then keep two thirds."""
    name = "encoder.layer.0.mlp." + ("weights_in.weight" if gated else "fc1.weight")
    rows = len(tensors[name])
    for ratio in range(1, 17):
        expected = 2 * ((ratio * width * 2 // 3 + 7) // 8 * 8) if gated else ratio * width
        if rows == expected:
            return ratio
    raise tensors.refusal(f"has {rows} rows in {name}, no whole multiple of the width {width}")
