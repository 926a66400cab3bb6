"""The command: what it prints, keeps and warns of, and that folds heed it."""

import contextlib
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path

import makers
import numpy as np
import pytest
import torch

from autospine.cli.fingerprint_tables import show_fingerprint
from autospine.pipeline import measuring as datasets
from autospine.pipeline import planning
from autospine.pipeline.measuring import FINGERPRINT, fingerprint
from autospine.pipeline.planned_dataset import FOLDS_FILE
from autospine.storage.trained_models import PLAN
from autospine.storage.workspace import DatasetLocation, Workspace
from planners.overrides import Overrides

NAME = "Dataset007_Test"


@pytest.fixture
def raw(tmp_path) -> Callable[..., DatasetLocation]:
    """Writes a raw dataset of six noisy columns, of which `copies` take the image of another."""

    def write(copies: dict[str, str] | None = None, cases_csv: str | None = None) -> DatasetLocation:
        folder = tmp_path / "raw" / NAME
        shapes = {name: (20 + i, 18, 22) for i, name in enumerate("abcdef")}
        # Stored index 1 is bone, written as 3, and 2 the canal, 7.
        arrays = {
            name: np.asarray([0, 3, 7], dtype=np.uint8)[makers.column(shape)]
            for name, shape in shapes.items()
        }
        for copy, original in (copies or {}).items():
            arrays[copy] = arrays[original]
        dataset = makers.dataset_of(folder, arrays)
        paths = {case.name: case.images[0] for case in dataset.cases}
        for copy, original in (copies or {}).items():
            paths[copy].write_bytes(paths[original].read_bytes())
        described = {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "bone left": 3, "bone right": 7},
            "file_ending": ".nii.gz",
        }
        (folder / "dataset.json").write_text(json.dumps(described))
        if cases_csv is not None:
            (folder / "cases.csv").write_text(cases_csv)
        return Workspace(root=tmp_path).find_dataset(NAME)

    return write


def plan(location: DatasetLocation, overrides: Overrides | None = None, splits: Path | None = None) -> None:
    planning.plan(location, device=torch.device("cpu"), memory="2GB", overrides=overrides, splits=splits)


def validation(location: DatasetLocation) -> list[set[str]]:
    folds = json.loads((location.preprocessed / FOLDS_FILE).read_text(encoding="utf-8"))
    return [set(names) for names in folds["validation"]]


def test_a_fingerprint_of_the_same_files_is_kept(raw, monkeypatch):
    location = raw()
    _, first = fingerprint(location)
    path = location.preprocessed / FINGERPRINT
    before = path.stat().st_mtime_ns

    def again(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(datasets, "measure", again)
    _, second = fingerprint(location)
    assert second == first
    assert path.stat().st_mtime_ns == before


def test_a_fingerprint_of_another_version_is_made_anew(raw):
    location = raw()
    _, measured = fingerprint(location)
    path = location.preprocessed / FINGERPRINT
    path.write_text('{"format_version": 1, "dataset": "old", "key": "", "cases": []}')
    assert fingerprint(location)[1] == measured
    assert json.loads(path.read_text(encoding="utf-8"))["format_version"] == 3


def test_folds_do_not_separate_copies(raw, caplog):
    location = raw(copies={"f": "a"})
    with caplog.at_level(logging.WARNING):
        plan(location)
    assert "a, f show the same image, or nearly so" in caplog.text
    assert {"a", "f"} in validation(location)


def test_folds_that_separate_copies_are_kept_with_a_warning(raw, caplog):
    location = raw(copies={"f": "a"})
    location.preprocessed.mkdir(parents=True)
    separating = [["a"], ["b"], ["c"], ["d"], ["e", "f"]]
    described = {"format_version": 1, "dataset": NAME, "validation": separating}
    (location.preprocessed / FOLDS_FILE).write_text(json.dumps(described))
    with caplog.at_level(logging.WARNING):
        plan(location)
    assert "does not hold a, f out together, although they show the same image" in caplog.text
    assert validation(location) == [set(names) for names in separating]


def test_folds_that_fit_no_longer_are_kept_beside_the_new_ones(raw, caplog):
    location = raw()
    location.preprocessed.mkdir(parents=True)
    path = location.preprocessed / FOLDS_FILE
    path.write_text("edited by hand")
    with caplog.at_level(logging.WARNING):
        plan(location)
    assert "is made anew (it is kept as folds.json.old)" in caplog.text
    assert path.with_name("folds.json.old").read_text() == "edited by hand"
    assert len(validation(location)) == 5


def test_another_plan_and_its_trained_folds_are_kept_and_named(raw, caplog):
    location = raw()
    plan(location)
    path = location.preprocessed / PLAN
    first = path.read_bytes()
    plan(location)
    assert not path.with_name("plan.json.old").exists()
    model = location.results / "fullres"
    (model / "fold_0").mkdir(parents=True)
    (model / PLAN).write_bytes(first)
    with caplog.at_level(logging.INFO):
        plan(location, Overrides(feature_size=8))
    assert path.with_name("plan.json.old").read_bytes() == first != path.read_bytes()
    assert "the former plan is kept as" in caplog.text
    assert f"fold 0 in {model} belongs to another plan (changed: network)" in caplog.text
    assert f"copy {model / PLAN} to {path}" in caplog.text
    caplog.clear()
    path.write_bytes((model / PLAN).read_bytes())
    plan(location)
    assert "another plan" not in caplog.text


def test_folds_that_are_given_replace_others_which_are_kept(raw, caplog):
    location = raw()
    plan(location)
    first = (location.preprocessed / FOLDS_FILE).read_bytes()
    splits = location.raw.parent / "splits_final.json"
    halves = [{"train": list("def"), "val": list("abc")}, {"train": list("abc"), "val": list("def")}]
    splits.write_text(json.dumps(halves))
    with caplog.at_level(logging.INFO):
        plan(location, splits=splits)
    assert f"took 2 folds from {splits}" in caplog.text
    old = location.preprocessed / "folds.json.old"
    assert old.read_bytes() == first
    plan(location, splits=splits)
    assert old.read_bytes() == first


def test_the_line_for_cases_csv_mends_it(raw, caplog):
    location = raw(copies={"f": "a"}, cases_csv="case,subject\nf,a\n")
    with caplog.at_level(logging.WARNING):
        plan(location)
    assert "show the same image" not in caplog.text
    assert {"a", "f"} in validation(location)


def test_all_that_was_measured_is_shown(raw):
    location = raw(copies={"f": "a"}, cases_csv="case,site\na,x\nb,[y]\n")
    _, measured = fingerprint(location)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        show_fingerprint(measured)
    lines = shown.getvalue().splitlines()
    rows = {tuple(line.split()[:2]): line.split() for line in lines if line}
    # 20 voxels of 1.5 mm along S, all of which hold the canal.
    assert rows["a", "CT"][2:] == ["x", "20", "18", "22", "1.50", "1.50", "1.50", "30"]
    assert rows["b", "CT"][2] == "[y]"
    assert rows["CT", "6"][2:8] == ["1.50", "1.50", "1.50", *rows["CT", "6"][5:8]]
    assert rows["CT", "6"][-1] == "1.0"
    assert rows["bone", "left"][2] == "6"
    assert "left and right: bone left, bone right" in lines
    assert "the same image, or nearly so: a, f" in lines
