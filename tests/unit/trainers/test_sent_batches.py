import threading

import pytest
import torch

from autospine.data import Batch
from trainers.sent_batches import SentBatches


def batch(number: int) -> Batch:
    shape = (1, 1, 2, 2, 2)
    return Batch(
        images=torch.full(shape, float(number)),
        labels=torch.zeros(1, 2, 2, 2, dtype=torch.uint8),
        cases=("a",),
    )


def here(made: Batch):
    """Stands for a transfer: the batch arrives where it was."""
    return lambda: made


def numbers(batches) -> list[float]:
    return [float(made.images.max()) for made in batches]


def test_all_batches_arrive_in_order_and_then_no_more():
    sent = SentBatches(iter([batch(i) for i in range(5)]), here)
    assert numbers(sent) == [0, 1, 2, 3, 4]
    assert next(sent, None) is None
    assert sent.seconds_waited >= 0
    sent.close()


def test_a_batch_is_sent_while_the_one_before_is_used():
    begun = threading.Event()

    def send(made: Batch):
        if made.images.max() == 1:
            begun.set()
        return here(made)

    sent = SentBatches(iter([batch(0), batch(1)]), send)
    next(sent)
    assert begun.wait(5), "the second batch is sent before it is asked for"
    sent.close()


def test_errors_arrive_where_their_batch_would_have():
    def broken():
        yield batch(0)
        raise ValueError("a case that cannot be read")

    sent = SentBatches(broken(), here)
    assert next(sent).images.max() == 0
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot be read"):
            next(sent)
    sent.close()


def test_closing_ends_the_thread():
    sent = SentBatches(iter([batch(i) for i in range(100)]), here)
    next(sent)
    sent.close()
    assert not any(thread.name == "sending" for thread in threading.enumerate())
