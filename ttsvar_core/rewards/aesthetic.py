"""Aesthetic v2.5: a SigLIP image tower and five linear layers; it does not read the prompt.

Source: the weights of aesthetic-predictor-v2-5 (discus0434). Its scale is 1 to 10; the search divides it by ten, as
the paper does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..reading import refusing
from ..registry import REWARDS
from ..vision.layout import float_stack, linear_stack, vision_heads
from ..vision.network import SingleNetwork
from ..vision.preprocess import HALF, Preprocess
from ..weights.published import load_published
from ..weights.stated import count_blocks, section, stated
from ..weights.tensors import Tensors, read_config, read_tensors

TOWER, HEAD = REWARDS["aesthetic"].files
SCALE = 10.0
"""What the paper divides the predictor's 1 to 10 by."""
IMAGE_SIZES = {(14, 27): 384}
"""Input side by (patch, grid) where it is no multiple of the patch: so400m drops 6 of its 384 pixels."""
TOWER_PREFIXES = ("vision_model.", "vision.vision_model.", "vision.")
"""Where a SigLIP keeps its image tower: the published checkpoints, then the reference files."""


class AestheticModel(nn.Module):
    """A SigLIP image tower and the head on its normalised embedding."""

    def __init__(self, vision: nn.Module, head: nn.Sequential):
        super().__init__()
        self.vision, self.head = vision, head

    def forward(self, pixels: Tensor) -> Tensor:
        """(B,) float32 on the predictor's own scale of 1 to 10, of pixels (B, 3, h, w)."""
        return self.predict(self.embed(pixels))

    def embed(self, pixels: Tensor) -> Tensor:
        """(B, C) float32 pooled embeddings of pixels (B, 3, h, w)."""
        return self.vision(pixel_values=pixels).pooler_output.float()

    def predict(self, embeddings: Tensor) -> Tensor:
        """(B,) float32 on the predictor's own scale of 1 to 10."""
        return float_stack(self.head, nn.functional.normalize(embeddings, dim=-1))[:, 0]


@dataclass(frozen=True, repr=False, eq=False)
class AestheticReward(SingleNetwork):
    """Aesthetic v2.5 divided by ten."""

    model: AestheticModel
    preprocess: Preprocess
    name: str = "Aesthetic v2.5"
    range: tuple[float, float] = (0.1, 1.0)

    @property
    def tower(self) -> nn.Module:
        return self.model.vision

    @torch.no_grad()
    def score(self, images: Tensor, prompt: str) -> Tensor:
        """(B,) float32 on the images' device, of images (B, H, W, 3) in [0, 1]; the prompt is not used."""
        return self.look(images, self.model).to(images.device) / SCALE


def load_aesthetic(tower: str | Path, head: str | Path, dtype=torch.float32) -> AestheticReward:
    """Aesthetic v2.5 from a SigLIP (file or folder, with or without its text tower) and the head's file.

    dtype: of the tower. Raises MissingFile or UnusableFile, naming the file and the page it is published on.
    """
    source = f"{tower} with {head}"
    with refusing(source, TOWER.advice):
        tensors = {**read_tensors(tower, TOWER), **head_tensors(read_tensors(head, HEAD))}
        model, size = build_aesthetic(tensors, read_config(tower), source)
    model.vision.to(dtype)
    return AestheticReward(model, Preprocess(size, "stretch", mean=HALF, std=HALF))


def head_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's tensors as `scoring_head.<index>...`, wherever in a predictor's file they lie."""
    mark = "scoring_head."
    return {mark + name.split(mark, 1)[1]: tensor for name, tensor in tensors.items() if mark in name}


def build_aesthetic(tensors: Mapping[str, Tensor], config: Mapping, source: str) -> tuple[AestheticModel, int]:
    """The network and its input size in pixels, from the tower's and the head's tensors together.

    config: what tensors do not tell, under `vision` or `vision_config` or at the top: heads, activation, input size.
    """
    head = Tensors(head_tensors(tensors), source, HEAD).under("scoring_head.")
    head.require("0.weight", "0.bias")
    vision = _tower(Tensors(tensors, source, TOWER))
    vision.require("embeddings.patch_embedding.weight", "head.probe")
    return _assemble(vision, head, section(config, "vision", "vision_config") or config)


def _tower(tensors: Tensors) -> Tensors:
    for prefix in TOWER_PREFIXES:
        if found := tensors.under(prefix):
            return found
    return tensors.alike({name: tensor for name, tensor in tensors.items() if "scoring_head." not in name})


def _assemble(vision: Tensors, head: Tensors, config: Mapping) -> tuple[AestheticModel, int]:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    width, _, patch, _ = vision["embeddings.patch_embedding.weight"].shape
    grid = round(len(vision["embeddings.position_embedding.weight"]) ** 0.5)
    size = stated(config, "image_size", IMAGE_SIZES.get((patch, grid), grid * patch))
    settings = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=len(vision["encoder.layers.0.mlp.fc1.weight"]),
        num_hidden_layers=count_blocks(vision, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=stated(config, "num_attention_heads", vision_heads(width)),
        image_size=size,
        patch_size=patch,
        hidden_act=stated(config, "hidden_act", "gelu_pytorch_tanh"),
        layer_norm_eps=stated(config, "layer_norm_eps", 1e-6),
    )
    named = {f"vision_model.{name}": tensor for name, tensor in vision.items() if not name.endswith("position_ids")}
    return AestheticModel(load_published(SiglipVisionModel, settings, vision.alike(named)), linear_stack(head)), size
