"""What a thousand cases cost, stage by stage, against a hundred: part of `make bench-trust`.

Small CT volumes with four classes are written as a dataset of 10, of 100 and of 1,000 cases. Each stage runs
on each of them as a command of its own; counted are the seconds of the processor that it and all that it
starts take, and the most memory of one process. `growth_exponent` is the slope of log seconds against log
cases from 100 to 1,000 cases, both beyond those of 10, 1 being linear, of the stage in which it is largest.

`small_case_overhead_seconds` is what `predict` with the starter takes for a scan beside the time from its
image in memory to its labels, in the mean over 100 small scans of one command.
"""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from processes import Facts

from autospine.core.geometry import IDENTITY, Grid, triple
from autospine.io.images import write_array

COMMAND = (sys.executable, "-c", "import sys; from autospine.cli import main; sys.exit(main())")
DATASET = "Dataset001_Many"
COUNTS = (10, 100, 1000)
SCANS = 100
SHAPE, SPACING = (24, 20, 16), (3.0, 2.0, 2.0)
MEASURABLE = 0.1
"""Least share by which a thousand cases take longer than ten, for a command to depend on them."""

NOISE_SECONDS = 0.1
"""Least difference that is taken for one."""

REPEATS = {"plan": 3}
"""Times that a stage is run, where other work than that on the cases takes most of its time: `plan` times
steps of training. The least seconds count."""

LABELS = {"background": 0, "vertebra": 1, "disc": 2, "canal": 3}

STAGES: dict[str, tuple[str, ...]] = {
    "fingerprint": ("fingerprint", "-d", "1"),
    "plan": ("plan", "-d", "1", "--memory", "2GB", "--device", "cpu"),
    "preprocess": ("preprocess", "-d", "1", "-j", "1"),
    "evaluate": (
        "evaluate",
        f"raw/{DATASET}/labelsTr",
        f"raw/{DATASET}/labelsTr",
        "-o",
        "scores",
        "--no-report",
    ),
    "report": ("report", "scores"),
}


def measure(root: Path) -> Facts:
    """Return the figures, and seconds and memory of each stage.

    Args:
        root: An empty folder.
    """
    stages: dict[str, dict[int, dict[str, float]]] = {name: {} for name in STAGES}
    for count in COUNTS:
        workspace = root / str(count)
        write_dataset(workspace / "raw" / DATASET, count)
        for name, words in STAGES.items():
            runs = [run(workspace, *words) for _ in range(REPEATS.get(name, 1))]
            stages[name][count] = {key: min(each[key] for each in runs) for key in runs[0]}
            print(count, name, stages[name][count], file=sys.stderr)  # noqa: T201
    exponents = {
        name: exponent({n: each["seconds"] for n, each in by_count.items()})
        for name, by_count in stages.items()
    }
    return {
        "growth_exponent": round(max(exponents.values()), 3),
        "exponents": {name: round(value, 3) for name, value in exponents.items()},
        "stages": stages,
        "small_case_overhead_seconds": round(overhead(root / str(SCANS)), 3),
    }


def write_dataset(folder: Path, count: int, enlarged: int = 1) -> None:
    """Write a dataset of small cases, alike in their anatomy and each with noise and a place of its own.

    Args:
        folder: Its folder.
        count: Number of cases.
        enlarged: Voxels along each axis for one of the smallest cases.
    """
    shape = triple(n * enlarged for n in SHAPE)
    spacing = triple(mm / enlarged for mm in SPACING)
    grid = Grid(shape=shape, spacing_mm=spacing, origin_mm=(0.0, 0.0, 0.0), direction=IDENTITY)
    for number in range(count):
        random = np.random.default_rng(number)
        labels = np.zeros(SHAPE, dtype=np.uint8)
        left = int(random.integers(2, 5))
        for bottom in range(1, 18, 6):
            labels[bottom : bottom + 5, 4:10, left : left + 8] = 1
            labels[bottom + 5, 4:10, left : left + 8] = 2
        labels[1:23, 11:14, left + 2 : left + 6] = 3
        for axis in range(3):
            labels = labels.repeat(enlarged, axis)
        hu = np.array([0, 350, 80, 20], dtype=np.float32)[labels]
        image = (hu + random.normal(0, 20, shape)).astype(np.int16)
        write_array(folder / f"imagesTr/case_{number:04d}_0000.nii.gz", image, grid)
        write_array(folder / f"labelsTr/case_{number:04d}.nii.gz", labels, grid)
    described = {
        "channel_names": {"0": "CT"},
        "labels": LABELS,
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")


def run(workspace: Path, *words: str) -> dict[str, float]:
    """Run a command; return the processor's seconds of all its processes, and the most memory of one.

    Raises:
        SystemExit: If it fails.
    """
    messages = workspace / "messages.txt"
    with messages.open("wb") as file:
        process = subprocess.Popen((*COMMAND, *words), cwd=workspace, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(messages.read_text(encoding="utf-8"))
    return {
        "seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "gb": round(usage.ru_maxrss * 1024 / 1e9, 3),
    }


def exponent(seconds: dict[int, float]) -> float:
    """Return the exponent by which seconds grow with the cases, 1 being linear; 0 where they do not.

    Seconds and cases are counted beyond those of the smallest dataset, so that what a command takes for no
    case is not among them.

    Args:
        seconds: Seconds by the number of cases, of three datasets.
    """
    few, some, many = sorted(seconds)
    most = seconds[many] - seconds[few]
    if most < MEASURABLE * seconds[few]:
        return 0.0
    part = max(seconds[some] - seconds[few], NOISE_SECONDS)
    return math.log(most / part) / math.log((many - few) / (some - few))


def overhead(workspace: Path) -> float:
    """Return the seconds that a small scan takes in `predict` beside those of the case itself."""
    words = ("predict", "-i", f"raw/{DATASET}/imagesTr", "-o", "out", "-m", "starter", "--device", "cpu")
    began = time.monotonic()
    run(workspace, *words, "--no-report")
    whole = time.monotonic() - began
    record = json.loads((workspace / "out/predictions.json").read_text(encoding="utf-8"))
    return (whole - sum(case["seconds"] for case in record["cases"])) / len(record["cases"])
