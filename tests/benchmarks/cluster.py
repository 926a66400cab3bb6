"""Sixty cases on a Dask cluster of three workers on this machine, against three processes without it.

Part of `make bench-trust`; `tests/benchmarks/trust.py --only cluster` measures it alone. The dataset is
preprocessed and its images are predicted with the starter, three times: by `--workers 3` and by three
`--part`s at once; on the workers; and on the workers while one of them is killed in the middle of each
command.

- `cluster_cases_equal`: cases whose stored arrays and whose label map are there after the killed workers,
  with the content of the first run.
- `cluster_overhead`: seconds on the workers beyond those of the first run, as a share of these; of both
  commands together, without the killing.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from growth import COMMAND, DATASET, write_dataset
from processes import Facts

CASES, WORKERS = 60, 3
ENLARGED = 4
"""Times that each axis of a small volume is longer."""

PREPROCESS = ("preprocess", "-d", "1", "--workers", str(WORKERS))
PREDICT = (
    "predict",
    "-i",
    f"raw/{DATASET}/imagesTr",
    "-m",
    "starter",
    "--device",
    "cpu",
    "--no-report",
    "-o",
)


def measure(root: Path) -> Facts:
    """Return the figures.

    Args:
        root: An empty folder.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # as many threads as each worker has
    workspace = root / "workspace"
    write_dataset(workspace / "raw" / DATASET, CASES, ENLARGED)
    finished(start(workspace, "plan-and-preprocess", "-d", "1", "--memory", "2GB", "--device", "cpu"))
    stored = stored_cases(workspace)
    stored.rename(root / "unused")
    with scheduler(root) as address:
        elsewhere = ("--scheduler", address)
        seconds = {
            "preprocess, here": timed(workspace, PREPROCESS),
            "predict, here": timed(
                workspace, *((*PREDICT, "here", "--part", f"{n}/{WORKERS}") for n in range(1, WORKERS + 1))
            ),
        }
        stored.rename(root / "here")
        seconds["preprocess, there"] = timed(workspace, (*PREPROCESS, *elsewhere))
        stored.rename(root / "there")
        seconds["predict, there"] = timed(workspace, (*PREDICT, "there", *elsewhere))
        killed_once(start(workspace, *PREPROCESS, *elsewhere), seconds["preprocess, there"] / 2)
        killed_once(start(workspace, *PREDICT, "killed", *elsewhere), seconds["predict, there"] / 2)
    print(seconds, file=sys.stderr)  # noqa: T201
    here, there = (
        sum(each for key, each in seconds.items() if key.endswith(f", {end}")) for end in ("here", "there")
    )
    record = json.loads((workspace / "killed" / "predictions.json").read_text(encoding="utf-8"))
    recorded = {case["case"] for case in record["cases"] if case["status"] == "written"}
    return {
        "cluster_cases_equal": sum(
            case in recorded
            and same(root / "here", stored, f"{case}*.b2nd")
            and same(workspace / "here", workspace / "killed", f"{case}.nii.gz")
            for case in cases()
        ),
        "cluster_overhead": round(there / here - 1, 3),
        "cluster_seconds": {key: round(each, 1) for key, each in seconds.items()},
    }


def cases() -> list[str]:
    return [f"case_{number:04d}" for number in range(CASES)]


def stored_cases(workspace: Path) -> Path:
    """Return the folder of the stored cases, of which there is one."""
    (record,) = (workspace / "preprocessed" / DATASET).glob(f"*/{cases()[0]}.json")
    return record.parent


def same(here: Path, there: Path, pattern: str) -> bool:
    """Return whether the files of a pattern are there, with the same content."""
    names = sorted(path.name for path in here.glob(pattern))
    return bool(names) and all(
        (there / name).is_file() and content(here / name) == content(there / name) for name in names
    )


def content(path: Path) -> bytes:
    """Return the content of a file, unpacked where it is a gzip archive, which has the time in it."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def start(workspace: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start a command."""
    with (workspace.parent / "messages.txt").open("ab") as messages:
        return subprocess.Popen((*COMMAND, *words), cwd=workspace, stdout=messages, stderr=messages)


def finished(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a command that has to succeed."""
    if process.wait():
        raise SystemExit(f"exit code {process.returncode} of {process.args!r}")


def timed(workspace: Path, *commands: tuple[str, ...]) -> float:
    """Return the seconds that commands take which run at the same time."""
    began = time.monotonic()
    for process in [start(workspace, *words) for words in commands]:
        finished(process)
    return time.monotonic() - began


def killed_once(command: "subprocess.Popen[bytes]", moment: float) -> None:
    """Kill a worker in the middle of a command, which has to succeed nevertheless."""
    time.sleep(moment)
    if command.poll() is not None:
        raise SystemExit(f"{command.args!r} has ended before a worker could be killed")
    busiest = max(worker_processes(), key=lambda worker: worker.cpu_percent(0.5))
    os.kill(busiest.pid, signal.SIGKILL)
    finished(command)


def worker_processes() -> list[psutil.Process]:
    """Return the processes of workers, which are those that have been started by what looks after them."""
    nannies = [each for each in psutil.Process().children() if "dask_worker" in " ".join(each.cmdline())]
    return [
        worker
        for nanny in nannies
        for worker in nanny.children()
        if "spawn_main" in " ".join(worker.cmdline())
    ]


@contextmanager
def scheduler(folder: Path) -> Iterator[str]:
    """Start a scheduler and its workers; yield its address, and end them."""
    told = folder / "scheduler.json"

    def run(what: str, *words: str) -> "subprocess.Popen[bytes]":
        with (folder / f"{what}.log").open("ab") as log:
            command = (sys.executable, "-m", f"distributed.cli.dask_{what}", *words)
            return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    started = [run("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(told))]
    try:
        while not told.is_file():
            time.sleep(0.1)
        address = json.loads(told.read_text(encoding="utf-8"))["address"]
        limits = ("--nthreads", "1", "--memory-limit", "4GiB", "--no-dashboard")
        started += [run("worker", address, *limits) for _ in range(WORKERS)]
        while len(worker_processes()) < WORKERS:
            time.sleep(0.1)
        yield address
    finally:
        for process in started:
            for each in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
                each.kill()
            process.wait()
