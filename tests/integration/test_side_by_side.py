"""Folds side by side, told to stop and killed: each keeps what it has, and nobody is left behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from autospine.storage.tensors import load_facts
from trainers.checkpoints import CHECKPOINT
from trainers.fold_run import TRAINING_LOCK
from trainers.metrics_log import METRICS

TESTS = Path(__file__).parents[1]

SCRIPT = """
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})

if __name__ == "__main__":
    from dataclasses import replace

    from unit.trainers.test_cross_validation import FOLDS, SETTINGS, make_task

    from autospine.system.signals import heeding_signals
    from trainers.cross_validation import train_folds

    task = make_task(Path({folder!r}))
    with heeding_signals():
        train_folds(task, FOLDS[:2], replace(SETTINGS, epochs=5000, iterations=4, parallel=2))
"""

PATIENCE = 150.0
"""Seconds that anything here may take, on a busy machine too."""


def wait_for(what, message: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, message
        time.sleep(0.1)


def tell(process: "subprocess.Popen[bytes]", number: signal.Signals, *, group: bool) -> None:
    """Send a signal to the process, or to its group as a terminal and a scheduler do."""
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)


@pytest.mark.parametrize(
    ("number", "group"),
    [
        (signal.SIGINT, False),
        (signal.SIGKILL, False),
        (signal.SIGTERM, True),
        (signal.SIGUSR1, True),
    ],
)
@pytest.mark.timeout(400)
def test_every_fold_keeps_its_steps_and_no_process_is_left(tmp_path, number, group):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(tests=str(TESTS), folder=str(tmp_path)), encoding="utf-8")
    folds = [tmp_path / "results" / "fullres" / f"fold_{name}" for name in "01"]
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=TESTS.parent,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    children: list[psutil.Process] = []
    try:
        wait_for(
            lambda: all((fold / METRICS).is_file() and (fold / METRICS).stat().st_size for fold in folds),
            "expected both folds to train",
        )
        children = psutil.Process(process.pid).children(recursive=True)
        tell(process, number, group=group)
        process.wait(timeout=PATIENCE)
        wait_for(
            lambda: not any((fold / TRAINING_LOCK).exists() for fold in folds),
            "expected every fold to end its training",
        )
        _, alive = psutil.wait_procs(children, timeout=PATIENCE)
        assert not alive
    finally:
        for left in (process, *children):
            with suppress(psutil.Error):
                left.kill()
        process.wait()
    for fold in folds:
        facts = load_facts(fold / CHECKPOINT)
        # In the middle of an epoch, most likely: its steps are there as well.
        assert facts["step"] == 4 * facts["epochs"] + len(facts["begun"])
