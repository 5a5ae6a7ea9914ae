"""Any CLIP with one image and one text transformer, from open_clip's or Hugging Face's names to one loaded model.

Sources: the parameter names of mlfoundations/open_clip and of transformers' published CLIP checkpoints.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..registry import WeightFile
from ..weights.published import load_published
from ..weights.stated import count_blocks, section, stated
from ..weights.tensors import Tensors
from .layout import HEAD_SIZE, rename, split_rows, vision_heads

OPEN_CLIP_NAMES = (
    (r"visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"visual\.proj$", "visual_projection.weight"),
    (r"visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"ln_final\.", "text_model.final_layer_norm."),
    (r"text_projection$", "text_projection.weight"),
    (r"transformer\.resblocks\.", "text_model.encoder.layers."),
)
OPEN_CLIP_BLOCKS = (
    (r"(.*layers\.\d+)\.ln_([12])\.", r"\1.layer_norm\2."),
    (r"(.*layers\.\d+)\.attn\.out_proj\.", r"\1.self_attn.out_proj."),
    (r"(.*layers\.\d+)\.mlp\.c_fc\.", r"\1.mlp.fc1."),
    (r"(.*layers\.\d+)\.mlp\.c_proj\.", r"\1.mlp.fc2."),
)
CONSTANTS = ("attn_mask", "position_ids", "input_resolution", "context_length", "vocab_size")
"""Buffers some files carry: a causal mask, running indices, and OpenAI's three sizes."""
OPENAI_WIDTH = 1024
"""The widest image tower OpenAI published (ViT-L/14); it and the smaller ones use the quick form of GELU."""
SMALLEST_WIDTH = 768
"""The narrowest image tower OpenAI and LAION published (ViT-B); only models made for tests are narrower."""


class ClipSizes(NamedTuple):
    """What tells one published CLIP from another: sizes of the image tower, then of the text tower."""

    width: int
    layers: int
    patch: int
    image_size: int
    text_width: int
    text_layers: int

    def __str__(self) -> str:
        return (
            f"an image tower of width {self.width} with {self.layers} layers for {self.image_size} pixels in patches of "
            f"{self.patch}, and a text tower of width {self.text_width} with {self.text_layers} layers"
        )


VIT_H = ClipSizes(1280, 32, 14, 224, 1024, 24)
"""open_clip's ViT-H-14, which HPS v2.1 and PickScore are tuned from."""


class ClipNetwork(nn.Module):
    """transformers' CLIP, called with images; the text side is asked once per prompt."""

    def __init__(self, clip: nn.Module):
        super().__init__()
        self.clip = clip

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C) unit vectors, float32, of pixels (B, 3, h, w)."""
        pooled = self.clip.vision_model(pixel_values=pixels).pooler_output
        return nn.functional.normalize(self.clip.visual_projection(pooled).float(), dim=-1)

    def embed_text(self, ids: Tensor) -> Tensor:
        """(B, C) unit vectors, float32, of token ids (B, T), read at the end marker: the highest id, at its first place."""
        states = self.clip.text_model(input_ids=ids).last_hidden_state
        at_end = states[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]
        return nn.functional.normalize(self.clip.text_projection(at_end).float(), dim=-1)

    def temperature(self) -> Tensor:
        """The factor the model learned to put on its cosines, float32."""
        return self.clip.logit_scale.float().exp()


class ClipModel(NamedTuple):
    """A loaded CLIP: the network, its input size in pixels, the tokens its text side reads and knows."""

    network: ClipNetwork
    image_size: int
    text_length: int
    vocabulary: int


def build_clip(
    tensors: Mapping[str, Tensor], config: Mapping, source: str, published: WeightFile, activation: str = "auto",
    sizes: ClipSizes | None = None,
) -> ClipModel:
    """A CLIP from tensors in either layout; sizes from the tensors.

    config: what tensors do not tell, if a file says it: heads and activation, in the layout of Hugging Face's
    config.json, of open_clip_config.json or of the reference files. activation: "gelu", "quick_gelu", or "auto" to
    believe the configuration, else quick_gelu for OpenAI's sizes under Hugging Face names and gelu for all others.
    sizes: the only ones that were published, any other CLIP is refused; None takes all.
    Raises UnusableFile, naming the sizes or the first tensor that does not fit, and the page.
    """
    named = _published_names(Tensors(tensors, source, published))
    from transformers import CLIPModel

    settings = _settings(named, section(config, "model_cfg") or config, _open_clip(tensors), activation)
    _check_sizes(settings, sizes, named)
    network = load_published(CLIPModel, settings, named)
    text, vision = settings.text_config, settings.vision_config
    return ClipModel(ClipNetwork(network), vision.image_size, text.max_position_embeddings, text.vocab_size)


def _open_clip(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("visual.") for name in tensors)


def _published_names(tensors: Tensors) -> Tensors:
    """The tensors under the names of Hugging Face's published CLIP checkpoints."""
    tensors = tensors.alike({name: tensor for name, tensor in tensors.items() if name.rsplit(".", 1)[-1] not in CONSTANTS})
    if _open_clip(tensors):
        # open_clip keeps some text towers in a module of their own, under the same names after "text."
        tensors = tensors.alike(rename(tensors, ((r"text\.", ""),)))
        tensors.require("visual.conv1.weight", "visual.proj", "token_embedding.weight")
        transposed = {name: tensors[name].T for name in ("visual.proj", "text_projection") if name in tensors}
        fused = rename(rename({**tensors, **transposed}, OPEN_CLIP_NAMES), OPEN_CLIP_BLOCKS)
        parts = [rf"self_attn.{letter}_proj." for letter in "qkv"]
        tensors = tensors.alike(split_rows(fused, r"attn\.in_proj_", parts))
    marks = ("vision_model.embeddings.patch_embedding.weight", "text_model.embeddings.token_embedding.weight")
    tensors.require(*marks, "visual_projection.weight", "text_projection.weight")
    return tensors


