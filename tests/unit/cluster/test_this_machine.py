import math
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from autospine.cluster import this_machine
from autospine.cluster.executor import Lost, Task
from autospine.cluster.this_machine import WorkerProcesses, WorkerThreads


def tasks(*arguments: object) -> list[Task]:
    return [Task(name=f"task {number}", argument=argument) for number, argument in enumerate(arguments)]


class Deadly(str):
    """A text that ends the process in which it is rebuilt."""

    __slots__ = ()

    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize(
    "executor",
    [WorkerThreads(2), WorkerProcesses(1), WorkerProcesses(2)],
    ids=["threads", "here", "processes"],
)
def test_each_task_has_its_result(executor):
    found = {task.name: result for task, result in executor.run(math.sqrt, tasks(1.0, 4.0, 9.0))}
    assert found == {"task 0": 1.0, "task 1": 2.0, "task 2": 3.0}
    assert list(executor.run(math.sqrt, [])) == []


@pytest.mark.parametrize(
    "executor",
    [WorkerThreads(2), WorkerProcesses(1), WorkerProcesses(2)],
    ids=["threads", "here", "processes"],
)
def test_what_the_function_raises_is_raised(executor):
    with pytest.raises(ValueError, match=r"domain|negative|expected"):
        list(executor.run(math.sqrt, tasks(-1.0, -4.0)))


def test_one_process_is_this_one_and_two_are_others():
    own = [pid for _, pid in WorkerProcesses(1).run(lambda _: os.getpid(), tasks(0, 1))]
    assert own == [os.getpid()] * 2
    others = {pid for _, pid in WorkerProcesses(2).run(_pid, tasks(0, 1))}
    assert os.getpid() not in others


def _pid(_: object) -> int:
    return os.getpid()


def test_a_task_that_kills_every_process_is_lost_alone(caplog):
    found = {
        task.name: result for task, result in WorkerProcesses(2).run(str.upper, tasks(Deadly("x"), "a", "b"))
    }
    assert found == {
        "task 0": Lost(
            task="task 0",
            reason="its worker process was killed, probably for want of memory; use fewer workers",
        ),
        "task 1": "A",
        "task 2": "B",
    }
    assert "a worker process was killed; going on with 1" in caplog.text


def test_tasks_that_have_not_begun_are_dropped_when_the_caller_has_enough(monkeypatch):
    done = []
    results = WorkerThreads(1).run(done.append, tasks(*range(50)))
    ended = []
    shutdown = ThreadPoolExecutor.shutdown
    monkeypatch.setattr(
        this_machine.ThreadPoolExecutor,
        "shutdown",
        lambda self, **options: (ended.append(options), shutdown(self, **options)),
    )
    next(results)
    results.close()
    assert ended == [{"wait": True, "cancel_futures": True}]
