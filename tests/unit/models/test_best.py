"""The model that predicts where none is named: chosen by its training, its scores and its folds."""

import json
import os
from pathlib import Path

import makers

from autospine.dataset.splits import FoldsFile
from autospine.evaluation.stored_scores import CROSS_VALIDATION
from autospine.models.best import choose_model, choose_models
from autospine.pipeline.planned_dataset import FOLDS_FILE, missing_folds
from autospine.storage.serialization import write_json
from autospine.storage.workspace import Workspace

SHORT = {"training": {"epochs": 1000, "iterations_per_epoch": 100}}


def write(root: Path, name: str, *, folds=("0",), cases=0, dice=0.5, short=False, seconds=1000) -> None:
    """Write a model that was completed so many seconds after the epoch, validated on cases of its folds."""
    folder = root / "results" / "Dataset001_A" / name
    changes = {"configurations": (makers.configuration(**SHORT),)} if short else {}
    makers.write_model(folder, folds=folds, **changes)
    for weights in folder.glob("fold_*/*.safetensors"):
        os.utime(weights, (seconds, seconds))
    if cases:
        held_out = {fold: {"cases": [f"c{fold}_{n}" for n in range(cases)]} for fold in folds}
        scores = {"format_version": 3, "postprocessed": None, "mean_dice": dice, "modalities": {}}
        (folder / CROSS_VALIDATION).write_text(json.dumps(scores | {"folds": held_out}))


def chosen(root: Path) -> tuple[str, str]:
    folder, reason = choose_model(Workspace(root=root))
    return folder.name, reason


def test_the_only_model_is_taken(tmp_path):
    write(tmp_path, "fast")
    assert chosen(tmp_path) == ("fast", "the only model of Dataset001_A")
    assert choose_model(Workspace(root=tmp_path), "1", "fast")[1] == "as asked for"


def test_a_model_of_a_few_steps_is_not_taken_though_it_was_completed_last(tmp_path):
    write(tmp_path, "fullres", cases=3)
    write(tmp_path, "fast", folds=("0", "1"), cases=3, dice=0.9, short=True, seconds=2000)
    assert chosen(tmp_path) == ("fullres", "fast was hardly trained")


def test_scores_decide_before_folds_and_folds_before_time(tmp_path):
    write(tmp_path, "c", folds=("0", "1"))
    write(tmp_path, "d", seconds=3000)
    assert chosen(tmp_path) == ("c", "2 complete folds; d has 1")
    write(tmp_path, "b", cases=2, dice=0.6, seconds=900)
    assert chosen(tmp_path) == ("b", "cross-validated Dice 0.600 over 2 cases; c has no cross-validation")
    write(tmp_path, "a", cases=2, dice=0.7, seconds=800)
    assert chosen(tmp_path) == ("a", "cross-validated Dice 0.700 over 2 cases; b has 0.600")
    write(tmp_path, "e", folds=("0", "1"), cases=2, dice=0.4, seconds=700)
    assert chosen(tmp_path) == ("e", "cross-validated Dice 0.400 over 4 cases; a has 0.700 over 2 alone")


def test_of_equals_the_one_completed_last_is_taken(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b", seconds=2000)
    (folder,), reason = choose_models(Workspace(root=tmp_path), None, None)
    assert (folder.name, reason) == ("b", "completed last; a is its equal otherwise")


def test_the_folds_that_a_model_lacks_are_known_by_the_split_of_its_dataset(tmp_path):
    write(tmp_path, "fast", folds=("0", "2"))
    folder = tmp_path / "results" / "Dataset001_A" / "fast"
    assert missing_folds(folder, ("0", "2")) == ()
    file = FoldsFile(format_version=1, dataset="Dataset001_A", validation=(("a",), ("b",), ("c",)))
    write_json(tmp_path / "preprocessed" / "Dataset001_A" / FOLDS_FILE, file)
    assert missing_folds(folder, ("0", "2")) == ("1",)
    assert missing_folds(folder, ("full",)) == missing_folds(tmp_path / "a.autospine", ("0",)) == ()
