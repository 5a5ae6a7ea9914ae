"""What the machine can do, and where the seconds of a run go."""

import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch


class Stages:
    """Seconds by stage. Time belongs to the innermost stage that runs, so the stages add up to the whole."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._since = 0.0
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time is booked under ``stage`` inside a ``with`` block, or inside a function that this decorates."""
        self._book()
        self._open.append(stage)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def _book(self) -> None:
        settled()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def settled() -> None:
    """Wait for a graphics card that is still computing, so that seconds are booked where they are spent."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a piece of work returns, and the seconds it took."""
    settled()
    began = time.perf_counter()
    made = work()
    settled()
    return made, time.perf_counter() - began


@cache
def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large square matrix product: what the transformer could reach at best."""
    side = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _fastest(lambda: a @ b, 1.0)


@cache
def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second that a copy reads and writes: what limits scales of few tokens."""
    data = torch.empty(2**30 if device.type == "cuda" else 2**27, dtype=torch.uint8, device=device)
    target = torch.empty_like(data)
    return 2 * data.numel() / _fastest(lambda: target.copy_(data), 0.5)


def _fastest(work: Callable[[], Any], seconds: float) -> float:
    """The shortest of as many times as there is time for, three at least."""
    end = time.perf_counter() + seconds
    work()
    found = [timed(work)[1] for _ in range(3)]
    while time.perf_counter() < end:
        found.append(timed(work)[1])
    return min(found)


def peak_memory(device: torch.device) -> int:
    """Largest memory so far, in bytes: of the device's allocator, or of the process where the device is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    import transformers

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
