"""From the names and layouts of original checkpoints to those of transformers, and heads of linear layers."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..weights.finite import finite_floats
from ..weights.tensors import Tensors

HEAD_SIZE = 64
"""Width of one attention head in BERT, ViT and CLIP of all sizes but the ones in VISION_HEADS."""
VISION_HEADS = {1152: 16, 1280: 16, 1408: 16, 1536: 16, 1664: 16}
"""Heads by width of SigLIP so400m and open_clip's ViT-H, -g, giant and -bigG, whose heads are wider than 64."""


def rename(tensors: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """The same tensors, each name rewritten by the first rule whose pattern matches its beginning."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            if re.match(pattern, name):
                name = re.sub(pattern, replacement, name, count=1)
                break
        renamed[name] = tensor
    return renamed


def split_rows(tensors: Mapping[str, Tensor], pattern: str, names: Sequence[str]) -> dict[str, Tensor]:
    """`tensors` with every fused one that `pattern` matches cut into equal blocks of rows, called `names`."""
    split = {}
    for name, tensor in tensors.items():
        if re.search(pattern, name):
            for part, rows in zip(names, tensor.chunk(len(names)), strict=True):
                split[re.sub(pattern, part, name)] = rows.clone()
        else:
            split[name] = tensor
    return split


def vision_heads(width: int) -> int:
    """Attention heads of a published image tower of this width, which its tensors do not tell."""
    return VISION_HEADS.get(width, max(1, width // HEAD_SIZE))


def linear_stack(tensors: Tensors) -> nn.Sequential:
    """The linear layers `<index>.weight`, `<index>.bias` in order of their index, in float32, ending in one number.

    The heads of ImageReward and Aesthetic v2.5 are such stacks: dropout between the layers, no activations.
    Raises UnusableFile if the layers do not follow from each other.
    """
    layers, floats = [], tensors.alike(finite_floats(tensors, tensors.source, torch.float32))
    for index in sorted(int(name.removesuffix(".weight")) for name in tensors if name.endswith(".weight")):
        weight, bias = floats[f"{index}.weight"], floats[f"{index}.bias"]
        layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
        layers.append(layer)
    widths = [layer.in_features for layer in layers[1:]] + [1]
    if [layer.out_features for layer in layers] != widths:
        found = ", ".join(f"{layer.in_features} to {layer.out_features}" for layer in layers)
        raise tensors.refusal(f"has a head whose layers do not fit each other ({found})")
    return nn.Sequential(*layers).eval().requires_grad_(False)


def float_stack(layers: nn.Sequential, features: Tensor) -> Tensor:
    """The output of such a stack computed in float32, even where a host has cast its weights."""
    for layer in layers:
        features = nn.functional.linear(features.float(), layer.weight.float(), layer.bias.float())
    return features
