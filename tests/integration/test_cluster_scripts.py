"""The job scripts of the page on clusters, run by bash as Slurm runs them: at once, interrupted, requeued."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autospine.cli import main
from autospine.phantom import PhantomSettings, write_dataset
from autospine.prediction.case_log import RECORD

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "cluster.md"
PARTS = 2
PATIENCE = 300.0
"""Seconds that anything here may take, on a busy machine too."""

OURS = f"""#!/bin/sh
[ "$1" = train ] && set -- "$@" $TRAINING
exec {sys.executable} -m autospine "$@"
"""
PROGRAMS = {"autospine": OURS, "scontrol": '#!/bin/sh\necho "$@" >> scontrol.txt\n'}
"""The programs that the scripts call: ours, with a short training, and one that notes what it was told."""


def scripts() -> dict[str, str]:
    """The scripts of the page by the names of their jobs, with fewer parts."""
    found = re.findall(r"^```bash\n(#!/bin/bash\n.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    named = {match[1]: text for text in found if (match := re.search(r"--job-name=(\w+)", text))}
    assert len(named) == len(found) == 4
    return {name: text.replace("TASK_ID/8", f"TASK_ID/{PARTS}") for name, text in named.items()}


class Cluster:
    """A workspace in which the tasks of job arrays run as processes of bash."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        for name, text in PROGRAMS.items():
            (root / "bin" / name).write_text(text, encoding="utf-8")
            (root / "bin" / name).chmod(0o755)
        for name, text in scripts().items():
            (root / f"{name}.sh").write_text(text, encoding="utf-8")

    def begin(self, job: str, task: int, training: str = "") -> "subprocess.Popen[bytes]":
        slurm = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task), "SLURM_CPUS_PER_TASK": "1"}
        path = f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **slurm, "PATH": path, "TRAINING": training, "OMP_NUM_THREADS": "1"}
        with self.log(job, task).open("ab") as log:
            return subprocess.Popen(
                ["bash", f"{job}.sh"], cwd=self.root, env=environment, stdout=log, stderr=log
            )

    def log(self, job: str, task: int) -> Path:
        return self.root / f"{job}-{task}.log"

    def run(self, job: str, *tasks: int, training: str = "") -> None:
        """Run tasks at the same time; each has to succeed, and its log is of whole lines."""
        processes = [self.begin(job, task, training) for task in tasks]
        for process, task in zip(processes, tasks, strict=True):
            code = process.wait(PATIENCE)
            log = self.log(job, task).read_text(encoding="utf-8")
            assert code == 0, log
            assert not set("\r\x1b\b") & set(log)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_job_scripts_give_what_single_commands_give(tmp_path, monkeypatch):
    settings = PhantomSettings(spacing_mm=(4.0, 4.0, 4.0), size_mm=(76.0, 72.0, 64.0), metal=False)
    raw = tmp_path / "raw" / "Dataset001_Phantom"
    write_dataset(raw, cases=5, test_cases=3, scheme="structures", settings=settings, seed=1)
    (tmp_path / "images").symlink_to(raw / "imagesTs")
    monkeypatch.chdir(tmp_path)
    size = ("--memory", "1GB", "--patch", "16", "16", "16", "--feature-size", "8")
    assert main(["plan", "-d", "1", *size]) == 0
    cluster = Cluster(tmp_path)

    cluster.run("preprocess", 1, 2)
    stored = tmp_path / "preprocessed" / raw.name
    assert len(list(stored.glob("*/*.json"))) == 5

    # The time limit comes near: a checkpoint is written, and the task is requeued and goes on.
    task = cluster.begin("train", 0, "--epochs 200 --iterations 4 --no-report")
    configuration = next(iter(stored.glob("*/"))).name
    metrics = tmp_path / "results" / raw.name / configuration / "fold_0" / "metrics.jsonl"
    deadline = time.monotonic() + PATIENCE
    while not (metrics.is_file() and metrics.stat().st_size):
        assert task.poll() is None and time.monotonic() < deadline, cluster.log("train", 0).read_text()
        time.sleep(0.1)
    task.send_signal(signal.SIGUSR1)  # as `--signal=B:USR1` does: to bash alone
    assert task.wait(PATIENCE) == 128 + signal.SIGUSR1
    assert (tmp_path / "scontrol.txt").read_text(encoding="utf-8") == "requeue 7_0\n"
    assert metrics.with_name("checkpoint.safetensors").is_file()
    done = len(metrics.read_text(encoding="utf-8").splitlines())
    cluster.run("train", 0, training=f"--epochs {done + 1} --iterations 4 --no-report")
    assert metrics.with_name("model.safetensors").is_file()

    # A job array that is larger than the folds.
    assert cluster.begin("train", 7).wait(PATIENCE) == 1
    said = cluster.log("train", 7).read_text(encoding="utf-8")
    assert said == "autospine: expected --fold all, full or one of 0, 1, 2, 3, 4, found '7'\n"

    cluster.run("predict", 1, 2)
    assert main(["predict", "-d", "1", "-i", "images", "-o", "whole"]) == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    cluster.run("finish", 0)
    assert "has all 3 label maps" in cluster.log("finish", 0).read_text(encoding="utf-8")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def content(folder: Path) -> dict[str, object]:
    """Everything in a folder by name, but the report and what the clock and the memory decide."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    for case in record["cases"]:
        del case["seconds"], case["peak_gb"]
    others = {path.name for path in folder.iterdir()} - {RECORD, "report.html"}
    return {RECORD: record, "report": (folder / "report.html").is_file()} | {
        name: (folder / name).read_bytes() for name in others
    }
