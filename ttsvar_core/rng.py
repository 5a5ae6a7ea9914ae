"""Randomness as a key: what is drawn depends on (seed, scale, slot) alone.

A counter-based generator (Philox) is keyed by the seed and started at the position (scale, slot), so a sample draws the same
uniforms whatever batch it runs in, on whatever device, and whatever was drawn before. Selections have a stream of their own.
"""

from collections.abc import Sequence

import numpy as np
import torch

from .names import MAX_SEED

_BITS_STREAM = 0
_SELECTION_STREAM = 1


def _generator(seed: int, stream: int, scale: int, slot: int) -> np.random.Generator:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"A seed is a whole number from 0 to 2**64 - 1; got {seed}.")
    counter = np.array([0, scale, slot, 0], dtype=np.uint64)
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def uniforms(seed: int, scale: int, slots: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Uniforms in [0, 1) for the samples in ``slots``: (P, *shape) float32 on the CPU, one independent stream per slot."""
    rows = [_generator(seed, _BITS_STREAM, scale, slot).random(shape, dtype=np.float32) for slot in slots]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty((0, *shape))


def selection_generator(seed: int, scale: int, earlier: int = 0) -> np.random.Generator:
    """The generator of a selection made at ``scale`` after ``earlier`` others there; independent of the uniforms of bits."""
    return _generator(seed, _SELECTION_STREAM, scale, earlier)
