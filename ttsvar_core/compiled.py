"""The transformer's blocks compiled: one program for all scales, samples and prompts, whatever their lengths.

Off unless asked for. The first pictures wait for the compiler; whether the later ones make up for it is measured in docs/memory.md.
"""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .image_model import ImageModel
from .infinity.blocks import Block, Past
from .infinity.rope import Rotation
from .reading import one_line

FEWEST_CACHED = 2  # tokens; the compiler takes a length of 0 or 1 for a constant and would make programs for them alone


def compile_blocks(model: ImageModel, device: torch.device | str | None = None) -> ImageModel:
    """Let the transformer's blocks run compiled from now on; changes them in place and returns the model.

    Weights and their names stay as they are. ``device`` is where it will run, if that is not where it is now. A search takes two
    programs: one for several samples, one for a single sample. Raises RuntimeError where nothing can be compiled.
    """
    check_compiler(torch.device(device or model.transformer.device))
    for block in model.transformer.layers:
        block.__class__ = CompiledBlock
    return model


class CompiledBlock(Block):
    """``Block`` with its forward pass compiled. What a block becomes, rather than something it holds: a block that refers to
    itself would stay in memory after its model is gone.

    Keys and values of earlier scales go in as one tensor each, so that the number of scales is no part of the program. The first
    two scales (of one token and a few) and whole sequences run as they are.
    """

    def forward(
        self, x: Tensor, modulation: Tensor, text: tuple[Tensor, Tensor, Tensor | None], turn: Rotation, past: Past,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if sum(part.shape[3] for part in past[0]) < FEWEST_CACHED:
            return super().forward(x, modulation, text, turn, past, mask)
        joined = tuple((torch.cat([part.to(text[0].dtype) for part in side], dim=3),) for side in past)
        from torch.fx.experimental import _config

        with _config.patch(use_duck_shape=False):  # lengths that are equal by chance now (8 samples, 8 words) may differ later
            return _program()(self, x, modulation, text, turn, joined, mask)


@cache
def _program() -> Callable[..., Any]:
    """The compiled forward pass, the same for all blocks of all models."""
    return torch.compile(Block.forward, dynamic=True)


def check_compiler(device: torch.device) -> None:
    """Compile one sum as a trial. Raises RuntimeError that says what is missing."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # the compiler's own errors have no common class
        raise RuntimeError(
            f"The transformer cannot be compiled here ({one_line(error)}). On {device.type} that takes {_needed(device)}: "
            "install them (Debian and Ubuntu: apt install build-essential python3-dev), or leave compiling off; the pictures are "
            "the same to rounding."
        ) from error


def _needed(device: torch.device, windows: bool = os.name == "nt") -> str:
    if device.type != "cuda":
        return "a C++ compiler and Python's headers"
    return f"Triton (pip install {'triton-windows' if windows else 'triton'}) and a C compiler"
