"""Dask workers as jobs of Slurm, for as long as a command runs."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from autospine.cluster.dask_cluster import (
    DaskCluster,
    check_installed,
    cluster_of,
    keep_quiet,
    warnings_heard,
)
from autospine.cluster.executor import ClusterError
from autospine.cluster.shared_paths import SharedPaths
from autospine.core.errors import counted, listed, shortened
from autospine.storage.atomic import TEMPORARY
from autospine.system.log import get_logger
from autospine.system.signals import own_handlers

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client, Security

logger = get_logger(__name__)

SETTINGS = "~/.config/dask/jobqueue.yaml"
"""File in which dask-jobqueue looks for what a job asks Slurm for."""

NEEDED = ("cores", "memory")
"""Settings without which no job can be described."""

CERTIFICATES = (
    "tls_ca_file",
    *(f"tls_{role}_{part}" for role in ("scheduler", "worker", "client") for part in ("cert", "key")),
)
"""Parts of an encrypted connection, as Dask names them."""

LOOK_SECONDS = 10.0
"""Time between two looks at whether a job has begun."""

REPLACE_SECONDS = 60.0
"""Time between two looks at whether a job that was at work has ended."""

WAITING_SECONDS = 60.0
"""Time without a worker after which it is said that the jobs wait."""


@contextmanager
def slurm_jobs(jobs: int, shared: SharedPaths) -> Iterator[DaskCluster]:
    """Submit jobs that are workers, yield them once the first one has begun, and end them.

    What each job asks for stands in dask-jobqueue's own settings. A job that was at work and has ended, since
    its time was over for instance, is submitted again.

    Args:
        jobs: Number of jobs.
        shared: What this process and all workers reach by the same paths.

    Raises:
        ClusterError: If dask-jobqueue or Slurm are not there, the settings say too little, Slurm refuses the
            jobs, they end at once, or the workers cannot take part.
    """
    check_installed("dask_jobqueue")
    if shutil.which("sbatch") is None:
        raise ClusterError(
            "expected Slurm's sbatch on this machine, found none; run the command on a login node, or "
            "connect to a scheduler with --scheduler"
        )
    import dask
    from distributed import Client

    with own_handlers():
        from dask_jobqueue import SLURMCluster

    keep_quiet()
    if lacking := [key for key in NEEDED if dask.config.get(f"jobqueue.slurm.{key}") is None]:
        raise ClusterError(
            f"expected cores and memory of a Slurm job in {SETTINGS}, found no "
            f"{' and no '.join(lacking)}; write them there, as docs/how-to/cluster.md shows"
        )
    shared.written.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=shared.written, prefix=".", suffix=TEMPORARY) as private,
        SLURMCluster(security=_certificates(Path(private))) as cluster,
    ):
        _check_accepted(cluster.job_script())
        with Client(cluster) as client:
            cluster.scale(jobs=jobs)
            logger.info("%s submitted to Slurm", counted(jobs, "job"))
            _await_worker(client, cluster)
            with _replaced(cluster, jobs), warnings_heard(client):
                yield cluster_of(client, shared, jobs)


def _certificates(folder: Path) -> "Security":
    """Make certificates for this command alone: without them anybody who reaches its port could run code.

    Args:
        folder: Folder that only this user can read, on the machines of the jobs too.
    """
    from distributed import Security

    made = Security.temporary()
    files = {}
    for name in CERTIFICATES:
        path = folder / f"{name}.pem"
        path.write_text(getattr(made, name), encoding="utf-8")
        files[name] = str(path)
    return Security(require_encryption=True, **files)


def _check_accepted(script: str) -> None:
    """Ask Slurm whether it would take a job, without submitting it.

    Raises:
        ClusterError: If it would not; with its own words.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sh", encoding="utf-8") as file:
        file.write(script)
        file.flush()
        tried = subprocess.run(
            ("sbatch", "--test-only", file.name), capture_output=True, text=True, check=False
        )
    if tried.returncode:
        said = tried.stderr.strip() or tried.stdout.strip() or f"exit code {tried.returncode}"
        raise ClusterError(
            f"expected Slurm to take the job that {SETTINGS} describes, found it refused "
            f"({shortened(said)}); mend the settings"
        )


@contextmanager
def _replaced(cluster: "SLURMCluster", jobs: int) -> Iterator[None]:
    """Submit jobs in the place of those whose workers have gone, as they do when their time is over.

    Jobs whose workers never came are not replaced: they would end at once again.
    """
    from tornado.ioloop import PeriodicCallback

    again = PeriodicCallback(lambda: cluster.scale(jobs=jobs), 1000 * REPLACE_SECONDS)
    cluster.loop.add_callback(again.start)
    try:
        yield
    finally:
        cluster.loop.add_callback(again.stop)


def _await_worker(client: "Client", cluster: "SLURMCluster") -> None:
    """Wait until a job has begun; say after a while that none has.

    Raises:
        ClusterError: If all jobs have ended without a worker.
    """
    waited, said = 0.0, False
    while True:
        try:
            client.wait_for_workers(1, timeout=LOOK_SECONDS)
        except TimeoutError:
            waited += LOOK_SECONDS
            _check_alive(tuple(job.job_id for job in cluster.workers.values()))
            if waited >= WAITING_SECONDS and not said:
                said = True
                logger.warning(
                    "no job has begun yet; `squeue --me` says what they wait for; Ctrl-C ends them"
                )
        else:
            return


def _check_alive(jobs: Sequence[str]) -> None:
    """Ask Slurm whether any of these jobs waits or runs; an answer that is none is taken for yes.

    Raises:
        ClusterError: If all of them have ended.
    """
    if shutil.which("squeue") is None or not jobs or not all(jobs):
        return
    words = ("squeue", "--noheader", "--format=%T", f"--jobs={','.join(jobs)}")
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    unknown = "Invalid job id" in asked.stderr  # Slurm has forgotten a single job that has ended
    if not asked.stdout.strip() and (unknown or not asked.returncode):
        raise ClusterError(
            f"expected jobs of Slurm to become workers, found that {listed(jobs)} ended at once; the files "
            f"slurm-JOB.out in the folder that you are in say why: mend {SETTINGS} or the environment"
        )
