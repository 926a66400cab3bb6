import json
from pathlib import Path

import makers
import pytest

from autospine.core.errors import AutospineError, FormatError, WorkspaceError
from autospine.dataset.splits import FoldsFile
from autospine.evaluation.stored_scores import CROSS_VALIDATION, read_cross_validation
from autospine.models.best import BEST, Best, choose_models
from autospine.plan import Plan
from autospine.preprocessing.store import CaseRecord, open_case
from autospine.storage.file_names import (
    folder_name_fault,
    folder_to_write,
    name_fault,
    path_below,
    refuse_link,
)
from autospine.storage.locks import heartbeat_lock, waiting_lock
from autospine.storage.serialization import from_json, to_json
from autospine.storage.trained_models import fold_folder
from autospine.storage.workspace import Workspace

HOSTILE = (
    *("../../victim", "..", ".", "", " ", "...", "a/b", "a/../../victim", "/etc", "/", "./a", "a/"),
    *("..\\..\\victim", "\\\\server\\share", "C:\\victim", "C:victim", "a\\b"),
    *("a\x00b", "a\nb", "a\x1b[2J", "CON", "nul", "com1", "LPT9.json", "aux.nii.gz", "a" * 300),
)
"""Names that lead out of a folder, or that some system takes for something else."""

SOUND = ("fullres", "ct_001", "Müller", "case 1", "a.b", "1.2.840.113", "con_001", "nullam", "x" * 200)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_elsewhere_are_refused(name, tmp_path):
    assert name_fault(name) is not None
    assert folder_name_fault(name) is not None
    with pytest.raises(WorkspaceError, match="expected the name of a file or folder"):
        path_below(tmp_path, name)
    with pytest.raises(WorkspaceError):
        folder_to_write(tmp_path, "inside", name)


@pytest.mark.parametrize("name", SOUND)
def test_plain_names_are_taken(name, tmp_path):
    assert path_below(tmp_path, name, f"{name}.json") == tmp_path / name / f"{name}.json"
    assert folder_to_write(tmp_path, name) == tmp_path / name
    assert folder_name_fault(name) is None


@pytest.mark.parametrize("name", ["a.", "a ", "ab:c", ".hidden", "..a"])
def test_folders_are_refused_that_some_systems_call_otherwise(name):
    assert folder_name_fault(name) is not None
    assert name_fault(name) is None


def plan_with(name, *path):
    described = json.loads(to_json(makers.plan()))
    place = described
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = name
    return json.dumps(described)


BEST_FILE = {"format_version": 1, "dataset": "D", "n_cases": 1, "command": "", "candidates": []}
FILES = {
    "plan.json, cases": (Plan, lambda name: plan_with(name, "configurations", 0, "cases")),
    "plan.json, configuration": (Plan, lambda name: plan_with(name, "configurations", 0, "name")),
    "plan.json, dataset": (Plan, lambda name: plan_with(name, "dataset")),
    "plan.json, file_ending": (Plan, lambda name: plan_with(name, "file_ending")),
    "folds.json": (
        FoldsFile,
        lambda name: json.dumps({"format_version": 1, "dataset": "D", "validation": [["a"], [name]]}),
    ),
    "best.json": (Best, lambda name: json.dumps(BEST_FILE | {"members": [name]})),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("file", FILES)
def test_no_file_states_a_name_that_leads_elsewhere(file, name):
    kind, text = FILES[file]
    with pytest.raises(FormatError, match=r"expected (a plan|the folds|the result)"):
        from_json(text(name), kind, "a file")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_stored_case_lies_in_its_folder(name, tmp_path):
    image = makers.np.zeros((4, 4, 4))
    case = makers.store_case(tmp_path, "a", image, image.astype("uint8"))
    record = json.loads(to_json(case.record)) | {"name": name}
    with pytest.raises(FormatError, match="the record of a preprocessed case"):
        from_json(json.dumps(record), CaseRecord, "a.json")
    with pytest.raises(AutospineError, match="name"):
        open_case(tmp_path, name)


@pytest.mark.parametrize("name", HOSTILE)
def test_scores_state_no_folds_and_cases_that_lead_elsewhere(name, tmp_path):
    scores = {"format_version": 3, "postprocessed": None, "mean_dice": 0.5, "modalities": {}}
    for folds in ({name: {"cases": ["a"]}}, {"0": {"cases": [name]}}):
        (tmp_path / CROSS_VALIDATION).write_text(json.dumps(scores | {"folds": folds}))
        with pytest.raises(FormatError, match="folds and cases whose names"):
            read_cross_validation(tmp_path)


@pytest.mark.parametrize("fold", ["x/../../../victim", "/../..", "0\x00", "0\\..\\..\\x"])
def test_the_folder_of_a_fold_lies_in_its_model(fold, tmp_path):
    with pytest.raises(WorkspaceError, match="expected the name"):
        fold_folder(tmp_path, fold)


def test_the_best_of_a_comparison_lies_beside_it(tmp_path):
    makers.write_model(tmp_path / "results" / "Dataset001_A" / "fullres")
    makers.write_model(tmp_path / "elsewhere")
    text = json.dumps(BEST_FILE | {"members": ["../../elsewhere"]})
    (tmp_path / "results" / "Dataset001_A" / BEST).write_text(text)
    with pytest.raises(FormatError, match="the result of a comparison"):
        choose_models(Workspace(root=tmp_path), None, None)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    return folder


def test_links_that_lead_out_are_not_written_through(victim, tmp_path):
    root = tmp_path / "preprocessed"
    (root / "real").mkdir(parents=True)
    (root / "away").symlink_to(victim)
    (root / "near").symlink_to(root / "real")
    with pytest.raises(WorkspaceError, match=r"found one to .*victim"):
        folder_to_write(root, "away")
    with pytest.raises(WorkspaceError, match="remove the link"):
        folder_to_write(root, "away", "deeper")
    assert folder_to_write(root, "near") == root / "near"
    (tmp_path / "short").symlink_to(root)  # where a user keeps a folder is the user's choice
    assert folder_to_write(tmp_path / "short", "real") == tmp_path / "short" / "real"


def test_no_lock_is_written_through_a_link(victim, tmp_path):
    path = tmp_path / "work.lock"
    path.symlink_to(victim / "thesis.txt")
    with pytest.raises(WorkspaceError, match="found a link"):
        refuse_link(path)
    with pytest.raises(WorkspaceError, match="found a link"), waiting_lock(path, "works"):
        pass
    with pytest.raises(WorkspaceError, match="found a link"), heartbeat_lock(path, "work", WorkspaceError):
        pass
    assert (victim / "thesis.txt").read_text() == "years of work"
