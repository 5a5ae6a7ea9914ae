"""Where units run: in this process, in several processes, or on a Ray cluster.

In all of them a unit runs on one thread, so its results do not depend on how many run beside it. A worker that dies takes at
most the unit it was running with it, and that unit is run again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing.connection import Connection

DEATHS = 3  # worker deaths in a row, with nothing finished in between, after which the work itself is to blame
Result = Any
Engine = Callable[[Callable[[Any], Result], Sequence[Any]], Iterator[Result]]  # call(task) for every task, as they finish
ENGINES = ("processes", "ray")
Progress = Callable[[int, int], None]


class WorkerDied(RuntimeError):
    """Workers keep dying; the message says what to look at."""


@contextmanager
def opened(workers: int = 1, engine: str = "processes", address: str | None = None) -> Iterator[Engine]:
    """An engine that keeps its workers, and what they have loaded, until the end of the ``with`` block.

    address: of a running Ray cluster. Raises ValueError for an impossible engine, ImportError for Ray where there is none.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; expected one of {', '.join(ENGINES)}")
    if address and engine != "ray":
        raise ValueError("--ray-address is for --engine ray; name both or neither")
    if workers < 1:
        raise ValueError(f"{workers} workers cannot do anything; expected at least 1")
    if engine == "ray":
        with _ray_cluster(workers, address) as ray:
            yield lambda call, tasks: _on_ray(ray, call, tasks)
    elif workers == 1:
        yield here
    else:
        processes = _Processes(workers)
        try:
            yield processes.run
        except BaseException:  # what runs is not waited for
            processes.stop()
            raise
        finally:
            processes.close()


def reported(engine: Engine, call: Callable, tasks: Sequence[Any], total: int, progress: Progress) -> Iterator[Result]:
    """An engine's results. ``progress`` is told how many of ``total`` are done: at first all but the tasks, then one more whenever
    a result was taken care of."""
    progress(total - len(tasks), total)
    for done, result in enumerate(engine(call, tasks), start=total - len(tasks) + 1):
        yield result
        progress(done, total)


def here(call: Callable[[Any], Result], tasks: Sequence[Any]) -> Iterator[Result]:
    """One after another in this process, on one thread; the thread settings are as before between two results."""
    for task in tasks:
        yield _on_one_thread(call, task)


class _Processes:
    """A pool of fresh processes. When one dies, the pool is started again with what is left to do."""

    def __init__(self, workers: int) -> None:
        import multiprocessing

        self._workers = workers
        self._context = multiprocessing.get_context("spawn")
        self._pool: ProcessPoolExecutor | None = None
        self._watched, self._alive = self._context.Pipe(duplex=False)  # ends where this process does, or stops them

    def run(self, call: Callable[[Any], Result], tasks: Sequence[Any]) -> Iterator[Result]:
        pending, deaths = dict(enumerate(tasks)), 0
        while pending:
            before = len(pending)
            yield from self._until_a_death(call, pending)
            deaths = deaths + 1 if len(pending) == before else 1
            if pending and deaths >= DEATHS:
                raise WorkerDied(
                    f"worker processes died {DEATHS} times without finishing anything, {len(pending)} units are left; look for "
                    "memory running out (fewer --workers), then start the same command again: what is finished is kept"
                )

    def _until_a_death(self, call: Callable[[Any], Result], pending: dict[int, Any]) -> Iterator[Result]:
        """Results until all are done or a worker dies; takes what is finished out of ``pending``."""
        from concurrent.futures import ProcessPoolExecutor, as_completed
        from concurrent.futures.process import BrokenProcessPool

        if self._pool is None:
            follow = {"initializer": _follow, "initargs": (self._watched,)}
            self._pool = ProcessPoolExecutor(self._workers, mp_context=self._context, **follow)
        try:
            with _interrupts_held():  # a worker inherits this, and leaves Ctrl-C to this process from its first moment on
                futures = {self._pool.submit(_on_one_thread, call, task): index for index, task in pending.items()}
            for future in as_completed(futures):
                index = futures.pop(future)  # nobody else holds what came back, which may be large
                if not isinstance(future.exception(), BrokenProcessPool):
                    del pending[index]
                    yield future.result()
        except BrokenProcessPool:  # died while tasks were still being handed in
            pass
        if pending:
            self.close()

    def stop(self) -> None:
        """End the workers at once, whatever they are doing."""
        self._alive.close()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


@contextmanager
def _ray_cluster(workers: int, address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster at ``address`` (which is sent this package), or to a local one of ``workers``."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ImportError("--engine ray needs Ray: pip install ray; or use --engine processes") from error
    package = Path(__file__).resolve().parents[1]
    environment = {"py_modules": [str(package)]} if address else {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
    local = {} if address else {"num_cpus": workers, "include_dashboard": False}
    ray.init(address=address, runtime_env=environment, log_to_driver=False, configure_logging=False, **local)
    try:
        yield ray
    finally:
        ray.shutdown()


def _on_ray(ray: Any, call: Callable[[Any], Result], tasks: Sequence[Any]) -> Iterator[Result]:
    """Ray runs the tasks of a dead worker again elsewhere; whatever comes back is yielded once."""
    remote = ray.remote(num_cpus=1, max_retries=DEATHS)(_on_one_thread)
    waiting = [remote.remote(call, task) for task in tasks]
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1)
        try:
            result = ray.get(ready[0])
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except ray.exceptions.WorkerCrashedError as error:
            raise WorkerDied(f"a unit killed its Ray worker {DEATHS + 1} times: {error}") from error
        yield result


def _on_one_thread(call: Callable[[Any], Result], task: Any) -> Result:
    with one_thread():
        return call(task)


@contextmanager
def one_thread() -> Iterator[None]:
    """Everything inside computes on one thread, so that sums are added up in one order."""
    import sklearn.cluster  # noqa: F401 (its thread pool must be there before it can be limited)
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; processes started in it never see one (on Windows `_follow` sees to that)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow(parent: Connection) -> None:
    """Let a worker process end when its parent does, however that ends, or says so by closing its end of a pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: Connection) -> None:
    with suppress(OSError):  # how Windows says that the other end is gone
        parent.poll(None)
    os._exit(1)
