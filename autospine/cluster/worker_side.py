"""The side of the workers of a cluster: how they describe themselves, and how they run a task."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import autospine
from autospine.cluster.executor import ClusterError, TaskFunction
from autospine.cluster.shared_paths import SharedFile
from autospine.storage.locks import is_held
from autospine.system.allocation import return_freed_memory
from autospine.system.fresh_process import STOP_SECONDS

FREE_SECONDS = STOP_SECONDS + 60
"""Time to wait for another process that does the same work, as the task of a command that was ended may: it
finishes the step or the case that it has begun."""

_ALONE = threading.Lock()
"""Held by the task of this process that needs every core, or the GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerFacts:
    """What a worker says of itself before it gets work."""

    version: str
    """Its version of AutoSpine."""

    unseen: tuple[str, ...]
    """Paths of the work under which it does not find what the command does."""

    gpus: int
    """Number of GPUs that PyTorch can use in it."""


def describe_worker(files: Sequence[SharedFile]) -> WorkerFacts:
    """Return the facts of this worker.

    Args:
        files: Files that all workers share.
    """
    return WorkerFacts(
        version=autospine.__version__,
        unseen=tuple(file.place for file in files if not file.is_here()),
        gpus=torch.cuda.device_count(),
    )


def unwanted_check() -> Callable[[], bool]:
    """Return a function that says if this thread's task was cancelled, or the command behind it has ended."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def unwanted() -> bool:
        state = worker.state.tasks.get(key)
        return state is None or state.state in ("cancelled", "resumed", "released")

    return unwanted


def wait_for_lock(path: Path) -> None:
    """Wait until nobody holds a lock, nobody waits for this task any more, or `FREE_SECONDS` are over."""
    unwanted, deadline = unwanted_check(), time.monotonic() + FREE_SECONDS
    while is_held(path) and time.monotonic() < deadline and not unwanted():
        time.sleep(1.0)


def worker_threads() -> int:
    """Return the number of threads of the worker that this is called in."""
    from distributed import get_worker

    threads: int = get_worker().state.nthreads
    return threads


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other such task runs in this process.

    Raises:
        ClusterError: If nobody waits for this one any more.
    """
    unwanted = unwanted_check()
    while not _ALONE.acquire(timeout=1.0):
        if unwanted():
            raise ClusterError("expected a command that waits for this task, found none; run it again")
    try:
        yield
    finally:
        _ALONE.release()


def run_task(function: TaskFunction, argument: Any, version: str, *, alone: bool) -> Any:
    """Call a function in a worker.

    Args:
        function: The function.
        argument: Its argument.
        version: Version of AutoSpine that asks; a worker that came later was not looked at before.
        alone: Whether no other such task may run in this process meanwhile, and PyTorch uses as many threads
            as the worker has.

    Raises:
        ClusterError: If the worker has another version.
        Exception: What the function raises.
    """
    if autospine.__version__ != version:
        raise ClusterError(
            f"expected workers with AutoSpine {version}, found one with {autospine.__version__}; start it in "
            "the same environment"
        )
    with _alone() if alone else nullcontext():
        torch.set_num_threads(worker_threads() if alone else 1)
        return_freed_memory()
        return function(argument)
