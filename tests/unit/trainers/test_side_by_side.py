"""What the parent of folds side by side shows and says; their training is tested with cross-validation."""

import json
import time
from contextlib import nullcontext
from pathlib import Path

import makers
import pytest
import torch

from autospine.dataset.splits import Fold
from autospine.storage.trained_models import WEIGHTS
from trainers import side_by_side
from trainers.checkpoints import CHECKPOINT, Checkpoints
from trainers.fold_messages import FoldMessages
from trainers.metrics_log import METRICS
from trainers.progress_report import ProgressReport
from trainers.side_by_side import say_where_folds_go_on, watch_folds
from trainers.training_run import TrainingRun

FOLDS = tuple(Fold(name=name, training=("a",), validation=()) for name in "01")


@pytest.fixture
def task(tmp_path) -> TrainingRun:
    raw = tmp_path / "raw" / "Dataset007_Small"
    raw.mkdir(parents=True)
    plan = makers.plan()
    return TrainingRun(
        dataset=makers.dataset_of(raw, {}),
        plan=plan,
        configuration=plan.configurations[0],
        stored={},
        folder=tmp_path / "results" / "fullres",
    )


def write_rows(folder: Path, *shares: float) -> None:
    """A record that has come so far with each epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"epoch": number, "progress": share, "loss": None, "warnings": {}}
        for number, share in enumerate(shares, start=1)
    ]
    (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class Training:
    """Stands for the progress and for the processes: at each look the folds have come farther."""

    def __init__(self, task: TrainingRun, *looks: dict[str, tuple[float, ...]]) -> None:
        self.task, self.looks, self.counted, self.begun = task, list(looks), [], None
        self.reports, self.texts, self.ends, self.messages = {}, [], None, FoldMessages()

    def progress(self, _: str, total: int, *, done: float, percent: bool, ends: float | None):
        self.begun, self.ends = done, ends
        return nullcontext(self)

    def wait(self) -> bool:
        for name, shares in self.looks.pop(0).items():
            write_rows(self.task.folder / f"fold_{name}", *shares)
        return not self.looks

    def advance(self, amount: float = 1) -> None:
        self.counted.append(amount)

    def update(self, text: str) -> None:
        self.texts.append(text)

    def watch(self, monkeypatch, folds=FOLDS, *, extending=False, deadline: float | None = None) -> None:
        monkeypatch.setattr(side_by_side, "progress", self.progress)
        watch_folds(
            *(self.task, folds, self.wait, self.reports, self.messages),
            extending=extending,
            deadline=deadline,
        )


def test_folds_that_go_on_begin_where_they_were(task, monkeypatch):
    write_rows(task.folder / "fold_0", 0.4, 0.8)
    training = Training(task, {"0": (0.4, 0.8, 1.0)}, {"1": (0.5,)}, {"1": (0.5, 1.0)})
    training.watch(monkeypatch)
    assert (training.begun, training.counted) == (40, [10, 25, 25])


@pytest.mark.parametrize(("before", "begun"), [((), 0), ((0.25, 0.5), 25)])
def test_folds_that_are_extended_begin_after_their_finished_training(task, monkeypatch, before, begun):
    write_rows(task.folder / "fold_0", 0.5, 1.0, *before)
    write_rows(task.folder / "fold_1", 0.5, 1.0)
    end = (0.5, 1.0, 0.25, 0.5, 1.0)
    training = Training(task, {"0": end}, {"1": end})
    training.watch(monkeypatch, extending=True)
    assert (training.begun, training.counted) == (begun, [50 - begun, 50])


def test_the_steps_of_the_first_epoch_count_and_are_shown(task, monkeypatch):
    training = Training(task, {}, {"1": (0.5,)}, {"0": (1.0,), "1": (1.0,)})
    training.reports = {
        name: ProgressReport(task=f"fold {name}, training", share=share, text=f"epoch 1  step {name}/50")
        for name, share in (("0", 0.2), ("1", 0.4))
    }
    training.watch(monkeypatch)
    assert training.ends is None
    assert training.counted == pytest.approx([30, 5, 65])
    assert training.texts == [
        "fold 0: epoch 1  step 0/50\nfold 1: epoch 1  step 1/50",
        "fold 0: epoch 1  step 0/50\nfold 1: epoch 1  no step was taken",
        "fold 0: validating, 0/0 cases\nfold 1: validating, 0/0 cases",
    ]


def test_with_a_time_limit_the_display_moves_with_the_time_and_is_not_full_before_the_end(task, monkeypatch):
    training = Training(task, {}, {}, {"0": (1.0,), "1": (1.0,)})
    ends = time.monotonic() - 1000.0  # long exceeded
    training.watch(monkeypatch, deadline=ends)
    assert training.ends == ends
    assert training.counted == [99, 0, 1]


def test_folds_have_a_line_from_their_start_to_their_validation(task, monkeypatch):
    folds = tuple(Fold(name=name, training=("a",), validation=(f"v{name}", f"w{name}")) for name in "01234")
    training = Training(task, {}, {"0": (1.0,), "1": (1.0,)}, {"2": (1.0,)})
    training.reports = {
        name: ProgressReport(task=f"fold {name}, training", share=0.0, text="") for name in "012"
    }
    for path in (task.prediction(folds[0], "v0"), task.prediction(folds[0], "w0")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (task.fold_folder(folds[0]) / WEIGHTS).touch()
    task.prediction(folds[1], "v1").parent.mkdir(parents=True)
    task.prediction(folds[1], "v1").touch()
    training.watch(monkeypatch, folds)
    assert training.texts[0].splitlines() == [
        "fold 0: starting",
        "fold 1: starting",
        "fold 2: starting",
        "folds 3, 4: begin later",
    ]
    assert training.texts[1].splitlines() == [
        "fold 0: complete",
        "fold 1: validating, 1/2 cases",
        "fold 2: starting",
        "folds 3, 4: begin later",
    ]
    assert sum(training.counted[:2]) == pytest.approx((100 + 97.5) / 5)


def test_other_tasks_than_training_do_not_count(task, monkeypatch):
    training = Training(task, {}, {"0": (1.0,), "1": (1.0,)})
    training.reports = {"0": ProgressReport(task="fold 0, validation", share=0.9, text="")}
    training.watch(monkeypatch)
    assert training.counted == [0, 100]


def test_it_is_said_which_folds_go_on(task, caplog):
    caplog.set_level("INFO")
    folder = task.folder / "fold_1"
    for epochs in (6, 7):
        Checkpoints(folder).save({"a": torch.ones(1)}, {"epochs": epochs, "step": 10 * epochs})
    say_where_folds_go_on(task, FOLDS, extending=False)
    (folder / CHECKPOINT).write_bytes(b"damaged")
    say_where_folds_go_on(task, FOLDS, extending=False)
    (folder / WEIGHTS).touch()
    say_where_folds_go_on(task, FOLDS, extending=False)
    assert caplog.messages == [
        "fold 1 resumes after epoch 7, step 70",
        "fold 1 resumes after epoch 6, step 60",
    ]
    say_where_folds_go_on(task, FOLDS, extending=True)
    assert len(caplog.messages) == 3
