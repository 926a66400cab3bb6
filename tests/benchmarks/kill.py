"""A training that is killed at random moments ends with the weights of one that never was.

Run by `make bench-training`. Prints one JSON object last: whether the weights are equal, bit for bit, the
most finished epochs that a kill has cost, and the most seconds since the last checkpoint.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from autospine.storage.tensors import load_tensors
from autospine.storage.trained_models import WEIGHTS
from trainers.checkpoints import Checkpoints
from trainers.metrics_log import METRICS, read_rows

COMMAND = (sys.executable, "-c", "import sys; from autospine.cli import main; sys.exit(main())")
FOLDER = Path("results/Dataset001_Phantom/fullres/fold_full")
ITERATIONS = 4
EPOCHS_PER_KILL = 3
"""A kill falls within so many epochs after training has begun."""


def main() -> None:
    """Train once undisturbed and once killed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        figures = measure(Path(root), arguments.kills, random.Random(arguments.seed))
    print(json.dumps(figures))  # noqa: T201 (a script's result)


def measure(root: Path, kills: int, moments: random.Random) -> dict[str, object]:
    """The figures for a number of kills."""
    run(
        root,
        "phantom",
        "-o",
        "raw/Dataset001_Phantom",
        "-n",
        "5",
        "--modality",
        "CT",
        "--labels",
        "structures",
    )
    size = ("--patch", "32", "32", "32", "--feature-size", "8")
    run(root, "plan-and-preprocess", "-d", "1", "--memory", "2GB", *size)
    epochs = (EPOCHS_PER_KILL // 2 + 1) * (kills + 1)
    training = ("train", "fullres", "--fold", "full", "--deterministic")
    training += ("--epochs", str(epochs), "--iterations", str(ITERATIONS))
    run(root, *training)
    folder = root / FOLDER
    seconds = sorted(row["seconds"] for row in read_rows(folder))[epochs // 2]
    expected = load_tensors(folder / WEIGHTS)[0]
    folder.rename(root / "undisturbed")

    lost, seconds_lost = [], []
    for _ in range(kills):
        process = start(root, *training)
        began = wait_until_training(process, folder / METRICS)
        time.sleep(moments.uniform(0, EPOCHS_PER_KILL * seconds))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        killed = time.time()
        process.wait()
        finished, written = lost_at(folder)
        lost.append(finished)
        seconds_lost.append(killed - max(written, began))
    run(root, *training)
    found = load_tensors(folder / WEIGHTS)[0]
    equal = len(lost) == kills and found.keys() == expected.keys()
    equal = equal and all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    return {
        "kill_resume_equal": equal,
        "most_finished_epochs_lost": max(lost, default=0),
        "most_seconds_lost": round(max(seconds_lost, default=0.0), 2),
        "kills": len(lost),
        "epochs": epochs,
        "seconds_per_epoch": seconds,
    }


def start(root: Path, *words: str) -> "subprocess.Popen[bytes]":
    """A command of AutoSpine in the workspace, its messages kept in a file."""
    with (root / "messages.txt").open("ab") as messages:
        return subprocess.Popen((*COMMAND, *words), cwd=root, stdout=messages, stderr=messages)


def run(root: Path, *words: str) -> None:
    """A command that has to succeed."""
    if start(root, *words).wait():
        raise SystemExit((root / "messages.txt").read_text(encoding="utf-8"))


def wait_until_training(process: "subprocess.Popen[bytes]", record: Path) -> float:
    """Return once the process has opened its record, which is just before its first step; when that was."""
    before = record.stat().st_mtime_ns if record.is_file() else None
    while process.poll() is None:
        if record.is_file() and record.stat().st_mtime_ns != before:
            break
        time.sleep(0.02)
    return time.time()


def lost_at(folder: Path) -> tuple[int, float]:
    """Finished epochs that are in no checkpoint, and when the last checkpoint was written, 0 without one.

    An epoch begins once the checkpoint of the one before it is written. So a kill costs a finished epoch,
    while its checkpoint is written, or a part of one that is not finished: at most one epoch in either case.
    """
    found = Checkpoints(folder).load()
    if found is None:
        return len(read_rows(folder)), 0.0
    return len(read_rows(folder)) - int(found[1]["epochs"]), found[2].stat().st_mtime


if __name__ == "__main__":
    main()
