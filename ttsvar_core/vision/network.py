"""Rewards and extractors that run a network: where it is, what it takes, how many images at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..out_of_memory import halving
from .preprocess import Preprocess

CHUNK = 32
"""Images in one forward pass unless memory runs out; a search of the paper holds at most 64 (8 samples at N = 8)."""


class NetworkBacked:
    """A reward or extractor around networks: `models` for the host to place, `.to` for everyone else."""

    name: str
    models: tuple[nn.Module, ...]

    def to(self, device: torch.device | str):
        """The same object with its networks on `device`; scores are computed wherever the networks are."""
        for model in self.models:
            model.to(device)
        return self

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for model in self.models for parameter in model.parameters())
        return f"{type(self).__name__}({self.name}, {parameters / 1e6:.1f}M parameters)"


class SingleNetwork(NetworkBacked):
    """A reward or extractor around one network that looks at prepared pixels, a chunk of images at a time."""

    model: nn.Module
    preprocess: Preprocess

    @property
    def models(self) -> tuple[nn.Module, ...]:
        return (self.model,)

    @property
    def tower(self) -> nn.Module:
        """The part that sees the pixels; they go to its device, in its dtype."""
        return self.model

    def look(self, images: Tensor, see: Callable[[Tensor], Tensor]) -> Tensor:
        """What `see` makes of pixels (B, 3, h, w), concatenated over all images (B, H, W, 3) in [0, 1]."""
        check_images(images, self.name)
        device, dtype = placement(self.tower)
        return in_chunks(lambda chunk: see(self.preprocess(chunk.to(device)).to(dtype)), images)


def placement(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of a network's weights, read at every use because a host moves networks between uses."""
    parameter = next(module.parameters())
    return parameter.device, parameter.dtype


def check_images(images: Tensor, name: str) -> None:
    """Raises ValueError unless `images` is a batch (B, H, W, 3) of floating-point pixels."""
    if images.ndim != 4 or images.shape[-1] != 3 or min(images.shape) < 1 or not images.is_floating_point():
        raise ValueError(
            f"{name} looks at images of shape (B, height, width, 3) with floating-point values in [0, 1], "
            f"got {tuple(images.shape)} of {str(images.dtype).removeprefix('torch.')}"
        )


def in_chunks(function: Callable[[Tensor], Tensor], images: Tensor, chunk: int = CHUNK) -> Tensor:
    """`function` over `images` in slices of `chunk`, concatenated; when the device runs out of memory, in halves."""
    outputs, start = [], 0
    while start < len(images):
        rest = images[start:]
        output, chunk = halving(lambda size, rest=rest: function(rest[:size]), min(chunk, len(rest)))
        outputs.append(output)
        start += chunk
    return torch.cat(outputs)
