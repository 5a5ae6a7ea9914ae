"""ImageReward: BLIP reads the prompt while looking at the image, a small head turns that into one number.

Source: Xu et al., "ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation" (2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..reading import refusing
from ..registry import REWARDS
from ..vision.layout import HEAD_SIZE, float_stack, linear_stack, rename, vision_heads
from ..vision.network import SingleNetwork
from ..vision.preprocess import Preprocess
from ..vision.tokens import PromptTokenizer, bert_tokenizer
from ..weights.published import load_published
from ..weights.stated import count_blocks, section, stated
from ..weights.tensors import Tensors, read_config, read_tensors

(PUBLISHED,) = REWARDS["image-reward"].files
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the head's output over the authors' data; the score is standardised with them (image-reward 1.5)."""
VISION_EPS, TEXT_EPS = 1e-6, 1e-12
"""Layer-norm constants of BLIP's image tower and of BERT (image-reward 1.5)."""
VISION_NAMES = (
    (r"cls_token", "embeddings.class_embedding"),
    (r"pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
    (r"norm\.", "post_layernorm."),
)


class ImageRewardModel(nn.Module):
    """BLIP's two towers and the head. mean, std: what the head's output is standardised with."""

    def __init__(self, vision: nn.Module, text: nn.Module, head: nn.Module, mean: float, std: float):
        super().__init__()
        self.vision, self.text, self.head = vision, text, head
        self.mean, self.std = mean, std

    def features(self, pixels: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C) float32 text features of pixels (B, 3, h, w) under prompts ids (B, T); mask (B, T) is 0 on padding."""
        seen = self.vision(pixel_values=pixels).last_hidden_state
        mask = torch.ones_like(ids) if mask is None else mask
        states = self.text(input_ids=ids, attention_mask=mask, encoder_hidden_states=seen, is_decoder=False)
        return states.last_hidden_state[:, 0].float()

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """(B,) float32 scores of pixels (B, 3, h, w) under unpadded prompts ids (B, T)."""
        return self.standardised(self.features(pixels, ids))

    def standardised(self, features: Tensor) -> Tensor:
        """(B,) float32 scores; the head is computed in float32 whatever the towers' precision, so that few images tie."""
        return (float_stack(self.head, features)[:, 0] - self.mean) / self.std


@dataclass(frozen=True, repr=False, eq=False)
class ImageReward(SingleNetwork):
    """Scores about -2 to 2, one forward pass for a whole batch, the prompt tokenised once."""

    model: ImageRewardModel
    tokenizer: PromptTokenizer
    preprocess: Preprocess
    name: str = "ImageReward"
    range: tuple[float, float] = (-2.0, 2.0)

    @property
    def tower(self) -> nn.Module:
        return self.model.vision

    @torch.no_grad()
    def score(self, images: Tensor, prompt: str) -> Tensor:
        """(B,) float32 on the images' device, of images (B, H, W, 3) in [0, 1]."""
        ids = self.tokenizer(prompt)
        return self.look(images, lambda pixels: self.model(pixels, ids.to(pixels.device).expand(len(pixels), -1))).to(images.device)


def load_image_reward(path: str | Path, dtype=torch.float32) -> ImageReward:
    """ImageReward from ImageReward.pt, or the same tensors as .safetensors.

    dtype: of the two towers. Raises MissingFile or UnusableFile, naming the file and the page it is published on.
    """
    with refusing(str(path), PUBLISHED.advice):
        tensors = read_tensors(path, PUBLISHED)
        model, size = build_image_reward(tensors, read_config(path), str(path))
    tokenizer = bert_tokenizer()
    tokenizer.check(model.text.config.vocab_size, tensors)
    model.vision.to(dtype)
    model.text.to(dtype)
    return ImageReward(model, tokenizer, Preprocess(size))


def build_image_reward(tensors: Mapping[str, Tensor], config: Mapping, source: str) -> tuple[ImageRewardModel, int]:
    """The network and its input size in pixels, from tensors under the original names.

    Sizes come from the tensors; `config` may tell what tensors do not: heads per tower, mean, std.
    """
    tensors = Tensors(tensors, source, PUBLISHED)
    tensors.require("blip.visual_encoder.pos_embed", "blip.text_encoder.embeddings.word_embeddings.weight", "mlp.layers.0.weight")
    vision, text, head = map(tensors.under, ("blip.visual_encoder.", "blip.text_encoder.", "mlp.layers."))
    image_tower, size = _vision(vision, section(config, "vision"))
    text_tower = _text(text, section(config, "text"), vision["pos_embed"].shape[-1])
    mean, std = stated(config, "mean", MEAN), stated(config, "std", STD)
    return ImageRewardModel(image_tower, text_tower, linear_stack(head), mean, std), size


def _vision(tensors: Tensors, config: Mapping) -> tuple[nn.Module, int]:
    from transformers import BlipVisionConfig, BlipVisionModel

    width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
    size = round((tensors["pos_embed"].shape[1] - 1) ** 0.5) * patch
    settings = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=tensors["blocks.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=count_blocks(tensors, r"blocks\.(\d+)\."),
        num_attention_heads=stated(config, "num_attention_heads", vision_heads(width)),
        image_size=size,
        patch_size=patch,
        layer_norm_eps=VISION_EPS,
    )
    return load_published(BlipVisionModel, settings, tensors.alike(rename(tensors, VISION_NAMES))), size


def _text(tensors: Tensors, config: Mapping, image_width: int) -> nn.Module:
    from transformers import BlipTextConfig
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    vocabulary, width = tensors["embeddings.word_embeddings.weight"].shape
    settings = BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        encoder_hidden_size=image_width,
        intermediate_size=tensors["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=count_blocks(tensors, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=stated(config, "num_attention_heads", max(1, width // HEAD_SIZE)),
        max_position_embeddings=tensors["embeddings.position_embeddings.weight"].shape[0],
        layer_norm_eps=stated(config, "layer_norm_eps", TEXT_EPS),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        is_decoder=True,
        bos_token_id=0,
        sep_token_id=0,
        eos_token_id=0,
    )
    kept = tensors.alike({name: tensor for name, tensor in tensors.items() if name != "embeddings.position_ids"})
    return load_published(BlipTextModel, settings, kept, add_pooling_layer=False)
