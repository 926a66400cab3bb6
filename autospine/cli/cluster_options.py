"""Options of commands that can run on a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autospine.storage.workspace import Workspace

if TYPE_CHECKING:
    from autospine.cluster.dask_cluster import DaskCluster

Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Run on the workers of this Dask scheduler, such as tcp://10.0.0.1:8786. All of them reach the "
        "same folders by the same paths.",
        show_default=False,
    ),
]
Slurm = Annotated[
    int | None,
    typer.Option(
        "--slurm",
        metavar="JOBS",
        min=1,
        help="Run on so many jobs of Slurm, which are submitted now, as dask-jobqueue's settings describe "
        "them, and ended with this command.",
        show_default=False,
    ),
]


def located(workspace: Path | None, scheduler: str | None, slurm: int | None) -> Workspace:
    """Return the workspace, by an absolute path where other machines are to find it too."""
    found = Workspace.locate(workspace)
    elsewhere = scheduler is not None or slurm is not None
    return Workspace(root=found.root.absolute()) if elsewhere else found


@contextmanager
def cluster_for(
    scheduler: str | None, slurm: int | None, folder: Path, *read: Path
) -> Iterator["DaskCluster | None"]:
    """Yield the workers that the user has named; None for this machine alone.

    Args:
        scheduler: Address of a Dask scheduler.
        slurm: Number of jobs.
        folder: Folder that is written to, which all workers have to reach.
        read: Files and folders that are read, which all workers have to reach too.

    Raises:
        typer.BadParameter: If both were given.
        ClusterError: If there is no such cluster, or its workers cannot take part.
    """
    if scheduler is not None and slurm is not None:
        raise typer.BadParameter("found both; give one of them", param_hint="--scheduler / --slurm")
    if scheduler is None and slurm is None:
        yield None
        return
    from autospine.cluster.shared_paths import SharedPaths

    shared = SharedPaths(written=folder.absolute(), read=tuple(path.absolute() for path in read))
    if scheduler is not None:
        from autospine.cluster.dask_cluster import connected

        with connected(scheduler, shared) as cluster:
            yield cluster
    elif slurm is not None:
        from autospine.cluster.slurm_jobs import slurm_jobs

        with slurm_jobs(slurm, shared) as cluster:
            yield cluster
