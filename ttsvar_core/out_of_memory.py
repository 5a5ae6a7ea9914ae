"""Telling that memory ran out from everything else that can go wrong, on any device, and going on with less."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")
# What the libraries below PyTorch say, most of them in plain RuntimeErrors: allocators (CUDA, HIP, XPU, MPS, the processor's),
# cuBLAS and its like, cuDNN 8 and 9 (which also find no algorithm where its workspace does not fit), DirectML, Metal.
_WORDS = re.compile(
    r"out of memory|out_of_\w*memory|bad_alloc|bad allocation|alloc(ation)?_?failed|(can't|cannot|could not|failed to) allocate"
    r"|not enough [\w ]*memory|invalid buffer size|cublas_status_not_initialized"
    r"|unable to find (a valid cudnn algorithm|an engine to execute)",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_WORDS.search(str(error)))


def first_that_fits(attempts: Sequence[Callable[[], T]]) -> T:
    """The result of the first attempt for which there is memory. Any other error, and the last attempt's, is the caller's."""
    for attempt in attempts[:-1]:
        try:
            return attempt()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        empty_cache()
    return attempts[-1]()


def halving(attempt: Callable[[int], T], size: int) -> tuple[T, int]:
    """``attempt(size)``, the size halved each time memory runs out, and the size that fitted; errors as of `first_that_fits`."""
    sizes = [size]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return first_that_fits([lambda size=size: (attempt(size), size) for size in sizes])


def empty_cache() -> None:
    """Give back what PyTorch keeps of freed device memory. Call it after an ``except`` clause, not within: until its end the
    error holds the frames that failed, and their tensors."""
    for backend, device in ((torch.cuda, torch.cuda), (torch.backends.mps, torch.mps), (torch.xpu, torch.xpu)):
        if backend.is_available():
            device.empty_cache()
