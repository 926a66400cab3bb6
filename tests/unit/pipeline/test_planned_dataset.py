import json
import os
from pathlib import Path

import makers
import pytest

from autospine.core.errors import FormatError, PlanError, WorkspaceError
from autospine.pipeline.planned_dataset import FOLDS_FILE, check_fold, open_planned, read_plan
from autospine.storage.serialization import write_json
from autospine.storage.trained_models import PLAN
from autospine.storage.workspace import DatasetLocation


@pytest.fixture
def location(tmp_path):
    return DatasetLocation(
        name="Dataset001_Test",
        raw=tmp_path / "raw",
        preprocessed=tmp_path / "preprocessed",
        results=tmp_path / "results",
    )


@pytest.fixture
def planned(location):
    """The location of a planned dataset that is split."""
    write_json(location.preprocessed / PLAN, makers.plan(makers.configuration()))
    folds = {"format_version": 1, "dataset": location.name, "validation": [["a"], ["b"]]}
    (location.preprocessed / FOLDS_FILE).write_text(json.dumps(folds), encoding="utf-8")
    return location


def test_plan_configuration_and_folds_are_read(planned):
    plan = makers.plan(makers.configuration())
    for name in ("0", plan.configurations[0].name):
        opened = open_planned(planned, name)
        assert (opened.plan, opened.configuration) == (plan, plan.configurations[0])
        assert opened.fold_names == ("0", "1")


def test_without_folds_their_names_are_not_known(planned):
    (planned.preprocessed / FOLDS_FILE).unlink()
    assert open_planned(planned, "0").fold_names is None


def test_what_is_missing_or_damaged_is_told(planned, location):
    with pytest.raises(PlanError, match="'nothing'"):
        open_planned(planned, "nothing")
    (planned.preprocessed / FOLDS_FILE).write_text("{}")
    with pytest.raises(FormatError, match=FOLDS_FILE):
        open_planned(planned, "0")
    (planned.preprocessed / PLAN).unlink()
    with pytest.raises(WorkspaceError, match="plan-and-preprocess"):
        read_plan(location)


@pytest.mark.parametrize("spoil", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("gone")])
def test_folds_that_are_no_file_are_refused_and_not_passed_over(planned, spoil):
    path = planned.preprocessed / FOLDS_FILE
    path.unlink()
    spoil(path)
    with pytest.raises(FormatError, match=FOLDS_FILE):
        open_planned(planned, "0")


@pytest.mark.parametrize("known", [None, (), ("0", "1")])
def test_all_and_full_are_always_there(known):
    check_fold("all", known)
    check_fold("full", known)


@pytest.mark.parametrize(
    ("fold", "known", "says"),
    [
        ("some", None, "the number of a fold.*'some'"),
        ("", None, "the number of a fold"),
        ("2", ("0", "1"), "one of 0, 1.*'2'"),
    ],
)
def test_other_folds_are_refused(fold, known, says):
    with pytest.raises(WorkspaceError, match=says):
        check_fold(fold, known)


def test_a_number_may_be_a_fold_as_long_as_there_are_none():
    check_fold("4", None)
    check_fold("1", ("0", "1"))
