import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autospine.cli import main
from autospine.phantom import PhantomSettings, write_dataset
from autospine.storage.trained_models import WEIGHTS

ROOT = Path(__file__).parents[2]
NAME = "Dataset001_Tiny"


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> Path:
    """A workspace with a planned dataset of five coarse phantoms."""
    folder = tmp_path_factory.mktemp("workspace")
    settings = PhantomSettings(spacing_mm=(4.0, 4.0, 4.0), size_mm=(76.0, 72.0, 64.0), metal=False)
    write_dataset(folder / "raw" / NAME, cases=5, scheme="structures", settings=settings, seed=1)
    words = ["plan", "-d", "1", "-w", str(folder), "--memory", "2GB", "--feature-size", "8"]
    assert main([*words, "--patch", "16", "16", "16"]) == 0
    return folder


def train(workspace: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`autospine train 0` in two processes on the CPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "autospine", "train", "0", "-w", str(workspace), "--device", "cpu", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)


@pytest.mark.slow
def test_two_processes_of_torchrun_train_one_model(planned):
    said = train(planned, "--fold", "0", "--epochs", "2", "--iterations", "2")
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("training Dataset001_Tiny") == 1
    assert "2 processes, each with the planned batch" in said.stdout
    fold = planned / "results" / NAME / "fullres" / "fold_0"
    rows = [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert (fold / WEIGHTS).is_file()
    assert len(list((fold / "validation").iterdir())) == 1
    assert not (fold / "training.lock").exists()


RESTARTED = """
import os, signal
import torch, torch.distributed
from trainers import distributed

with distributed.joined("cpu"):
    distributed.meet()
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and distributed.leads():
        os.kill(os.getpid(), signal.SIGKILL)
    print("agreed on", *distributed.largest(float(distributed.rank())))
"""


def test_processes_that_torchrun_starts_again_meet_again(tmp_path):
    (tmp_path / "script.py").write_text(RESTARTED, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    said = subprocess.run(
        [*command, "--max-restarts", "1", str(tmp_path / "script.py")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == ["agreed on 1.0"]  # the second one is silent


@pytest.mark.slow
def test_a_fold_that_does_not_exist_is_told_before_the_processes_meet(planned):
    said = train(planned, "--fold", "9")
    assert said.returncode != 0
    assert "expected --fold all, full or one of 0, 1, 2, 3, 4, found '9'" in said.stderr


@pytest.mark.slow
def test_what_ends_one_process_ends_the_other(planned):
    path = planned / "preprocessed" / NAME / "folds.json"
    folds = json.loads(path.read_text(encoding="utf-8"))
    folds["validation"][0] = folds["validation"][1]
    path.write_text(json.dumps(folds), encoding="utf-8")
    said = train(planned, "--fold", "0")
    assert said.returncode != 0
    assert "is validated 2 times" in said.stderr
    assert "expected every process of the training to go on, found one that ended" in said.stderr
