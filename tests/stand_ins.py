"""What processes do in the place of folds; it imports little, so that they start at once."""

import logging
import os
import signal
from typing import Any

from autospine.core.errors import FormatError
from trainers.fold_messages import FoldMessage
from trainers.progress_report import ProgressReport
from trainers.schedule import NoTimeLeftError


def stand_in(pipes: Any, what: str) -> None:
    """End in one way or the other, or last until the pipe says stop."""
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "silent":
        os._exit(0)
    if what == "faulty":
        pipes.outcome.send(FormatError("case c is damaged"))
    if what == "done":
        pipes.outcome.send(None)
    if what == "measured":
        pipes.outcome.send(1.5)
    if what == "reporting":
        pipes.reports.send(ProgressReport(task="fold 0, training", share=0.25, text="step 1"))
        pipes.reports.send(ProgressReport(task="fold 0, training", share=0.5, text="step 2"))
        pipes.outcome.send(None)
    if what == "speaking":
        text = "fold speaking: the disk is slow"
        pipes.reports.send(FoldMessage(logger="trainers.data", level=logging.WARNING, text=text))
        pipes.outcome.send(FormatError("case c is damaged"))
    if what == "late":
        pipes.outcome.send(NoTimeLeftError("no time is left for fold late"))
    if what == "endless":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pipes.stop.poll(60)
