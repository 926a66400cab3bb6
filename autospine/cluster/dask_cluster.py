"""Tasks on the workers of a Dask cluster; its libraries are imported only where one is used."""

import logging
import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import autospine
from autospine.cluster.executor import ClusterError, Lost, Need, Task, TaskFunction
from autospine.cluster.shared_paths import SharedPaths
from autospine.cluster.worker_side import run_task
from autospine.cluster.worker_survey import ClusterWorker, look_at_workers
from autospine.core.errors import counted, first_line
from autospine.system.hardware import GIB
from autospine.system.log import PACKAGES, get_logger

if TYPE_CHECKING:
    from distributed import Client, Future

logger = get_logger(__name__)

EXTRA = "pip install 'autospine[cluster]'"

CONNECT_SECONDS = 15.0
"""Time that a scheduler has to answer, and that a worker has to come."""

LOOK_SECONDS = 5.0
"""Time between two looks at whether scheduler and workers are still there."""


class DaskCluster:
    """Runs tasks on the workers of a Dask cluster.

    A task whose worker is killed is tried on another one, as often as the scheduler's
    `distributed.scheduler.allowed-failures` says, and is `Lost` after that. Other workers may come while
    tasks run; one that cannot take part is found when a task fails there, which is then given to another one.

    Args:
        client: Connected to the scheduler.
        shared: What this process and all workers reach by the same paths.
        workers: Its workers, at least one, that have been looked at.
        expected: Number of workers in the end; None for those that there are.
    """

    def __init__(
        self,
        client: "Client",
        shared: SharedPaths,
        workers: Sequence[ClusterWorker],
        expected: int | None = None,
    ) -> None:
        self._client, self._shared, self._workers = client, shared, tuple(workers)
        self._unfit: dict[str, str] = {}
        """Address and host of workers that came later and cannot take part."""
        self.workers = expected or len(self._workers)
        """Number of workers, those that are still to come included."""
        self._there = {worker.address for worker in self._workers}
        """Addresses of the workers at the last look."""
        self._missing: set[str] = set()
        """Those that were not there at the last look, though at the one before."""
        self._looked = time.monotonic()

    @property
    def has_gpu(self) -> bool:
        """Whether a worker has a GPU."""
        return any(worker.facts.gpus for worker in self._workers)

    def uses_gpu(self, device: str) -> bool:
        """Return whether work on a device, as the user names it, is work for the workers with GPUs."""
        return device.startswith("cuda") or (device == "auto" and self.has_gpu)

    def run(self, function: TaskFunction, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Run tasks as `Executor.run` says.

        Raises:
            ClusterError: If a task fits no worker, which is said before the first one begins, or the
                scheduler is gone.
        """
        yield from (event for event in self.events(function, tasks) if event is not None)

    def events(self, function: TaskFunction, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any] | None]:
        """Run tasks as `run` does; also yield None every few seconds in which no task has ended."""
        places = [self._places(task) for task in tasks]
        futures = {
            self._submit(function, task, place): (task, place)
            for task, place in zip(tasks, places, strict=True)
        }
        lost: list[tuple[Task, list[str] | None]] = []
        last_chance = False
        try:
            while futures or lost:
                if not futures:
                    # Dask blames all that a killed worker had, which need not be what has killed it.
                    last_chance = True
                    task, place = lost.pop(0)
                    futures[self._submit(function, task, place)] = task, place
                for future in self._completed(futures):
                    if future is None:
                        yield None
                        continue
                    # A result that is kept would be computed again when its worker is killed.
                    task, place = futures.pop(future)
                    try:
                        result = self._result(future, task)
                    except Exception:
                        if self._client.status != "running":
                            raise
                        elsewhere = self._places_elsewhere(task)
                        if elsewhere in (None, place):  # it is the task that fails
                            raise
                        futures[self._submit(function, task, elsewhere)] = task, elsewhere
                        continue
                    future.release()
                    if isinstance(result, Lost) and not last_chance:
                        lost.append((task, place))
                    else:
                        yield task, result
        finally:
            with suppress(OSError, TimeoutError, CancelledError):  # the scheduler is gone
                self._client.cancel(list(futures), force=True)

    def _places(self, task: Task) -> list[str] | None:
        """Return the hosts and workers that a task may run on, None for all.

        A worker that is killed comes again with another address, so that hosts are named where possible.
        """
        able = [worker for worker in self._workers if worker.fits(task.need)]
        if not able:
            lacks_gpu = task.need.gpu and not self.has_gpu
            remedy = (
                "one on a machine with a GPU" if lacks_gpu else "larger ones (`dask worker --memory-limit`)"
            )
            raise ClusterError(
                f"expected a worker with {_described(task.need)} for {task.name}, found none: the largest "
                f"has {_described(self._largest(task.need))}; start {remedy}"
            )
        if len(able) == len(self._workers) and not self._unfit:
            return None
        by_host: dict[str, list[ClusterWorker]] = defaultdict(list)
        for worker in self._workers:
            by_host[worker.host].append(worker)
        whole = [
            host
            for host, all_of in by_host.items()
            if all(each in able for each in all_of) and host not in self._unfit.values()
        ]
        return whole + [worker.address for worker in able if worker.host not in whole]

    def _places_elsewhere(self, task: Task) -> list[str] | None:
        """Return where a task that has failed may run but for workers that cannot take part; None for all.

        Raises:
            ClusterError: If the scheduler is gone, or no worker can take part.
        """
        try:
            seen = look_at_workers(self._client, self._shared)
        except (OSError, TimeoutError, CancelledError) as error:
            raise self._gone() from error
        for worker in seen.unfit:
            if worker.address not in self._unfit:
                logger.warning("a worker gets no work: %s", worker.fault)
        self._unfit = {worker.address: worker.host for worker in seen.unfit}
        if self._unfit and not seen.able:
            raise seen.refused()
        self._workers = seen.able or self._workers  # all of them may just be starting again
        return self._places(task)

    def _largest(self, need: Need) -> Need:
        """Return what the largest worker has for a task of this kind."""
        return Need(
            memory_bytes=max(worker.memory_of_task(need) for worker in self._workers),
            gpu=self.has_gpu,
        )

    def _submit(self, function: TaskFunction, task: Task, places: list[str] | None) -> "Future":
        future: Future = self._client.submit(
            *(run_task, function, task.argument, autospine.__version__),
            alone=task.need.alone,
            workers=places,
            pure=False,
        )
        return future

    def _completed(self, waiting: "Collection[Future]") -> "Sequence[Future | None]":
        """Return the futures that have ended, or None alone after a while; say where nobody works on them."""
        from distributed import wait

        ended: Sequence[Future | None]
        try:
            ended = list(wait(list(waiting), timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            ended = [None]
        except (OSError, CancelledError) as error:
            raise self._gone() from error
        if time.monotonic() - self._looked >= LOOK_SECONDS or ended == [None]:
            self._look_for_workers()
        return ended

    def _look_for_workers(self) -> None:
        """Say which workers have ended, and whether none is left.

        A busy scheduler may lose sight of a worker for a moment, so that a second look has to agree.
        """
        self._looked = time.monotonic()
        try:
            there = set(self._client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, TimeoutError) as error:
            raise self._gone() from error
        if self._client.status != "running":
            raise self._gone()
        if ended := sorted(self._missing - there):
            for address in ended:
                logger.warning("a worker has ended (%s); what it was at is tried elsewhere", address)
            if not there:
                logger.warning(
                    "no worker is left; the work goes on when one comes: start one, or end this command, and "
                    "run it again later"
                )
        self._missing, self._there = self._there - there, there

    def _gone(self) -> ClusterError:
        return ClusterError(
            f"expected the Dask scheduler at {self._client.scheduler.address} to stay, found it gone; start "
            "one and run the same command again: what is done is kept"
        )

    def _result(self, future: "Future", task: Task) -> Any:
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker:
            return Lost(
                task=task.name,
                reason="its worker was killed each time, probably for want of memory; start workers with "
                "more (`dask worker --memory-limit`)",
            )
        except (OSError, CancelledError) as error:
            if future.cancelled():
                raise self._gone() from error
            raise


@contextmanager
def connected(address: str, shared: SharedPaths) -> Iterator[DaskCluster]:
    """Connect to a Dask scheduler, and look at its workers before they get work.

    Args:
        address: Address of the scheduler, such as `tcp://10.0.0.1:8786`.
        shared: What this process and all workers reach by the same paths.

    Raises:
        ClusterError: If Dask is not installed, nobody answers, there is no worker, or workers have another
            version of AutoSpine or do not see the folders; names every such worker.
    """
    check_installed("distributed")
    from distributed import Client

    keep_quiet()
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, TypeError, ValueError) as error:
        raise ClusterError(
            f"expected a Dask scheduler at {address}, found none ({first_line(error)}); start one with `dask "
            "scheduler`, which prints its address, and workers with `dask worker ADDRESS`"
        ) from None
    with client:
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        with warnings_heard(client):
            yield cluster_of(client, shared)


def cluster_of(client: "Client", shared: SharedPaths, expected: int | None = None) -> DaskCluster:
    """Look at the workers of a scheduler, and return what runs tasks on them.

    Args:
        client: Connected to the scheduler.
        shared: What this process and all workers reach by the same paths.
        expected: Number of workers in the end; None for those that there are.

    Raises:
        ClusterError: As `connected` does.
    """
    seen = look_at_workers(client, shared)
    if seen.unfit:
        raise seen.refused()
    workers = seen.able
    if not workers:
        raise ClusterError(
            f"expected workers at the Dask scheduler {client.scheduler.address}, found none; start some with "
            f"`dask worker {client.scheduler.address}`"
        )
    threads = sum(worker.threads for worker in workers)
    logger.info("cluster: %s, %s", counted(len(workers), "worker"), counted(threads, "thread"))
    return DaskCluster(client, shared, workers, expected)


@contextmanager
def warnings_heard(client: "Client") -> Iterator[None]:
    """Log here what workers warn of, once each: every part of a prediction warns of the same model."""
    for package in PACKAGES:
        client.forward_logging(package, level=logging.WARNING)
    handlers = {handler for package in PACKAGES for handler in logging.getLogger(package).handlers}
    filters = {handler: _OnceFromWorkers() for handler in handlers}  # each handler shows a message once
    for handler, once in filters.items():
        handler.addFilter(once)
    try:
        yield
    finally:
        for handler, once in filters.items():
            handler.removeFilter(once)


class _OnceFromWorkers(logging.Filter):
    """Lets a message of another process pass if neither this process nor any other has logged it before."""

    def __init__(self) -> None:
        super().__init__()
        self._heard: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is shown."""
        said = record.getMessage()
        again = said in self._heard
        self._heard.add(said)
        return not again or record.process == os.getpid()


def keep_quiet() -> None:
    """Keep Dask from logging what is said here in a sentence, with tracebacks."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def check_installed(library: str) -> None:
    """Refuse to go on without a library of the extra `cluster`.

    Raises:
        ClusterError: If it is not there.
    """
    if find_spec(library) is None:
        raise ClusterError(f"expected {library} to reach a cluster, found none; run `{EXTRA}`")


def _described(need: Need) -> str:
    parts = [f"{need.memory_bytes / GIB:.1f} GiB of memory"] if need.memory_bytes else []
    parts += ["a GPU"] if need.gpu else []
    return " and ".join(parts) or "neither a limit of memory nor a GPU"
