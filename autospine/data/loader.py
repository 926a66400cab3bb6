"""Batches made ahead of time, in a thread or in other processes."""

import pickle
import queue
import signal
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Integer
from torch.utils.data import DataLoader, Dataset

from autospine.core.errors import TrainingError, first_line
from autospine.core.types import Modality
from autospine.data.awaited_batches import CHECK_SECONDS, AwaitedBatches, put_unless_stopped
from autospine.data.patches import Batch, PatchSource
from autospine.plan import Configuration, Normalisation
from autospine.preprocessing.store import StoredCase
from autospine.system.log import get_logger
from autospine.system.workers import portable

logger = get_logger(__name__)

AHEAD = 3
"""Largest number of batches that wait for the trainer; with several processes, for each of them."""

AHEAD_BYTES = 2**31
"""Bytes of waiting batches of all processes, unless one for each is more: they take shared memory, of which a
container has little."""

PATIENCE = 10.0
"""Seconds that a thread has to finish its present patch when it is stopped."""


class DataWorkerError(TrainingError):
    """Error of a process that makes patches and has ended unexpectedly."""


class PatchBatches(AwaitedBatches):
    """Iterator over the batches of the steps from `start` to `stop`, which are made ahead of time.

    The batches do not depend on the number of workers. `close` it, or use it in a `with` block.

    Args:
        cases: Stored training cases.
        configuration: Configuration with patch size, batch size, oversampling and augmentation.
        seed: Seed of everything random.
        start: First step; for a resumed run, the next one to take.
        stop: Step after the last one.
        workers: Number of processes; 0 uses one thread of this process.
        cache_bytes: Memory for decompressed cases, of all workers together.
        augment: Whether patches are augmented.
        part: Number of this process among those that train together, each with batches of its own.
        normalisation: The plan's rules, by which images that are made from tissue maps are normalised; None
            if none are made.

    Raises:
        TrainingError: If there is no case.
    """

    def __init__(
        self,
        cases: Sequence[StoredCase],
        configuration: Configuration,
        *,
        seed: int,
        start: int,
        stop: int,
        workers: int,
        cache_bytes: int,
        augment: bool = True,
        part: int = 0,
        normalisation: Mapping[Modality, Normalisation] | None = None,
    ) -> None:
        super().__init__()
        source = PatchSource(
            cases,
            configuration,
            seed=seed,
            cache_bytes=cache_bytes // max(1, workers),
            augment=augment,
            part=part,
            normalisation=normalisation,
        )
        steps = range(start, stop)
        self._producer: _Thread | _Processes = (
            _Processes(source, steps, workers, batches_ahead(configuration, workers))
            if workers > 0
            else _Thread(source, steps)
        )

    def __next__(self) -> Batch:
        """Wait for the next batch.

        Raises:
            StopIteration: If the last step has been made.
            DataWorkerError: If a worker process was killed.
            Exception: If an error was raised in a worker; a note names the case.
        """
        made = self._wait_for(self._producer.take)
        if made is None:
            self.close()
            raise StopIteration
        if isinstance(made, _Failure):
            self.close()
            raise made.error
        return made

    def close(self) -> None:
        """Stop the workers; may be called at any time and more than once."""
        self._producer.close()

    def __enter__(self) -> "PatchBatches":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def batches_ahead(configuration: Configuration, workers: int) -> int:
    """Return how many batches each of several processes makes ahead: as many as `AHEAD_BYTES` hold."""
    # One channel in float32 and a label per voxel; more channels are rare, and small beside what is spared.
    batch_bytes = 5 * prod(configuration.patch_size) * configuration.training.batch_size
    return max(1, min(AHEAD, AHEAD_BYTES // (workers * batch_bytes)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failure:
    """Error of a worker on its way to the trainer."""

    error: Exception


def _attempt(source: PatchSource, step: int) -> Batch | _Failure:
    try:
        return source.batch(step)
    except Exception as error:
        return _Failure(error=error)


class _Thread:
    """Producer with one thread that fills a short queue; the thread holds no reference to this object."""

    def __init__(self, source: PatchSource, steps: range) -> None:
        self._queue: queue.Queue[Batch | _Failure | None] = queue.Queue(AHEAD)
        stop, ready = threading.Event(), threading.Event()
        threads = torch.get_num_threads()
        thread = threading.Thread(
            target=_fill, args=(source, steps, self._queue, stop, ready), name="patches", daemon=True
        )
        thread.start()
        while not ready.wait(CHECK_SECONDS) and thread.is_alive():
            pass
        self._thread = thread
        # The thread keeps its own setting, but torch also took it as the default of threads to come.
        torch.set_num_threads(threads)
        # Runs at interpreter exit too, before the thread's modules are taken apart.
        self._stop = weakref.finalize(self, _end, thread, self._queue, stop)

    def take(self) -> Batch | _Failure | None:
        """The next batch, or what went wrong with it; None after the last one and once closed."""
        while self._stop.alive:
            alive = self._thread.is_alive()
            try:
                return self._queue.get(timeout=CHECK_SECONDS if alive else 0)
            except queue.Empty:
                if not alive:
                    raise DataWorkerError(
                        "expected the thread that makes patches to run, found that it has ended, perhaps "
                        "because this process was forked; open the batches in the process that takes them"
                    ) from None
        return None

    def close(self) -> None:
        self._stop()


def _fill(
    source: PatchSource,
    steps: range,
    made: "queue.Queue[Batch | _Failure | None]",
    stop: threading.Event,
    ready: threading.Event,
) -> None:
    # Patches must not take the network's cores, nor have threads of OpenMP that keep the network's from
    # spinning. At its first computation a thread takes torch's default, whatever it has set, unless it has
    # asked for the number: so it asks here, where its own number still is the default.
    torch.set_num_threads(1)
    torch.get_num_threads()
    ready.set()
    for step in steps:
        batch = None if stop.is_set() else _attempt(source, step)
        if batch is None or not put_unless_stopped(batch, made, stop) or isinstance(batch, _Failure):
            return
    put_unless_stopped(None, made, stop)


def _end(
    thread: threading.Thread, made: "queue.Queue[Batch | _Failure | None]", stop: threading.Event
) -> None:
    stop.set()
    deadline = time.monotonic() + PATIENCE
    while thread.is_alive() and time.monotonic() < deadline:
        try:  # a thread that waits for a free place needs one to see that it should stop
            made.get_nowait()
        except queue.Empty:
            thread.join(0.02)


class _Processes:
    """Producer with several processes (torch's DataLoader), which notices if one is killed.

    Batches travel as bytes, in which tensors in shared memory are mere references. A worker turns each batch
    into bytes itself: torch would do so in a thread whose errors lose the batch, for which everybody would
    wait from then on.
    """

    def __init__(self, source: PatchSource, steps: range, workers: int, ahead: int) -> None:
        self._loader = DataLoader(
            _Steps(source, steps),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=ahead,
            # Forking a process that runs threads (torch, Blosc2) can deadlock; a fresh one cannot.
            multiprocessing_context="spawn",
            worker_init_fn=_heed_no_interrupt,
        )
        self._short_memory_said = False
        # torch would raise from a signal handler wherever the trainer happens to be; without the handler
        # it notices within five seconds, when the next batch is asked for.
        on_main = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
        handler = signal.getsignal(signal.SIGCHLD) if on_main else None
        self._batches: Any = iter(self._loader)
        if on_main:
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)

    def take(self) -> Batch | _Failure | None:
        """The next batch, or what went wrong with it; None after the last one and once closed."""
        if self._batches is None:
            return None
        try:
            sent: bytes | None = next(self._batches, None)
            made: Batch | _Failure | _Copied | None = None if sent is None else ForkingPickler.loads(sent)
        except (RuntimeError, OSError, EOFError) as error:
            # Errors of the patches come as values, so that this is one of the processes themselves.
            self.close()
            raise DataWorkerError(
                f"expected the data workers to keep running, found one that ended ({error}); it was probably "
                "killed for want of memory, or of shared memory in a container: start it with more of that "
                "(docker run --shm-size 8g) or use fewer --workers, and run the command again"
            ) from error
        return self._received(made) if isinstance(made, _Copied) else made

    def close(self) -> None:
        if self._batches is not None:
            self._batches._shutdown_workers()
            self._batches = None

    def _received(self, copied: "_Copied") -> Batch:
        """Return a batch that was sent through a pipe, and say once why it was."""
        if not self._short_memory_said:
            self._short_memory_said = True
            logger.warning(
                "patches are sent through pipes, which is slower: there is too little shared memory (%s); "
                "give a container more of it, such as docker run --shm-size 8g",
                copied.reason,
            )
        images, labels = torch.from_numpy(copied.images), torch.from_numpy(copied.labels)
        return Batch(images=images, labels=labels, cases=copied.cases)


def _heed_no_interrupt(_: int) -> None:
    """Ignore Ctrl-C, which reaches the whole process group; the trainer handles it and stops the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Steps(Dataset[bytes]):
    """Sequence of the batches of a source as bytes, for torch's DataLoader."""

    def __init__(self, source: PatchSource, steps: range) -> None:
        self._source, self._steps = source, steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, item: int) -> bytes:
        made = _attempt(self._source, self._steps[item])
        if isinstance(made, _Failure):
            return pickle.dumps(_Failure(error=portable(made.error)))
        return _sent(made)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Copied:
    """A batch that is sent itself, not as a reference to shared memory."""

    images: Float32[np.ndarray, "B C S P L"]
    labels: Integer[np.ndarray, "B S P L"]
    cases: tuple[str, ...]
    reason: str
    """Fault of shared memory, in words."""


def _sent(batch: Batch) -> bytes:
    """Turn a batch into bytes: a reference to shared memory, or the batch itself where there is no room."""
    try:
        return bytes(ForkingPickler.dumps(batch))
    except (RuntimeError, OSError) as error:
        reason = first_line(error)
        copied = _Copied(
            images=batch.images.numpy(), labels=batch.labels.numpy(), cases=batch.cases, reason=reason
        )
        return pickle.dumps(copied)
