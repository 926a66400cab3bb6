"""Measure what neighbours cost: prediction and training steps beside one endless loop per core.

A small planned network is trained for a few steps on a phantom, then `autospine predict` and `autospine
train` run alone and beside the loops in turn, so that other work on the machine disturbs both alike. A busy
machine leaves a program that uses all cores half of each, so that 2 is the best ratio that there can be. The
cost on an idle machine is measured against OpenMP's own waiting. Takes less than ten minutes on two cores.
Prints one JSON object last: the times in seconds, `busy_ratio` of each activity and `idle_cost` of each.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autospine.system.hardware import cores

COMMAND = (sys.executable, "-c", "import sys; from autospine.cli import main; sys.exit(main())")

LIBRARY_WAITING = {"GOMP_SPINCOUNT": "300000"}
"""What libgomp does of itself, as a choice of the user's: AutoSpine leaves it alone."""

STEPS = 10
"""Steps of an epoch that is timed, and of the one before it that warms up."""


def main() -> None:
    """Make a model, time it in turn, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it, for further runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary)
        if not (root / "results").is_dir():
            prepare(root)
        print(json.dumps(measure(root, arguments.repeats)))  # noqa: T201 (a script's result)


def prepare(root: Path) -> None:
    """Plan and train a small network on phantoms, in the workspace `root`."""
    root.mkdir(parents=True, exist_ok=True)
    phantoms = ("-n", "5", "--test-cases", "1", "--modality", "CT", "--labels", "structures")
    run(root, {}, "phantom", "-o", "raw/Dataset001_Phantom", *phantoms)
    size = ("--patch", "64", "64", "64", "--feature-size", "12")
    run(root, {}, "plan-and-preprocess", "-d", "1", "--memory", "3GB", *size)
    run(root, {}, "train", "fullres", "--fold", "full", "--epochs", "1", "--iterations", "2")


def measure(root: Path, repeats: int) -> dict[str, object]:
    """Return the times of each activity in each condition, and their ratios."""
    activities: dict[str, Callable[[Path, dict[str, str]], float]] = {
        "predict": predict_seconds,
        "training_step": step_seconds,
    }
    figures: dict[str, object] = {"cores": cores(), "repeats": repeats, "busy_ratio": {}, "idle_cost": {}}
    for name, seconds in activities.items():
        times: dict[str, list[float]] = {"idle": [], "busy": [], "idle_library": []}
        for _ in range(repeats):
            times["idle"].append(seconds(root, {}))
            times["idle_library"].append(seconds(root, LIBRARY_WAITING))
            with neighbours(cores()):
                times["busy"].append(seconds(root, {}))
        median = {key: statistics.median(values) for key, values in times.items()}
        ratios = {
            "busy_ratio": median["busy"] / median["idle"],
            "idle_cost": median["idle"] / median["idle_library"],
        }
        figures[name] = times
        for key, ratio in ratios.items():
            of_all = figures[key]
            assert isinstance(of_all, dict)
            of_all[name] = round(ratio, 3)
        print(name, times, ratios, file=sys.stderr)  # noqa: T201
    return figures


def predict_seconds(root: Path, waiting: dict[str, str]) -> float:
    """Time `autospine predict`, from its start to its end."""
    output = root / "predictions"
    shutil.rmtree(output, ignore_errors=True)
    began = time.monotonic()
    run(root, waiting, "predict", "-i", "raw/Dataset001_Phantom/imagesTs", "-o", str(output), "-f", "full")
    return time.monotonic() - began


def step_seconds(root: Path, waiting: dict[str, str]) -> float:
    """Time a training step of `autospine train`: the mean over an epoch, after a first one to warm up."""
    fold = root / "results" / "Dataset001_Phantom" / "fullres" / "fold_full"
    kept = root / "kept"
    if not kept.is_dir():
        shutil.copytree(fold, kept)
    shutil.rmtree(fold)
    options = ("--epochs", "2", "--iterations", str(STEPS))
    run(root, waiting, "train", "fullres", "--fold", "full", *options)
    row = json.loads((fold / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return float(row["seconds"]) / STEPS


@contextmanager
def neighbours(number: int) -> Iterator[None]:
    """Run loops beside the block that have no end but this process's own."""
    loop = f"while [ -d /proc/{os.getpid()} ]; do :; done"
    loops = [subprocess.Popen(["sh", "-c", loop]) for _ in range(number)]
    try:
        yield
    finally:
        for process in loops:
            process.kill()
            process.wait()


def run(root: Path, waiting: dict[str, str], *words: str) -> None:
    """Run a command that has to succeed in the workspace; its messages go to a file."""
    messages = root / "messages.txt"
    with messages.open("ab") as file:
        command = (*COMMAND, *words)
        done = subprocess.run(command, cwd=root, stdout=file, stderr=file, env=os.environ | waiting)
    if done.returncode:
        raise SystemExit(messages.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