def _settings(tensors: Mapping[str, Tensor], config: Mapping, open_clip: bool, activation: str):
    from transformers import CLIPConfig

    vision = section(config, "vision_config", "vision_cfg", "vision")
    text = section(config, "text_config", "text_cfg", "text")
    projection, width = tensors["visual_projection.weight"].shape
    patch = tensors["vision_model.embeddings.patch_embedding.weight"].shape[-1]
    positions = len(tensors["vision_model.embeddings.position_embedding.weight"])
    vocabulary, text_width = tensors["text_model.embeddings.token_embedding.weight"].shape
    if activation == "auto":
        activation = _activation(config, vision, width, open_clip)
    shared = {"projection_dim": projection, "hidden_act": activation}
    return CLIPConfig(
        projection_dim=projection,
        vision_config={
            "hidden_size": width,
            "num_attention_heads": _heads(vision, width, vision_heads(width)),
            "image_size": round((positions - 1) ** 0.5) * patch,
            "patch_size": patch,
            **_depth(tensors, "vision_model"),
            **shared,
        },
        text_config={
            "hidden_size": text_width,
            "num_attention_heads": _heads(text, text_width, max(1, text_width // HEAD_SIZE)),
            "vocab_size": vocabulary,
            "max_position_embeddings": len(tensors["text_model.embeddings.position_embedding.weight"]),
            "pad_token_id": 0,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            **_depth(tensors, "text_model"),
            **shared,
        },
    )


def _check_sizes(settings, sizes: ClipSizes | None, tensors: Tensors) -> None:
    vision, text = settings.vision_config, settings.text_config
    image_tower = (vision.hidden_size, vision.num_hidden_layers, vision.patch_size, vision.image_size)
    found = ClipSizes(*image_tower, text.hidden_size, text.num_hidden_layers)
    if sizes is None or found == sizes or found.width < SMALLEST_WIDTH:
        return
    raise tensors.refusal(
        f"is a CLIP, but not {tensors.file.title}: it has {found}; expected {sizes}. Its scores would mean nothing here. "
        "To score with this CLIP itself, load it as CLIPScore"
    )


def _heads(tower: Mapping, width: int, usual: int) -> int:
    if "head_width" in tower:
        return width // stated(tower, "head_width", HEAD_SIZE)
    return stated(tower, "num_attention_heads", stated(tower, "heads", usual))


def _depth(tensors: Mapping[str, Tensor], tower: str) -> dict[str, int]:
    return {
        "num_hidden_layers": count_blocks(tensors, rf"{tower}\.encoder\.layers\.(\d+)\."),
        "intermediate_size": len(tensors[f"{tower}.encoder.layers.0.mlp.fc1.weight"]),
    }


def _activation(config: Mapping, vision: Mapping, width: int, open_clip: bool) -> str:
    """What the configuration says, or what the publisher of such a file used (see `build_clip`)."""
    if "activation" in config:
        return stated(config, "activation", "gelu")
    if "vision_cfg" in config:
        return "quick_gelu" if config.get("quick_gelu") else "gelu"
    if "vision_config" in config:
        return stated(vision, "hidden_act", "quick_gelu")
    return "gelu" if open_clip or width > OPENAI_WIDTH else "quick_gelu"
