"""Whether a piece of work on the processor is worth more than one thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch

# Operations of one forward pass from which on more than one thread is worth it: a core takes about a second for them. In shorter
# passes the threads mostly wait for each other between the layers, and on a busy machine each wait lasts as long as another program
# keeps one of them off its core: the bundled model's search took 25 times the processor time with two threads as with one.
WORTH_THREADS = 40e9

# Parameters of networks seen before: walking through one takes as long as a short pass.
_counted: WeakKeyDictionary[torch.nn.Module, int] = WeakKeyDictionary()


@contextmanager
def threads_for(network: torch.nn.Module, rows: int) -> Iterator[None]:
    """Run ``network`` over so many rows (tokens or cells of all samples) on one thread, if more are not worth it.

    A row takes two operations per parameter. Nothing changes on another device than the processor, or for larger work; afterwards
    the number of threads is what it was. One or all, nothing between: a compiled network is compiled anew for each number.
    """
    first = next(network.parameters(), None)
    here = first is not None and first.device.type == "cpu"
    if not here or 2 * rows * _parameters(network) >= WORTH_THREADS:
        yield
        return
    with one_thread():
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Run what is inside on one thread: work so small that threads would mostly wait for each other."""
    allowed = torch.get_num_threads()
    if allowed == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(allowed)


def _parameters(network: torch.nn.Module) -> int:
    if network not in _counted:
        _counted[network] = sum(parameter.numel() for parameter in network.parameters())
    return _counted[network]
