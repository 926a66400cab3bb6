"""Processes of folds that end as stand-ins do: done, killed, silent, faulty or never."""

import os
import time

import pytest
import torch
from stand_ins import stand_in

from autospine.core.errors import FormatError, TrainingError
from autospine.dataset.splits import Fold
from autospine.system.workers import SPAWN, parent_lives
from trainers.fold_processes import FoldJob, FoldProcesses
from trainers.progress_report import ProgressReport
from trainers.schedule import NoTimeLeftError


def processes(*jobs: str, places: int = 2) -> tuple[FoldProcesses, list]:
    started = []

    def start(job, place, pipes):
        if job.fold.name == "refused":
            raise NoTimeLeftError("no time is left")
        process = SPAWN.Process(target=stand_in, args=(pipes, job.fold.name))
        process.start()
        started.append((job.fold.name, place, process))
        return process

    listed = [FoldJob(fold=Fold(name=name, training=(), validation=()), share=1, threads=1) for name in jobs]
    return FoldProcesses(listed, [torch.device("cuda", index) for index in range(places)], start), started


def until_done(running: FoldProcesses) -> None:
    deadline = time.monotonic() + 60
    while not running.wait(0.1):
        assert time.monotonic() < deadline


def test_folds_begin_where_a_device_is_free():
    running, started = processes("done", "done", "done", places=1)
    until_done(running)
    running.end()
    assert [(name, place.index) for name, place, _ in started] == [("done", 0)] * 3
    assert not any(process.is_alive() for _, _, process in started)


def test_the_newest_report_of_a_fold_is_known_after_its_end():
    running, _ = processes("reporting", "done")
    until_done(running)
    running.end()
    assert running.reports == {
        "reporting": ProgressReport(task="fold 0, training", share=0.5, text="step 2"),
        "done": ProgressReport(task="fold done", share=0.0, text="starting"),
    }


def test_messages_are_read_though_the_process_fails_right_afterwards(caplog):
    running, _ = processes("speaking")
    with pytest.raises(FormatError, match="case c is damaged"):
        until_done(running)
    running.end()
    running.messages.show(all_now=True)
    assert caplog.messages == ["fold speaking: the disk is slow"]


def test_a_fold_without_time_does_not_end_the_others():
    running, started = processes("late", "done", "refused", "done", places=1)
    until_done(running)
    running.end()
    assert [fold.name for fold in running.late] == ["late", "refused"]
    assert [name for name, _, _ in started] == ["late", "done", "done"]
    assert running.reports["late"].text == running.reports["refused"].text == "no time is left"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("what", "error", "says"),
    [
        ("killed", TrainingError, "fold killed killed, .*--parallel 1"),
        ("silent", TrainingError, "fold silent killed, .*--parallel 1"),
        ("faulty", FormatError, "case c is damaged"),
    ],
)
def test_a_fold_that_fails_ends_the_others_and_nobody_is_waited_for(what, error, says):
    running, started = processes("endless", what)
    try:
        with pytest.raises(error, match=says):
            until_done(running)
    finally:
        began = time.monotonic()
        running.end()
    assert time.monotonic() < began + 30
    assert not any(process.is_alive() for _, _, process in started)


def test_workers_that_are_gone_do_not_hold_up_the_end():
    running, started = processes("endless", "endless")
    assert not running.wait(0)
    started[0][2].kill()
    running.end()
    assert not any(process.is_alive() for _, _, process in started)
    assert not parent_lives()


def test_what_the_validation_of_a_fold_has_shown_is_handed_on():
    noted = []
    running, _ = processes("measured", "done", "late", places=1)
    running.note = noted.append
    until_done(running)
    running.end()
    assert noted == [1.5, None]
