import signal
import threading

import pytest

from trainers.interruption import SIGNALS, postponed


@pytest.fixture
def heard():
    """Signals that reached the handlers that were there before."""
    numbers = []
    before = {number: signal.signal(number, lambda n, _: numbers.append(n)) for number in SIGNALS}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_until_the_block_is_done(heard, number):
    done = []
    with pytest.raises(KeyboardInterrupt), postponed() as interruption:
        assert not interruption.wanted
        signal.raise_signal(number)
        assert interruption.wanted
        assert not heard
        done.append("checkpoint")
    assert done
    assert heard == [number]


def test_a_second_signal_does_not_wait(heard):
    with pytest.raises(KeyboardInterrupt), postponed():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]


def test_without_a_signal_nothing_happens(heard):
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with postponed() as interruption:
        pass
    assert not interruption.wanted
    assert not heard
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_an_error_is_not_hidden(heard):
    with pytest.raises(ValueError, match="mine"), postponed():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("mine")


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with postponed() as interruption:
            signal.raise_signal(signal.SIGINT)
        assert not interruption.wanted
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_postpone_nothing():
    seen = []

    def work():
        with postponed() as interruption:
            seen.append(interruption.wanted)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
