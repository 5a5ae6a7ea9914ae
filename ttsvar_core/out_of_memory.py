"""Telling that memory ran out from everything else that can go wrong, on any device."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out (on the CPU and on Apple's GPUs it is a plain RuntimeError)."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    words = str(error).lower()
    return "out of memory" in words or "can't allocate memory" in words or "not enough memory" in words


def empty_cache() -> None:
    """Give back what PyTorch keeps of freed device memory. Call it after an ``except`` clause, not within: until its end the
    error holds the frames that failed, and their tensors."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
