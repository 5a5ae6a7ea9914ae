"""ImageReward run by the image-reward package, for those who have it installed; the scores are those of `image_reward`.

Only the package's networks are used: its loader would fetch a tokenizer and unpickle the file, and its own scoring
takes images one by one. The package needs transformers 4.55 or older.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..reading import refusing
from ..vision.layout import HEAD_SIZE
from ..vision.preprocess import Preprocess
from ..vision.tokens import bert_tokenizer
from ..weights.finite import finite_floats
from ..weights.stated import count_blocks
from ..weights.tensors import read_tensors
from .image_reward import MEAN, PUBLISHED, STD, TEXT_EPS, ImageReward, ImageRewardModel

TEXT = "blip.text_encoder."
IMAGE_SIZE = 224
"""Input side the package builds its image tower for."""


class PackagedModel(ImageRewardModel):
    """The package's towers, which return and take plain tensors where transformers' do not."""

    def features(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """As `ImageRewardModel.features`, of unpadded prompts."""
        seen = self.vision(pixels)
        states = self.text(
            ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long, device=seen.device),
            return_dict=True,
        )
        return states.last_hidden_state[:, 0].float()


def load_packaged_image_reward(path: str | Path, dtype=torch.float32) -> ImageReward:
    """ImageReward from ImageReward.pt through the package's own networks; arguments as for `load_image_reward`.

    Raises ImportError if the package cannot be imported, MissingFile or UnusableFile for the file.
    """
    try:
        from ImageReward.ImageReward import MLP
        from ImageReward.models.BLIP import blip_pretrain
    except ImportError as error:
        raise ImportError(
            f"the image-reward package cannot be imported ({error}); it needs transformers 4.55 or older. "
            "The built-in ImageReward reads the same file and gives the same scores."
        ) from error
    words = f"{TEXT}embeddings.word_embeddings.weight"
    holder = nn.Module()
    with refusing(str(path), PUBLISHED.advice):
        tensors = read_tensors(path, PUBLISHED)
        tensors = tensors.alike(finite_floats(tensors, str(path)))
        tensors.require(words, "mlp.layers.0.weight")
        holder.blip = _towers(blip_pretrain, tensors, words)
        holder.mlp = MLP(tensors["mlp.layers.0.weight"].shape[1])
        missing, _ = holder.load_state_dict(tensors, strict=False)
    if missing := [name for name in missing if not name.endswith("position_ids")]:
        raise tensors.refusal(f"lacks {len(missing)} tensors, first {', '.join(missing[:3])}")
    holder.eval().requires_grad_(False)
    head = nn.Sequential(*(layer for layer in holder.mlp.layers if isinstance(layer, nn.Linear)))
    blip = holder.blip
    model = PackagedModel(blip.visual_encoder.to(dtype), blip.text_encoder.to(dtype), head, MEAN, STD)
    return ImageReward(model, bert_tokenizer(), Preprocess(IMAGE_SIZE), name="ImageReward (package)")


def _towers(module, tensors: Mapping[str, Tensor], words: str) -> nn.Module:
    """The package's BLIP without its tokenizer, which it would fetch from the network."""
    vocabulary, width = tensors[words].shape
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": count_blocks(tensors, rf"{TEXT}encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, width // HEAD_SIZE),
        "intermediate_size": len(tensors[f"{TEXT}encoder.layer.0.intermediate.dense.weight"]),
        "max_position_embeddings": len(tensors[f"{TEXT}embeddings.position_embeddings.weight"]),
        "layer_norm_eps": TEXT_EPS,
        "add_cross_attention": True,
        "encoder_width": width,
    }
    original = module.init_tokenizer
    module.init_tokenizer = lambda: None
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "med_config.json"
            file.write_text(json.dumps(settings), encoding="utf-8")
            return module.BLIP_Pretrain(image_size=IMAGE_SIZE, vit="large", med_config=str(file))
    finally:
        module.init_tokenizer = original
