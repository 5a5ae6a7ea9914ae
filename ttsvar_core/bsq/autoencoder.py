"""The convolutional encoder and decoder of the tokenizer. Attribute names follow the published files."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import TokenizerConfig


def norm_groups(channels: int) -> int:
    """Groups of the group norms: 32 or 24 in the published models; widths they cannot have take the largest divisor up to 8."""
    return next(groups for groups in (32, 24, 8, 4, 2, 1) if channels % groups == 0)


class Conv(nn.Sequential):
    """A convolution under the name ``conv``, as the published files have it."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, operations: Any, stride: int = 1) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = operations.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=padding)


class Norm(nn.Sequential):
    """A group norm under the name ``norm``."""

    def __init__(self, channels: int, operations: Any) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(norm_groups(channels), channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions beside a shortcut: (B, C_in, h, w) -> (B, C_out, h, w)."""

    def __init__(self, channels_in: int, channels_out: int, operations: Any) -> None:
        super().__init__()
        self.norm1 = Norm(channels_in, operations)
        self.conv1 = Conv(channels_in, channels_out, 3, operations)
        self.norm2 = Norm(channels_out, operations)
        self.conv2 = Conv(channels_out, channels_out, 3, operations)
        if channels_in != channels_out:
            self.nin_shortcut = Conv(channels_in, channels_out, 1, operations)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class Downsample(nn.Sequential):
    """Halve the resolution; padded on the right and at the bottom only."""

    def __init__(self, channels: int, operations: Any) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.conv = Conv(channels, channels, 3, operations, stride=2)


class Upsample(nn.Sequential):
    """Double the resolution by repetition, then a 3x3 convolution."""

    def __init__(self, channels: int, operations: Any) -> None:
        super().__init__()
        self.repeat = nn.Upsample(scale_factor=2, mode="nearest")
        self.conv = Conv(channels, channels, 3, operations)


class Middle(nn.Sequential):
    """The two residual blocks at the coarsest resolution."""

    def __init__(self, channels: int, operations: Any) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, operations)
        self.block_2 = ResidualBlock(channels, channels, operations)


class Level(nn.Sequential):
    """The ``count`` residual blocks of one resolution, and the step to the next where one is added."""

    def __init__(self, before: int, width: int, count: int, operations: Any) -> None:
        super().__init__()
        self.block = nn.Sequential(*(ResidualBlock(width if i else before, width, operations) for i in range(count)))


class Encoder(nn.Module):
    """Images (B, 3, H, W) -> features (B, codebook_dim, H / stride, W / stride)."""

    def __init__(self, config: TokenizerConfig, operations: Any = nn) -> None:
        super().__init__()
        self.conv_in = Conv(3, config.base_ch, 3, operations)
        self.down, before = nn.ModuleList(), config.base_ch
        for index, mult in enumerate(config.ch_mult):
            width = config.base_ch * mult
            level = Level(before, width, config.num_res_blocks, operations)
            if index < math.log2(config.patch_size):
                level.downsample = Downsample(width, operations)
            self.down.append(level)
            before = width
        self.mid = Middle(width, operations)
        self.norm_out = Norm(width, operations)
        self.conv_out = Conv(width, config.codebook_dim, 3, operations)

    def forward(self, images: Tensor) -> Tensor:
        h = self.conv_in(images)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Features (B, codebook_dim, h, w) -> images (B, 3, h * stride, w * stride), not clamped."""

    def __init__(self, config: TokenizerConfig, operations: Any = nn) -> None:
        super().__init__()
        before = config.base_ch * config.ch_mult[-1]
        self.conv_in = Conv(config.codebook_dim, before, 3, operations)
        self.mid = Middle(before, operations)
        levels = []
        for index, mult in reversed(list(enumerate(config.ch_mult))):
            width = config.base_ch * mult
            level = Level(before, width, config.num_res_blocks + 1, operations)
            if config.upsamples(index):
                level.upsample = Upsample(width, operations)
            levels.append(level)
            before = width
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = Norm(width, operations)
        self.conv_out = Conv(width, 3, 3, operations)

    def forward(self, features: Tensor) -> Tensor:
        h = self.mid(self.conv_in(features))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Tokenizer(nn.Module):
    """Encoder and decoder around the bits of ``bits.py``. Images are (B, 3, H, W) in [-1, 1].

    ``operations`` provides the layers (``torch.nn`` by default), so that a host can pass its own.
    Source: Infinity, arXiv 2412.04431, section 3.2; the architecture is that of the published tokenizer files.
    """

    def __init__(self, config: TokenizerConfig, operations: Any = nn) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, operations)
        self.decoder = Decoder(config, operations)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> unquantised features (B, C, h, w) float32. Raises ValueError on odd sizes."""
        stride = self.config.patch_size
        if images.shape[-2] % stride or images.shape[-1] % stride:
            raise ValueError(f"Images of {tuple(images.shape[-2:])} pixels; both sides must be multiples of {stride}.")
        return self.encoder(images.to(_dtype(self.encoder))).float()

    def decode(self, features: Tensor) -> Tensor:
        """Accumulated features (B, C, h, w) of any number of scales -> images (B, 3, H, W) float32 in [-1, 1]."""
        return torch.clamp(self.decoder(features.to(_dtype(self.decoder))).float(), -1, 1)

    forward = decode


def _dtype(module: nn.Module) -> torch.dtype:
    return module.conv_in.conv.weight.dtype
