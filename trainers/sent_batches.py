"""Batches on their way to a GPU: the next one is pinned and sent while a step runs."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from autospine.data import Batch
from autospine.data.awaited_batches import AwaitedBatches, put_unless_stopped

PATIENCE = 10.0
"""Seconds that the thread has to end."""

Arrival = Callable[[], Batch]
"""Lets the present stream of the device wait for a batch that has been sent, and returns it there."""


class SentBatches(AwaitedBatches):
    """Iterator over batches that are sent to a device by a thread, one ahead; `close` it.

    Args:
        batches: The batches, in order; only the thread takes from them.
        send: Begins to send a batch, in the thread, and returns how to receive it.
    """

    def __init__(self, batches: Iterator[Batch], send: Callable[[Batch], Arrival]) -> None:
        super().__init__()
        self._sent: queue.Queue[Arrival | Exception | None] = queue.Queue(1)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_send_all, args=(batches, send, self._sent, self._stop), name="sending", daemon=True
        )
        self._thread.start()

    def __next__(self) -> Batch:
        """Wait for the next batch.

        Raises:
            StopIteration: If there is none.
            Exception: The error that was raised while the batch was made or sent.
        """
        arrival = self._wait_for(self._sent.get)
        if arrival is None or isinstance(arrival, Exception):
            self._sent.put(arrival)  # the thread has ended; whoever asks again is told the same
            if arrival is None:
                raise StopIteration
            raise arrival
        return arrival()

    def close(self) -> None:
        """End the thread; may be called more than once."""
        self._stop.set()
        self._thread.join(PATIENCE)


def _send_all(
    batches: Iterator[Batch],
    send: Callable[[Batch], Arrival],
    sent: "queue.Queue[Arrival | Exception | None]",
    stop: threading.Event,
) -> None:
    last: Exception | None = None
    try:
        for batch in batches:
            if not put_unless_stopped(send(batch), sent, stop):
                return
    except Exception as error:
        last = error
    put_unless_stopped(last, sent, stop)


def sender(device: torch.device) -> Callable[[Batch], Arrival]:
    """Return the function that sends a batch to a GPU from pinned memory, on a stream of its own."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(batch: Batch) -> Arrival:
        """Begin to copy a batch, and return the function that waits for it."""
        pinned = [batch.images.pin_memory(), batch.labels.pin_memory()]
        with torch.cuda.stream(stream):
            images, labels = (tensor.to(device, non_blocking=True) for tensor in pinned)
        arrived = stream.record_event()

        def receive() -> Batch:
            """Let the present stream wait for the copy, and return the batch on the GPU."""
            present = torch.cuda.current_stream(device)
            present.wait_event(arrived)
            for tensor in (images, labels):
                tensor.record_stream(present)  # its memory is not given away while the step uses it
            return replace(batch, images=images, labels=labels)

        return receive

    return send
