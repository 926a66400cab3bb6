"""Reports of a silent process, through a real pipe."""

import logging
import time

import pytest

from autospine.system import log
from autospine.system.workers import SPAWN
from trainers import progress_report
from trainers.fold_messages import FoldMessage
from trainers.progress_report import ProgressReport, Reporter


@pytest.fixture
def pipe(monkeypatch):
    """Both ends of a pipe, through which reports go often."""
    monkeypatch.setattr(progress_report, "REPORT_SECONDS", 0.01)
    read, written = SPAWN.Pipe(duplex=False)
    yield read, written
    read.close()
    written.close()


def received(read, expected: ProgressReport) -> bool:
    """Return whether a report comes within some seconds; reports before it may be left out."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if read.poll(0.1) and read.recv() == expected:
            return True
    return False


def test_a_silent_process_reports_its_progress(pipe, monkeypatch):
    monkeypatch.setattr(log, "_handed_on", None)
    monkeypatch.setattr(log.CONSOLE, "quiet", True)
    monkeypatch.setattr(log, "PACKAGES", ())  # the loggers of other tests go on
    read, written = pipe
    log.silence(Reporter(written).meter)
    with log.progress("fold 0, training", 100, done=20) as meter:
        meter.advance(30)
        meter.update("step 5 of 10")
        assert received(read, ProgressReport(task="fold 0, training", share=0.5, text="step 5 of 10"))
        meter.advance(60)
        assert received(read, ProgressReport(task="fold 0, training", share=1.0, text="step 5 of 10"))
    assert list(log.track([1, 2], "fold 0, validation")) == [1, 2]
    assert received(read, ProgressReport(task="fold 0, validation", share=1.0, text=""))


def test_log_records_of_a_silent_process_go_through_the_pipe(pipe, monkeypatch):
    monkeypatch.setattr(progress_report, "PACKAGES", ("silent_process",))
    monkeypatch.setattr(progress_report, "REPORT_SECONDS", 1000.0)
    read, written = pipe
    reporter = Reporter(written)
    reporter.take_messages(logging.INFO)
    logger = logging.getLogger("silent_process.learner")
    logger.debug("not shown")
    logger.info("step %d", 3)
    reporter.close()
    assert read.poll(20)
    assert read.recv() == FoldMessage(logger="silent_process.learner", level=logging.INFO, text="step 3")
    assert not read.poll()


def test_nobody_is_waited_for(pipe):
    """The pipe fills up and then breaks."""
    read, written = pipe
    meter = Reporter(written).meter("fold 0, training", 100, 0)
    began = time.monotonic()
    for number in range(1000):
        meter.update(f"{number} " * 1000)
    read.close()
    meter.advance()
    assert time.monotonic() < began + 10
