"""The commands on a Dask cluster of one scheduler and two workers, against the same commands without it."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from autospine.cli import main
from autospine.storage.trained_models import STARTER_FILE, WEIGHTS

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="processes of POSIX"),
    pytest.mark.skipif(not STARTER_FILE.is_file(), reason="no starter"),
]

COMMAND = (sys.executable, "-c", "import sys; from autospine.cli import main; sys.exit(main())")
DATASET = "Dataset001_Phantom"
SMALL = ("--patch", "32", "32", "32", "--feature-size", "8", "--memory", "2GB", "--device", "cpu")


@contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    """Kill a process and all that it has started at the end."""
    try:
        yield process
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for each in family:
            each.kill()
        process.wait()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory) -> Iterator[str]:
    """The address of a scheduler with two workers of one thread each."""
    folder = tmp_path_factory.mktemp("dask")
    told = folder / "scheduler.json"

    def start(what: str, *words: str) -> "subprocess.Popen[bytes]":
        with (folder / f"{what}.log").open("ab") as log:
            command = (sys.executable, "-m", f"distributed.cli.dask_{what}", *words)
            return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    with ended(start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(told))):
        until = time.monotonic() + 60
        while not told.is_file():
            assert time.monotonic() < until, (folder / "scheduler.log").read_text(encoding="utf-8")
            time.sleep(0.1)
        address = json.loads(told.read_text(encoding="utf-8"))["address"]
        words = (address, "--nthreads", "1", "--nworkers", "2", "--memory-limit", "4GiB", "--no-dashboard")
        with ended(start("worker", *words)):
            yield address


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, scheduler: str) -> Path:
    """A dataset with its plan and stored cases, made without a cluster (`here`) and with it (`there`)."""
    folder = tmp_path_factory.mktemp("cluster")
    drawn = ("-n", "3", "--test-cases", "4", "--modality", "CT", "--labels", "structures")
    assert main(["phantom", "-o", str(folder / "here" / "raw" / DATASET), *drawn]) == 0
    shutil.copytree(folder / "here", folder / "there")
    for name in ("here", "there"):
        elsewhere = ("--scheduler", scheduler) if name == "there" else ()
        assert main([*words(folder / name, "plan-and-preprocess"), *SMALL, "--no-report", *elsewhere]) == 0
    return folder


def words(workspace: Path, command: str) -> list[str]:
    return [command, "-d", "1", "-w", str(workspace)]


def test_fingerprint_and_stored_cases_are_those_of_one_machine(workspace):
    here, there = (workspace / name / "preprocessed" / DATASET for name in ("here", "there"))
    assert stable(here / "fingerprint.json") == stable(there / "fingerprint.json")
    names = sorted(path.name for path in (here / "fast").iterdir())
    assert names == sorted(path.name for path in (there / "fast").iterdir())
    arrays = [name for name in names if name.endswith(".b2nd")]
    assert len(arrays) >= 6
    for name in arrays:
        assert (here / "fast" / name).read_bytes() == (there / "fast" / name).read_bytes()


def stable(path: Path) -> object:
    """Of two datasets with the same files, but for the times of these."""
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["key"]
    return content


@pytest.mark.slow
def test_folds_train_on_the_workers_and_are_scored_together(workspace, scheduler, capsys):
    there = workspace / "there"
    steps = ("--epochs", "1", "--iterations", "2", "--device", "cpu")
    assert main([*words(there, "train"), "--fold", "full", *steps, "--scheduler", scheduler]) == 0
    assert (there / "results" / DATASET / "fast" / "fold_full" / WEIGHTS).is_file()
    assert "on 2 workers of a cluster" in capsys.readouterr().out


def test_predictions_survive_a_killed_worker_and_are_those_of_one_machine(workspace, scheduler, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as many threads as a worker has
    images = workspace / "here" / "raw" / DATASET / "imagesTs"
    common = ("predict", "-i", str(images), "-m", "starter", "--device", "cpu", "--no-report", "-o")
    here, there = workspace / "alone", workspace / "together"
    subprocess.run((*COMMAND, *common, str(here)), check=True, capture_output=True)
    with subprocess.Popen(
        (*COMMAND, *common, str(there), "--scheduler", scheduler),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as command:
        killed = worker_at(there)
        os.kill(killed, signal.SIGKILL)
        said, _ = command.communicate(timeout=300)
    assert command.returncode == 0, said
    maps = sorted(path.name for path in here.glob("*.nii.gz"))
    assert len(maps) == 4
    assert maps == sorted(path.name for path in there.glob("*.nii.gz"))
    for name in maps:
        assert gzip.decompress((here / name).read_bytes()) == gzip.decompress((there / name).read_bytes())
    cases = [json.loads((place / "predictions.json").read_text())["cases"] for place in (here, there)]
    assert [case["case"] for case in cases[0]] == [case["case"] for case in cases[1]]
    assert not (there / ".parts").exists()


def worker_at(output: Path) -> int:
    """The process of a worker that is predicting into a folder."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for lock in output.glob(".parts/*.lock"):
            try:
                return int(json.loads(lock.read_text(encoding="utf-8"))["pid"])
            except (ValueError, KeyError, OSError):  # just being written or removed
                continue
        time.sleep(0.01)
    raise AssertionError("no part has begun")


def test_scores_and_report_are_those_of_one_machine(workspace, scheduler):
    labels = workspace / "here" / "raw" / DATASET / "labelsTs"
    common = ["evaluate", str(labels), str(labels), "--no-report", "-o"]
    assert main([*common, str(workspace / "scores_here")]) == 0
    assert main([*common, str(workspace / "scores_there"), "--scheduler", scheduler]) == 0
    for name in ("evaluation.csv", "statistics.csv", "confusion.csv"):
        assert (workspace / "scores_here" / name).read_bytes() == (
            workspace / "scores_there" / name
        ).read_bytes()
    assert main(["report", str(workspace / "scores_there"), "--scheduler", scheduler]) == 0
    page = (workspace / "scores_there" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= 4


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--part", "1/2", "--scheduler", "tcp://127.0.0.1:9"), "a cluster makes parts by itself"),
        (("--slurm", "2", "--scheduler", "tcp://127.0.0.1:9"), "found both; give one of them"),
    ],
)
def test_contradictions_are_refused(workspace, tmp_path, capsys, given, says):
    images = workspace / "here" / "raw" / DATASET / "imagesTs"
    assert main(["predict", "-i", str(images), "-o", str(tmp_path / "out"), "-m", "starter", *given]) != 0
    assert says in capsys.readouterr().err


def test_a_gpu_that_no_worker_has_is_said_before_work_begins(workspace, scheduler, tmp_path, capsys):
    images = workspace / "here" / "raw" / DATASET / "imagesTs"
    given = ("-m", "starter", "--device", "cuda", "--scheduler", scheduler)
    assert main(["predict", "-i", str(images), "-o", str(tmp_path / "out"), *given]) == 1
    assert "and a GPU for part 1/4, found none" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
