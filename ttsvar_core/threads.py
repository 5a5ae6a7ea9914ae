"""How many processor threads a piece of work is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Operations of one forward pass per thread. Such a pass takes a core about half a second. In shorter ones the threads mostly wait
# for each other between the layers, and on a busy machine each wait lasts as long as another program keeps one of them off its
# core: the bundled model's search took 30 times the processor time with two threads as with one.
WORTH_A_THREAD = 20e9


@contextmanager
def threads_for(network: torch.nn.Module, rows: int) -> Iterator[None]:
    """Run ``network`` over so many rows (tokens or cells of all samples) on no more threads than that is worth.

    A row takes two operations per parameter. Nothing changes on another device than the processor, or for large networks; the
    number of threads is what it was afterwards. It is torch's for the whole process, as torch has no other.
    """
    allowed = torch.get_num_threads()
    first = next(network.parameters(), None)
    if first is None or first.device.type != "cpu" or allowed == 1:
        yield
        return
    operations = 2 * rows * sum(parameter.numel() for parameter in network.parameters())
    torch.set_num_threads(max(1, min(allowed, int(operations // WORTH_A_THREAD))))
    try:
        yield
    finally:
        torch.set_num_threads(allowed)
