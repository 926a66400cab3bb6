import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest
import torch

from autospine.core.errors import PlanError
from autospine.system.workers import WorkerPool, parent_lives, reporting_killed, was_killed

PARENT = """
import sys, time
from pathlib import Path

from autospine.system.workers import WorkerPool


def work(folder, name):
    import os

    (Path(folder) / name).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(600 if name == "busy" else 0)


if __name__ == "__main__":
    pool = WorkerPool(2)
    pool.submit(work, sys.argv[1], "idle").result()
    pool.submit(work, sys.argv[1], "busy")
    time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)]) as parent:
        try:
            wait_for(lambda: (tmp_path / "busy").is_file() and (tmp_path / "busy").stat().st_size > 0)
            workers = psutil.Process(parent.pid).children(recursive=True)
            numbers = {worker.pid for worker in workers}
            assert int((tmp_path / "busy").read_text(encoding="utf-8")) in numbers
        finally:
            parent.kill()
    wait_for(lambda: not any(map(lives, workers)))


def lives(process: psutil.Process) -> bool:
    """Also where nobody collects what has ended."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_for(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def set_up() -> None:
    torch.set_num_threads(1)


def test_a_pool_sets_up_its_workers() -> None:
    with WorkerPool(1, set_up) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
        assert pool.submit(parent_lives).result()
    assert not parent_lives()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_worker_that_is_killed_is_named() -> None:
    with pytest.raises(PlanError, match="less memory"), WorkerPool(1) as pool:
        killed = pool.submit(signal.raise_signal, signal.SIGKILL)
        with reporting_killed(PlanError("plan with less memory")):
            killed.result()
    assert was_killed(killed)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(ValueError, match="its own"), reporting_killed(PlanError("killed")):
        raise ValueError("its own")
    done: Future[int] = Future()
    done.set_result(3)
    assert not was_killed(done)
    broken: Future[int] = Future()
    broken.set_exception(BrokenProcessPool("killed"))
    assert was_killed(broken)


def test_jobs_that_have_not_begun_are_dropped_when_the_block_is_left_early() -> None:
    with pytest.raises(ValueError, match="full disk"), WorkerPool(1) as pool:
        jobs = [pool.submit(time.sleep, 0.05) for _ in range(100)]
        jobs[0].result()
        raise ValueError("full disk")
    assert all(job.done() for job in jobs)
    assert jobs[-1].cancelled()
