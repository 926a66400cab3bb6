"""Tasks on this machine: in threads of this process, in other processes, or in this one, in turn."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from autospine.cluster.executor import Lost, Task, TaskFunction
from autospine.system.log import get_logger
from autospine.system.workers import WorkerPool, was_killed

logger = get_logger(__name__)


class WorkerThreads:
    """Runs tasks in threads, which start at once and share memory.

    They suit work that spends its time where the interpreter's lock is released, as in reading and hashing.

    Args:
        at_once: Number of threads, at least 1.
    """

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once

    def run(self, function: TaskFunction, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Run tasks as `Executor.run` says."""
        pool = ThreadPoolExecutor(self.at_once)
        try:
            futures = {pool.submit(function, task.argument): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            # After Ctrl-C only the tasks that have begun are waited for.
            pool.shutdown(wait=True, cancel_futures=True)


class WorkerProcesses:
    """Runs tasks in fresh processes, or in this one where there would be a single one.

    If a process is killed, all tasks under way are lost. They are tried again by half as many processes,
    which need half of the memory; a task during which the only process is killed is `Lost`.

    Args:
        at_once: Number of processes, at least 1; with 1 the tasks run in this process.
        set_up: Called in each process before it takes work; a function of a module.
    """

    def __init__(self, at_once: int, set_up: Callable[[], object] | None = None) -> None:
        self.at_once, self._set_up = at_once, set_up

    def run(self, function: TaskFunction, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Run tasks as `Executor.run` says."""
        at_once = min(self.at_once, len(tasks))
        if at_once <= 1:
            for task in tasks:
                yield task, function(task.argument)
        else:
            yield from self._pooled(function, tasks, at_once)

    def _pooled(
        self, function: TaskFunction, tasks: Sequence[Task], at_once: int
    ) -> Iterator[tuple[Task, Any]]:
        remaining = list(tasks)
        while remaining:
            with WorkerPool(at_once, self._set_up) as pool:
                futures = {pool.submit(function, task.argument): task for task in remaining}
                lost = []
                for future in as_completed(futures):
                    if was_killed(future):
                        lost.append(id(futures[future]))
                    else:
                        yield futures[future], future.result()
            remaining = [task for task in remaining if id(task) in lost]
            if remaining and at_once == 1:
                why = "its worker process was killed, probably for want of memory; use fewer workers"
                task = remaining.pop(0)
                yield task, Lost(task=task.name, reason=why)
            elif remaining:
                at_once = max(1, at_once // 2)
                logger.warning("a worker process was killed; going on with %d", at_once)
