"""Random reward models under the names of the original checkpoints, small but with the real vocabularies."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

CHECKPOINTS = Path(__file__).parent / "golden" / "checkpoints"
WORD_PIECES, BYTE_PAIRS = 30524, 49408


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Values of the size that initialised networks have: norms near one, everything else small."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        scale = name.endswith("weight") and len(shape) == 1
        tensors[name] = 1 + 0.1 * noise if scale else noise / (shape[-1] ** 0.5 if len(shape) > 1 else 10)
    return tensors


def full_size(name: str) -> tuple[dict[str, Tensor], dict]:
    """Zeros without memory, under the names and in the shapes of a published file, and what else is known of it."""
    known = json.loads((CHECKPOINTS / f"{name}.json").read_text())
    listed = known.pop("tensors").items()
    return {key: torch.zeros((), dtype=getattr(torch, kind)).expand(shape) for key, (shape, kind) in listed}, known


def vit(prefix: str, width: int, depth: int, patch: int, grid: int, names: str) -> dict[str, tuple[int, ...]]:
    """Shapes of an image transformer as timm-like code names it (`names` = "blocks") or open_clip does ("resblocks")."""
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(depth):
        if names == "blocks":
            parts = {"norm1": (width,), "norm2": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width)}
            parts |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
            shapes |= with_bias({f"{prefix}blocks.{block}.{part}": shape for part, shape in parts.items()})
        else:
            shapes |= open_clip_block(f"{prefix}transformer.resblocks.{block}.", width)
    positions = grid * grid + 1
    if names == "blocks":
        shapes |= with_bias({f"{prefix}patch_embed.proj": (width, 3, patch, patch), f"{prefix}norm": (width,)})
        return shapes | {f"{prefix}cls_token": (1, 1, width), f"{prefix}pos_embed": (1, positions, width)}
    shapes |= with_bias({f"{prefix}ln_pre": (width,), f"{prefix}ln_post": (width,)})
    shapes |= {f"{prefix}class_embedding": (width,), f"{prefix}positional_embedding": (positions, width)}
    return shapes | {f"{prefix}conv1.weight": (width, 3, patch, patch)}


def open_clip_block(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    parts = {"ln_1": (width,), "ln_2": (width,), "attn.out_proj": (width, width)}
    parts |= {"mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
    fused = {f"{prefix}attn.in_proj_weight": (3 * width, width), f"{prefix}attn.in_proj_bias": (3 * width,)}
    return with_bias({prefix + part: shape for part, shape in parts.items()}) | fused


def with_bias(weights: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    pairs = {f"{name}.weight": shape for name, shape in weights.items()}
    return pairs | {f"{name}.bias": shape[:1] for name, shape in weights.items()}


def open_clip(
    vision: tuple[int, int] = (64, 2), text: tuple[int, int] = (64, 2), patch: int = 8, grid: int = 4, vocabulary=BYTE_PAIRS
) -> dict[str, Tensor]:
    """A CLIP in open_clip's layout. vision, text: width and depth."""
    return random_tensors(open_clip_shapes(vision, text, patch, grid, vocabulary)) | {"logit_scale": torch.tensor(4.6052)}


