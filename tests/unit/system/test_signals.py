import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from autospine.system.signals import SIGNALS, heeding_signals, own_handlers

ASKING = [number for number in SIGNALS if number != signal.SIGINT]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def not_ignored() -> Iterator[None]:
    """Take signals as a program does that was not started with `nohup`."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ASKING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_interrupts_as_ctrl_c_does_and_is_known_afterwards(number):
    with pytest.raises(KeyboardInterrupt), heeding_signals() as come:
        signal.raise_signal(number)
    assert come == [number]
    assert signal.getsignal(number) == signal.SIG_DFL


def test_ignored_signals_stay_ignored_and_handlers_of_others_stay():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heard: list[int] = []
    other = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        with heeding_signals() as come:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGUSR1)
        assert (come, heard) == ([], [signal.SIGUSR1])
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGUSR1, other)


def test_other_threads_heed_nothing():
    seen = []

    def work() -> None:
        with heeding_signals() as come:
            seen.append((come, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [([], signal.SIG_DFL)]


COMMAND = """
import signal, sys
from autospine.cli import app

@app.app.command()
def info() -> None:
    signal.raise_signal(signal.Signals[sys.argv[1]])

app.load_commands = lambda name: None
sys.exit(app.main(["info"]))
"""


@pytest.mark.parametrize("number", ASKING)
def test_the_exit_code_of_a_command_names_the_signal(number):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, number.name], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 128 + number
    assert done.stderr == "autospine: interrupted; run the same command again to go on\n"


def test_an_import_that_takes_ctrl_c_for_itself_has_not_taken_it():
    with pytest.raises(ImportError), own_handlers():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: None)
        raise ImportError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
