"""Jobs of Slurm as workers, with commands in its place that run a job as a process of this machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autospine.cluster import slurm_jobs
from autospine.cluster.dask_cluster import DaskCluster, connected
from autospine.cluster.executor import ClusterError, Task
from autospine.cluster.shared_paths import SharedPaths

dask = pytest.importorskip("dask")
pytest.importorskip("dask_jobqueue")

SBATCH = """#!/bin/bash
if [ "$1" = --test-only ]; then
    {tested}
fi
cp "$1" "{log}.sh"  # Slurm keeps the script, which is gone soon
setsid bash "{log}.sh" > "{log}" 2>&1 < /dev/null &
echo "Submitted batch job $!"
"""

SQUEUE = """#!/bin/bash
for job in ${{*##*=}}; do kill -0 "-$job" 2>/dev/null && echo RUNNING; done
exit 0
"""

SCANCEL = """#!/bin/bash
kill -- "-$1"
"""


@pytest.fixture
def submit(tmp_path: Path, monkeypatch):
    """Put commands of Slurm's names in the way of the real ones; returns what writes them."""

    def write(tested: str = "exit 0") -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, text in (
            ("sbatch", SBATCH.format(tested=tested, log=tmp_path / "job.log")),
            ("scancel", SCANCEL),
            ("squeue", SQUEUE.format()),
        ):
            (folder / name).write_text(text, encoding="utf-8")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return write


@pytest.fixture
def settings():
    """What a user writes into jobqueue.yaml."""
    with dask.config.set(
        {
            "jobqueue.slurm.cores": 1,
            "jobqueue.slurm.processes": 1,
            "jobqueue.slurm.memory": "2GiB",
            "jobqueue.slurm.interface": "lo",
            "jobqueue.slurm.python": sys.executable,
            "jobqueue.slurm.scheduler-options": {"dashboard_address": ":0"},
        }
    ):
        yield


def test_ctrl_c_still_interrupts_where_the_library_of_the_jobs_is_loaded():
    program = """
import signal
from autospine.cluster import slurm_jobs
from autospine.cluster.executor import ClusterError
slurm_jobs.shutil.which = lambda _: "sbatch"
try:
    with slurm_jobs.slurm_jobs(1, None):
        pass
except ClusterError as error:
    assert "cores and memory" in str(error), error
import sys
assert "dask_jobqueue" in sys.modules
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    lines = ["import signal", "signal.signal(signal.SIGINT, signal.default_int_handler)", program]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


@pytest.mark.usefixtures("settings")
def test_jobs_are_workers_for_as_long_as_they_are_needed(submit, tmp_path: Path):
    submit()
    with slurm_jobs.slurm_jobs(1, SharedPaths(written=tmp_path / "shared")) as cluster:
        assert cluster.workers == 1
        address = cluster._client.scheduler.address
        assert address.startswith("tls://")  # so that nobody else can connect
        with (
            pytest.raises(ClusterError, match=r"expected a Dask scheduler at tls://.*, found none"),
            connected(address, SharedPaths(written=tmp_path)),
        ):
            pass
        ((task, pid),) = cluster.run(lambda _: os.getpid(), [Task(name="a", argument=0)])
        assert task.name == "a"
        assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):  # the job has been cancelled
        until_gone(pid)
    assert not list((tmp_path / "shared").iterdir())  # neither the certificates nor the note


@pytest.mark.usefixtures("settings")
def test_a_job_that_ends_while_it_works_is_submitted_again(submit, tmp_path: Path, monkeypatch):
    submit()
    monkeypatch.setattr(slurm_jobs, "REPLACE_SECONDS", 0.5)
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "100ms"}),
        slurm_jobs.slurm_jobs(1, SharedPaths(written=tmp_path / "shared")) as cluster,
    ):
        before = find_process(cluster)
        os.killpg(os.getpgid(before), signal.SIGKILL)  # the job with all of its processes
        after = find_process(cluster)
        assert os.getpgid(after) not in (before, os.getpgid(0))
        assert after != before
    with pytest.raises(ProcessLookupError):
        until_gone(after)


def find_process(cluster: DaskCluster) -> int:
    ((_, pid),) = cluster.run(lambda _: os.getpid(), [Task(name="a", argument=0)])
    assert isinstance(pid, int)
    return pid


@pytest.mark.usefixtures("settings")
def test_jobs_that_end_before_they_are_workers_are_said(submit, tmp_path: Path, monkeypatch):
    submit()
    monkeypatch.setattr(slurm_jobs, "LOOK_SECONDS", 0.5)
    with (
        dask.config.set({"jobqueue.slurm.python": "/nowhere/python"}),
        pytest.raises(
            ClusterError, match=r"found that \d+ ended at once; the files slurm-JOB\.out .* say why"
        ),
        slurm_jobs.slurm_jobs(1, SharedPaths(written=tmp_path)),
    ):
        pass


def until_gone(pid: int) -> None:
    for _ in range(600):
        os.kill(pid, 0)
        time.sleep(0.05)


@pytest.mark.usefixtures("settings")
def test_a_job_that_slurm_refuses_is_said_in_its_words(submit, tmp_path: Path):
    submit('echo "allocation failure: Invalid partition name specified" >&2; exit 1')
    with (
        pytest.raises(ClusterError, match=r"found it refused \(allocation failure: Invalid partition name"),
        slurm_jobs.slurm_jobs(1, SharedPaths(written=tmp_path)),
    ):
        pass


def test_settings_that_say_too_little_are_refused(submit, tmp_path: Path):
    submit()
    with (
        dask.config.set({"jobqueue.slurm.cores": None, "jobqueue.slurm.memory": None}),
        pytest.raises(ClusterError, match=r"jobqueue\.yaml, found no cores and no memory; write them there"),
        slurm_jobs.slurm_jobs(1, SharedPaths(written=tmp_path)),
    ):
        pass


def test_a_machine_without_slurm_is_said(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with (
        pytest.raises(
            ClusterError, match=r"expected Slurm's sbatch on this machine, found none; .* login node"
        ),
        slurm_jobs.slurm_jobs(1, SharedPaths(written=tmp_path)),
    ):
        pass