def open_clip_shapes(
    vision: tuple[int, int], text: tuple[int, int], patch: int, grid: int, vocabulary=BYTE_PAIRS
) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of such a CLIP but its temperature."""
    shapes = vit("visual.", *vision, patch, grid, "resblocks") | {"visual.proj": (vision[0], 32)}
    for block in range(text[1]):
        shapes |= open_clip_block(f"transformer.resblocks.{block}.", text[0])
    shapes |= with_bias({"ln_final": text[:1]}) | {"token_embedding.weight": (vocabulary, text[0])}
    return shapes | {"positional_embedding": (77, text[0]), "text_projection": (text[0], 32)}


def image_reward(width: int = 64, depth: int = 2, patch: int = 8, grid: int = 4, text: int = 64) -> dict[str, Tensor]:
    """An ImageReward under the names of ImageReward.pt, with all that file has besides."""
    shapes = vit("blip.visual_encoder.", width, depth, patch, grid, "blocks")
    for layer in range(2):
        prefix = f"blip.text_encoder.encoder.layer.{layer}."
        linear = {f"{prefix}{part}": (text, text) for part in ("attention.output.dense", "crossattention.output.dense")}
        for part, source in (("attention", text), ("crossattention", width)):
            linear |= {f"{prefix}{part}.self.query": (text, text), f"{prefix}{part}.output.LayerNorm": (text,)}
            linear |= {f"{prefix}{part}.self.{which}": (text, source) for which in ("key", "value")}
        linear |= {f"{prefix}intermediate.dense": (4 * text, text), f"{prefix}output.dense": (text, 4 * text)}
        shapes |= with_bias(linear | {f"{prefix}output.LayerNorm": (text,)})
    embeddings = "blip.text_encoder.embeddings."
    shapes |= {f"{embeddings}word_embeddings.weight": (WORD_PIECES, text), f"{embeddings}position_embeddings.weight": (512, text)}
    shapes |= with_bias({f"{embeddings}LayerNorm": (text,), "blip.vision_proj": (256, width), "blip.text_proj": (256, text)})
    sizes = (text, 1024, 128, 64, 16, 1)
    shapes |= with_bias({f"mlp.layers.{at}": (sizes[i + 1], sizes[i]) for i, at in enumerate((0, 2, 4, 6, 7))})
    return random_tensors(shapes) | {f"{embeddings}position_ids": torch.arange(512)[None]}


def dinov2(width: int = 64, depth: int = 2, grid: int = 4, registers: int = 4, gated: bool = False) -> dict[str, Tensor]:
    """A DINOv2 with registers under the names of its hub file; `gated` as in the giant one."""
    shapes = vit("", width, depth, 14, grid, "blocks")
    hidden = (4 * width * 2 // 3 + 7) // 8 * 8
    for block in range(depth):
        shapes |= {f"blocks.{block}.ls{which}.gamma": (width,) for which in (1, 2)}
        if gated:
            plain = [name for name in shapes if name.startswith(f"blocks.{block}.mlp.fc")]
            shapes = {name: shape for name, shape in shapes.items() if name not in plain}
            shapes |= with_bias({f"blocks.{block}.mlp.w12": (2 * hidden, width), f"blocks.{block}.mlp.w3": (width, hidden)})
    return random_tensors(shapes | {"mask_token": (1, width), "register_tokens": (1, registers, width)})


def siglip(width: int = 64, depth: int = 2, patch: int = 14, grid: int = 4) -> dict[str, Tensor]:
    """A SigLIP image tower under the names of its published checkpoint."""
    root = "vision_model."
    linear = {f"{root}post_layernorm": (width,), f"{root}head.layernorm": (width,), f"{root}head.mlp.fc1": (4 * width, width)}
    linear |= {f"{root}head.mlp.fc2": (width, 4 * width), f"{root}head.attention.out_proj": (width, width)}
    linear |= {f"{root}embeddings.patch_embedding": (width, 3, patch, patch)}
    for layer in range(depth):
        prefix = f"{root}encoder.layers.{layer}."
        linear |= {f"{prefix}self_attn.{which}_proj": (width, width) for which in ("q", "k", "v", "out")}
        linear |= {f"{prefix}layer_norm1": (width,), f"{prefix}layer_norm2": (width,)}
        linear |= {f"{prefix}mlp.fc1": (4 * width, width), f"{prefix}mlp.fc2": (width, 4 * width)}
    fused = {f"{root}head.attention.in_proj_weight": (3 * width, width), f"{root}head.attention.in_proj_bias": (3 * width,)}
    fused |= {f"{root}head.probe": (1, 1, width), f"{root}embeddings.position_embedding.weight": (grid * grid, width)}
    return random_tensors(with_bias(linear) | fused)


def aesthetic_head(width: int = 64) -> dict[str, Tensor]:
    """The head's file of Aesthetic v2.5."""
    sizes = (width, 1024, 128, 64, 16, 1)
    shapes = {f"scoring_head.{2 * i}": (sizes[i + 1], sizes[i]) for i in range(5)}
    return random_tensors(with_bias(shapes), seed=1)
