"""Each validated fold has a montage of its held-out cases, the worst first, and never fails for it."""

import logging
import shutil
from dataclasses import replace

import makers
import numpy as np
import pytest
from matplotlib.image import imread

from autospine.dataset.splits import Fold
from autospine.evaluation.evaluate_maps import evaluate_case
from autospine.evaluation.scores import Evaluation
from autospine.io.images import write_array
from autospine.preprocessing.preprocess import preprocess_dataset
from trainers import validation_montage
from trainers.training_run import TrainingRun
from trainers.validation_montage import MONTAGE, draw_validation

FOLD = Fold(name="0", training=("c",), validation=("a", "b"))


@pytest.fixture
def validated(tmp_path) -> tuple[TrainingRun, Evaluation]:
    """A fold of two held-out cases, of which b is found in part."""
    indices = makers.column((18, 16, 20))
    integers = np.choose(indices, [0, 3, 7]).astype(np.uint8)
    dataset = makers.dataset_of(tmp_path / "raw" / "Dataset007_Small", dict.fromkeys("abc", integers))
    plan = makers.plan(makers.configuration())
    stored = preprocess_dataset(dataset, plan, plan.configurations[0], tmp_path / "stored", 1)
    task = TrainingRun(
        dataset=dataset,
        plan=plan,
        configuration=plan.configurations[0],
        stored={case.name: case for case in stored},
        folder=tmp_path / "results" / "fullres",
    )
    scores = []
    for name, rows in (("a", 18), ("b", 9)):
        found = np.where(np.arange(18)[:, None, None] < rows, integers, 0).astype(np.uint8)
        write_array(task.prediction(FOLD, name), found, makers.grid(found.shape, (1.5, 1.5, 1.5)))
        scores.append(
            evaluate_case(plan.labels.encode(found), indices.astype(np.uint8), plan.labels, case=name)
        )
    return task, Evaluation(classes=plan.labels.names, cases=tuple(scores))


def test_the_worst_case_comes_first(validated, monkeypatch, caplog):
    task, evaluation = validated
    caplog.set_level(logging.INFO, logger="trainers")
    drawn = []
    write = validation_montage.write_montage

    def watched(path, panels, labels, *, title):
        drawn.extend((panel.title, panel.score, panel.reference is not None) for panel in panels)
        write(path, panels, labels, title=title)

    monkeypatch.setattr(validation_montage, "write_montage", watched)
    draw_validation(task, [FOLD], evaluation)
    assert [(title, reference) for title, _, reference in drawn] == [("b", True), ("a", True)]
    assert drawn[0][1] < drawn[1][1] == "Dice 1.00"
    path = task.fold_folder(FOLD) / MONTAGE
    assert imread(path).std() > 0.05
    assert f"{path} shows 2 held-out cases, the worst first" in caplog.text
    draw_validation(task, [FOLD], evaluation)
    assert len(drawn) == 2, "it is there"


def test_montages_of_several_folds_are_one_message_and_only_of_those_drawn_now(validated, caplog):
    task, evaluation = validated
    caplog.set_level(logging.INFO, logger="trainers")
    folds = [replace(FOLD, name=name) for name in "123"]
    for fold in folds:
        shutil.copytree(task.validation_folder(FOLD), task.validation_folder(fold))
    draw_validation(task, folds[:1], evaluation)
    caplog.clear()
    draw_validation(task, folds, evaluation)
    assert len(caplog.messages) == 1
    assert "of folds 2, 3 in" in caplog.text


def test_a_picture_that_cannot_be_drawn_is_a_warning(validated, monkeypatch, caplog):
    def broken(*_, **__):
        raise OSError("no space left")

    task, evaluation = validated
    monkeypatch.setattr(validation_montage, "write_montage", broken)
    draw_validation(task, [FOLD], evaluation)
    assert "validation.png cannot be drawn: no space left" in caplog.text
