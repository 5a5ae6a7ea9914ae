"""A tiny random model whose every operation is real, and the reference data."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ttsvar_core.bsq.autoencoder import Tokenizer
from ttsvar_core.config import ModelConfig, Sampling, TokenizerConfig, TransformerConfig
from ttsvar_core.image_model import ImageModel
from ttsvar_core.infinity.model import Infinity
from ttsvar_core.infinity.text import Conditioning
from ttsvar_core.scales import ScaleSchedule

GOLDEN = Path(__file__).parent / "golden"
TINY_SCHEDULE = "1 2 3 4 6"


def squares(sides: str) -> ScaleSchedule:
    """A schedule of square grids."""
    grids = tuple((int(side), int(side)) for side in sides.split())
    return ScaleSchedule(grids, grids[-1])


def make_tiny_model(seed: int = 0, patchify: bool = False, schedule: str = TINY_SCHEDULE, **transformer) -> ImageModel:
    """An untrained model small enough for property tests: 64 wide, 2 layers, 8 bits, 5 scales of its own."""
    torch.manual_seed(seed)
    sizes = {"embed_dim": 64, "depth": 2, "num_heads": 2, "block_chunks": 2, "text_channels": 128, "text_maxlen": 16}
    config = ModelConfig(
        "tiny",
        TransformerConfig(**{**sizes, **transformer}, codebook_dim=8, apply_spatial_patchify=patchify),
        TokenizerConfig(codebook_dim=8, base_ch=8, ch_mult=(1, 1), num_res_blocks=1, patch_size=2),
        Sampling(guidance=2.0, tau=1.0, top_p=0.97),
        squares(schedule),
    )
    model = ImageModel(config, Infinity(config.transformer).eval(), Tokenizer(config.tokenizer).eval(), f"tiny-{seed}")
    model.transformer.requires_grad_(False)
    model.tokenizer.requires_grad_(False)
    return model


def make_conditioning(tokens: int = 3, seed: int = 1, prompt: str = "a tiny prompt") -> Conditioning:
    """Random text features of the tiny model's width."""
    features = torch.randn(tokens, 128, generator=torch.Generator().manual_seed(seed))
    return Conditioning(prompt, features, None, None)


def reference_config(name: str) -> dict:
    """The configuration of a reference model in tests/golden."""
    return json.loads((GOLDEN / f"{name}.json").read_text())
