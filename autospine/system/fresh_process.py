"""A call in a fresh process that ends with the one that asked for it.

`multiprocessing` starts such processes everywhere but in daemons, as the workers of Dask are. A process of
this module can be started there, and may start others of its own.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from multiprocessing.connection import Connection, Pipe
from typing import Any, NamedTuple

from autospine.core.errors import AutospineError
from autospine.system.log import PACKAGES
from autospine.system.signals import heeding_signals
from autospine.system.workers import portable

LOOK_SECONDS = 0.5
"""Time between two looks at whether the call is still wanted."""

STOP_SECONDS = 600.0
"""Time that a process has to finish what it is at once it is told to stop."""

BEGIN = "from autospine.system.fresh_process import main; main()"
"""Code of a process. Run as a script, this module would be another one there than here."""


class ProcessKilledError(AutospineError):
    """A process was killed, or ended without a word."""


class _Answer(NamedTuple):
    """What the function has returned or raised."""

    returned: bool
    outcome: Any


class _Told(logging.Handler):
    """Sends what is logged to the process that asked for this one."""

    def __init__(self, parent: Connection) -> None:
        super().__init__(logging.WARNING)
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, with its text alone, as its arguments may be of any kind."""
        plain = copy(record)
        plain.msg, plain.args, plain.exc_info = record.getMessage(), None, None
        with suppress(OSError):  # the parent is gone
            self._parent.send(plain)


def call_in_fresh_process(
    function: Callable[[Any], Any], argument: Any, unwanted: Callable[[], bool] = lambda: False
) -> Any:
    """Call a function in a fresh process; what it logs from warnings on is logged here.

    Args:
        function: A function of a module.
        argument: Its argument, which is sent to the process.
        unwanted: Tells whether nobody waits for the result any more. The process then gets SIGTERM, as it
            does when this process ends, and has `STOP_SECONDS` to end.

    Returns:
        What the function returns.

    Raises:
        ProcessKilledError: If the process was killed.
        Exception: What the function raises.
    """
    ours, theirs = Pipe()
    with ours:
        process = subprocess.Popen(
            (sys.executable, "-c", BEGIN, str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        try:
            ours.send((function, argument))
            received: object = None
            while not isinstance(received, _Answer):
                while not ours.poll(LOOK_SECONDS):
                    if unwanted():
                        process.terminate()
                        if not ours.poll(STOP_SECONDS):
                            process.kill()
                        break
                received = ours.recv()
                if isinstance(received, logging.LogRecord):
                    logging.getLogger(received.name).handle(received)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise ProcessKilledError(
                "expected a process to finish, found it killed, probably for want of memory; give it more"
            ) from None
        finally:
            ours.close()  # which ends a process that is still there
            _await(process)
    if not received.returned:
        raise received.outcome
    return received.outcome


def _await(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Answer one call; a process begins here."""
    parent = Connection(int(sys.argv[1]))
    answered = threading.Event()
    for package in PACKAGES:
        logging.getLogger(package).handlers = [_Told(parent)]
        logging.getLogger(package).propagate = False
    try:
        with heeding_signals():
            function, argument = parent.recv()
            threading.Thread(target=_end_with, args=(parent, answered), daemon=True).start()
            answer = _Answer(True, function(argument))
    except KeyboardInterrupt:
        answer = _Answer(
            False,
            ProcessKilledError(
                "expected a process to finish, found it told to end; run the same command again to go on"
            ),
        )
    except BaseException as raised:
        answer = _Answer(False, portable(raised))
    answered.set()
    with suppress(OSError):  # the parent is gone
        parent.send(answer)


def _end_with(parent: Connection, answered: threading.Event) -> None:
    """Do what SIGTERM does once the parent is gone: the work stops where it can go on later."""
    with suppress(EOFError, OSError):
        parent.poll(None)  # nothing is sent, so that this is the end
    if not answered.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
