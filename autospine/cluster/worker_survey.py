"""The workers of a Dask scheduler, looked at: what they have, and whether they can take part."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import autospine
from autospine.cluster.executor import ClusterError, Need
from autospine.cluster.shared_paths import SharedPaths, shared_files
from autospine.cluster.worker_side import WorkerFacts, describe_worker
from autospine.core.errors import first_line, listed, listed_faults

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterWorker:
    """A worker of the cluster, looked at."""

    address: str
    host: str
    threads: int

    memory_bytes: int
    """Memory at which Dask ends it; 0 if it has no limit."""

    facts: WorkerFacts

    def fits(self, need: Need) -> bool:
        """Return whether a task that needs this can run in it."""
        enough = not self.memory_bytes or need.memory_bytes <= self.memory_of_task(need)
        return enough and (self.facts.gpus > 0 or not need.gpu)

    def memory_of_task(self, need: Need) -> int:
        """Return the memory that a task may take in it, as tasks of its other threads run beside it."""
        return self.memory_bytes // (1 if need.alone else self.threads)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnfitWorker:
    """A worker that cannot take part."""

    address: str
    host: str

    fault: str
    """Its address, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenWorkers:
    """The workers of a scheduler, looked at."""

    able: tuple[ClusterWorker, ...]
    unfit: tuple[UnfitWorker, ...]

    def refused(self) -> ClusterError:
        """Return the error that names the workers that cannot take part."""
        count, faults = len(self.able) + len(self.unfit), [worker.fault for worker in self.unfit]
        return ClusterError(
            f"expected workers that can take part, found {len(faults)} of {count} that cannot: "
            f"{listed_faults(faults)}"
        )


def look_at_workers(client: "Client", shared: SharedPaths) -> SeenWorkers:
    """Ask each worker of a scheduler what it is, and whether it finds what is shared."""
    with shared_files(shared) as files:
        answers = client.run(describe_worker, files, on_error="return")
    known = client.scheduler_info(n_workers=-1)["workers"]
    able, unfit = [], []
    for address, answer in sorted(answers.items()):
        about = known.get(address)
        if about is None:  # it has ended since
            continue
        fault = _fault(answer)
        if fault is not None:
            called = "" if str(about["name"]) in ("", address) else f" ({about['name']})"
            unfit.append(UnfitWorker(address=address, host=about["host"], fault=f"{address}{called} {fault}"))
            continue
        able.append(
            ClusterWorker(
                address=address,
                host=about["host"],
                threads=about["nthreads"],
                memory_bytes=about["memory_limit"] or 0,
                facts=answer,
            )
        )
    return SeenWorkers(able=tuple(able), unfit=tuple(unfit))


def _fault(answer: Any) -> str | None:
    """Return why a worker that has answered so cannot take part; None if it can."""
    ours = autospine.__version__
    if not isinstance(answer, WorkerFacts):
        what = first_line(answer) if isinstance(answer, Exception) else answer
        return f"has no AutoSpine {ours} ({type(answer).__name__}: {what}); install it there"
    if answer.version != ours:
        return f"has AutoSpine {answer.version}, this is {ours}; install the same version there"
    if answer.unseen:
        return f"does not see {listed(answer.unseen)}; give it the same shared folders under the same paths"
    return None
