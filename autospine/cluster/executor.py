"""The interface by which many calls of one function are run, on this machine or on a cluster."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from autospine.core.errors import AutospineError


class ClusterError(AutospineError):
    """A cluster cannot be reached, or its workers cannot do the work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What a task takes of the process that runs it."""

    memory_bytes: int = 0
    """Estimated memory; 0 where nothing is known."""

    gpu: bool = False
    """Whether it needs a GPU."""

    alone: bool = False
    """Whether no other such task may run in the same process meanwhile: it uses every core, or the GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One call of a function that is called many times."""

    name: str
    """Name for messages: that of a case, a part or a fold."""

    argument: Any
    """What the function is called with. It may go to another process."""

    need: Need = Need()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """Stands for the result of a task whose process was killed each time that the task was tried."""

    task: str
    """Name of the task."""

    reason: str
    """What happened, and what may help."""

    def __str__(self) -> str:
        return f"{self.task}: {self.reason}"


TaskFunction = Callable[[Any], Any]
"""A function of one argument. It may go to another process, as what it returns does: it is a function of a
module, or `functools.partial` of one."""


@runtime_checkable
class Executor(Protocol):
    """Runs tasks, several at a time."""

    def run(self, function: TaskFunction, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Call a function for each task; yield tasks and results in the order in which they end.

        Where the iteration is left early, tasks that have not begun are dropped.

        Args:
            function: The function.
            tasks: Its arguments, and what each call takes.

        Yields:
            A task and what the function returned for it, or `Lost`.

        Raises:
            Exception: What the function raises.
            ClusterError: If no worker can do the work, or the cluster is gone.
        """
