"""What runs in the workers of a cluster."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import autospine
from autospine.cluster.executor import ClusterError, TaskFunction
from autospine.system.allocation import return_freed_memory

_ALONE = threading.Lock()
"""Held by the task of this process that needs every core, or the GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerFacts:
    """What a worker says of itself before it gets work."""

    version: str
    """Its version of AutoSpine."""

    sees_folder: bool
    """Whether it reads what was just written into the folder of the work."""

    gpus: int
    """Number of GPUs that PyTorch can use in it."""


def describe_worker(note: str, content: str) -> WorkerFacts:
    """Return the facts of this worker.

    Args:
        note: Path of a file in the folder that all workers share.
        content: Its content.
    """
    try:
        sees = Path(note).read_text(encoding="utf-8") == content
    except OSError:
        sees = False
    return WorkerFacts(version=autospine.__version__, sees_folder=sees, gpus=torch.cuda.device_count())


def nobody_waits() -> Callable[[], bool]:
    """Return what tells whether this thread's task was cancelled, or the command that asked has ended."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def unwanted() -> bool:
        state = worker.state.tasks.get(key)
        return state is None or state.state in ("cancelled", "resumed", "released")

    return unwanted


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
    unwanted = nobody_waits()
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
