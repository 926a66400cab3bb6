"""A call in a fresh process that ends with the one that asked for it.

`multiprocessing` starts such processes everywhere but in daemons, as the workers of Dask are. A process of
this module can be started there, and may start others of its own.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

from autospine.core.errors import AutospineError
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


def call_in_fresh_process(
    function: Callable[[Any], Any], argument: Any, unwanted: Callable[[], bool] = lambda: False
) -> Any:
    """Call a function in a fresh process; its output goes where that of this process goes.

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
            while not ours.poll(LOOK_SECONDS):
                if unwanted():
                    process.terminate()
                    if not ours.poll(STOP_SECONDS):
                        process.kill()
                    break
            returned, outcome = ours.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise ProcessKilledError(
                "expected a process to finish, found it killed, probably for want of memory; give it more"
            ) from None
        finally:
            ours.close()  # which ends a process that is still there
            _await(process)
    if not returned:
        raise outcome
    return outcome


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
    answer: tuple[bool, Any]
    try:
        with heeding_signals():
            function, argument = parent.recv()
            threading.Thread(target=_end_with, args=(parent, answered), daemon=True).start()
            answer = True, function(argument)
    except KeyboardInterrupt:
        answer = (
            False,
            ProcessKilledError(
                "expected a process to finish, found it told to end; run the same command again to go on"
            ),
        )
    except BaseException as raised:
        answer = False, portable(raised)
    answered.set()
    with suppress(OSError):  # the parent is gone
        parent.send(answer)


def _end_with(parent: Connection, answered: threading.Event) -> None:
    """Do what SIGTERM does once the parent is gone: the work stops where it can go on later."""
    with suppress(EOFError, OSError):
        parent.poll(None)  # nothing is sent, so that this is the end
    if not answered.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
