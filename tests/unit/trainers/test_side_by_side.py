"""What the parent of folds side by side shows and says; their training is tested with cross-validation."""

import json
from contextlib import nullcontext
from pathlib import Path

import makers
import pytest
import torch

from autospine.dataset.splits import Fold
from autospine.storage.trained_models import WEIGHTS
from trainers import side_by_side
from trainers.checkpoints import CHECKPOINT, Checkpoints
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


def write_rows(folder: Path, *shares: float, **warnings: str) -> None:
    """A record that has come so far with each epoch; the last one warns."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"epoch": number, "progress": share, "loss": None, "warnings": {}}
        for number, share in enumerate(shares, start=1)
    ]
    rows[-1]["warnings"] = warnings
    (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class Training:
    """Stands for the progress and for the processes: at each look the folds have come farther."""

    def __init__(self, task: TrainingRun, *looks: dict[str, tuple[float, ...]], **warnings: str) -> None:
        self.task, self.looks, self.counted, self.begun = task, list(looks), [], None
        self.warnings, self.reports, self.texts, self.ends = warnings, {}, [], None

    def progress(self, _: str, total: int, *, done: float, percent: bool, ends: float | None):
        self.begun, self.ends = done, ends
        return nullcontext(self)

    def wait(self) -> bool:
        for name, shares in self.looks.pop(0).items():
            write_rows(self.task.folder / f"fold_{name}", *shares, **self.warnings)
        return not self.looks

    def advance(self, amount: float = 1) -> None:
        self.counted.append(amount)

    def update(self, text: str) -> None:
        self.texts.append(text)

    def watch(self, monkeypatch, *, extending: bool = False, deadline: float | None = None) -> None:
        monkeypatch.setattr(side_by_side, "progress", self.progress)
        watch_folds(self.task, FOLDS, self.wait, self.reports, extending=extending, deadline=deadline)


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


def test_an_extension_repeats_the_warnings_of_the_finished_training(task, monkeypatch, caplog):
    for name in "01":
        write_rows(task.folder / f"fold_{name}", 1.0, inert_fusion="the fusion stayed inert")
    end = dict.fromkeys("01", (1.0, 1.0))
    Training(task, end, end, inert_fusion="the fusion stayed inert").watch(monkeypatch, extending=True)
    assert caplog.messages == [f"fold {name}: the fusion stayed inert" for name in "01"]


def test_the_steps_of_the_first_epoch_count_and_are_shown(task, monkeypatch):
    training = Training(task, {}, {"1": (0.5,)}, {"0": (1.0,), "1": (1.0,)})
    training.reports = {
        name: ProgressReport(
            task=f"fold {name}, training", share=share, text=f"step {name} of 50 of the first epoch"
        )
        for name, share in (("0", 0.2), ("1", 0.4))
    }
    training.watch(monkeypatch, deadline=123.0)
    assert training.ends == 123.0
    assert training.counted == pytest.approx([30, 5, 65])
    assert training.texts[:2] == [
        "fold 0: step 0 of 50 of the first epoch\nfold 1: step 1 of 50 of the first epoch",
        "fold 0: step 0 of 50 of the first epoch\nfold 1: epoch 1  no step was taken",
    ]


def test_other_tasks_than_training_do_not_count(task, monkeypatch):
    training = Training(task, {}, {"0": (1.0,), "1": (1.0,)})
    training.reports = {"0": ProgressReport(task="fold 0, validation", share=0.9, text="")}
    training.watch(monkeypatch)
    assert training.counted == [0, 100]


def test_it_is_said_once_that_a_fold_stops_early(task, monkeypatch, caplog):
    caplog.set_level("INFO")

    class Stopping(Training):
        def wait(self) -> bool:
            done = super().wait()
            folder = self.task.folder / "fold_0"
            first, *others = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
            rows = [first | {"early_stop": "training stops early"}, *others]
            (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
            return done

    Stopping(task, {"0": (0.4,)}, {"0": (0.4, 0.7)}, {"0": (0.4, 0.7, 1.0)}).watch(monkeypatch)
    assert caplog.messages == ["fold 0: training stops early"]
    assert [record.levelname for record in caplog.records] == ["INFO"]


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
