import logging
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autospine.core.errors import AutospineError
from autospine.system.fresh_process import ProcessKilledError, call_in_fresh_process

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")

PARENT = """
import time
from autospine.system.fresh_process import call_in_fresh_process

call_in_fresh_process(time.sleep, 600)
"""


def test_the_result_comes_from_another_process():
    assert call_in_fresh_process(math.sqrt, 9.0) == 3.0
    assert call_in_fresh_process(os.path.realpath, "/proc/self") != os.path.realpath("/proc/self")


def test_what_the_function_raises_is_raised():
    with pytest.raises(ValueError, match=r"domain|negative|expected"):
        call_in_fresh_process(math.sqrt, -1.0)


def warn(number: int) -> int:
    logger = logging.getLogger("autospine.anything")
    logger.info("not sent")
    logger.warning("%d of %s", number, Path("few"))
    return number


def test_what_the_process_warns_of_is_logged_here(caplog):
    assert call_in_fresh_process(warn, 3) == 3
    (record,) = [each for each in caplog.records if each.name == "autospine.anything"]
    assert (record.getMessage(), record.levelname) == ("3 of few", "WARNING")
    assert record.process != os.getpid()


def test_a_process_that_ends_without_a_word_is_said():
    with pytest.raises(ProcessKilledError, match="found it killed, probably for want of memory"):
        call_in_fresh_process(os._exit, 1)
    assert issubclass(ProcessKilledError, AutospineError)


def test_a_call_that_nobody_wants_any_more_is_ended():
    began = time.monotonic()
    with pytest.raises(ProcessKilledError, match="told to end; run the same command again"):
        call_in_fresh_process(time.sleep, 600, unwanted=lambda: time.monotonic() > began + 3)
    assert time.monotonic() < began + 60


def test_the_process_ends_with_the_one_that_asked_for_it():
    with subprocess.Popen([sys.executable, "-c", PARENT]) as parent:
        try:
            child = wait_for(lambda: next(iter(psutil.Process(parent.pid).children()), None))
            wait_for(lambda: "fresh_process" in " ".join(child.cmdline()))
            time.sleep(1)
        finally:
            parent.kill()
    assert wait_for(lambda: not lives(child))


def lives(process: psutil.Process) -> bool:
    """Also where nobody collects what has ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds: float = 60):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found
