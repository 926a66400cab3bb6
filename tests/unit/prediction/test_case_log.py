from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from autospine.core.errors import FormatError, WorkspaceError
from autospine.evaluation.postprocessing import LabelChange
from autospine.prediction.case_log import RECORD, PredictedCase, UsedModel, add_to_record, read_record

CASES = [
    PredictedCase(
        case="b",
        status="written",
        models=(UsedModel(folder="results/Dataset001_X/fullres", folds=("0", "1"), digest="ab" * 32),),
        versions={"autospine": "0.1.0", "torch": "2.13.0"},
        device="CPU",
        modality="CT",
        shape=(800, 512, 512),
        spacing_mm=(0.8, 0.8, 0.8),
        tiles=588,
        tiles_run=312,
        near="body",
        seconds=12.5,
        peak_gb=3.2,
        changes=(LabelChange(from_label="L3", to_label="L2", voxels=1200, ml=1.2),),
        warnings=("direction matrix was off",),
    ),
    PredictedCase(case="a", status="failed", error="expected a readable image, found none"),
]


def test_what_is_written_comes_back_by_name(tmp_path):
    assert read_record(tmp_path) == {}
    add_to_record(tmp_path, CASES)
    record = read_record(tmp_path)
    assert list(record) == ["a", "b"]
    assert sorted(record.values(), key=lambda case: case.case, reverse=True) == CASES


def test_entries_of_earlier_versions_are_read(tmp_path):
    """Before changes were recorded."""
    add_to_record(tmp_path, CASES[1:])
    text = (tmp_path / RECORD).read_text(encoding="utf-8")
    assert '"changes": [],\n' in text
    (tmp_path / RECORD).write_text(text.replace('"changes": [],\n', ""), encoding="utf-8")
    assert list(read_record(tmp_path).values()) == CASES[1:]


def test_what_another_process_has_put_there_stays(tmp_path):
    add_to_record(tmp_path, CASES[:1])
    add_to_record(tmp_path, [replace(CASES[1], error="another")])
    add_to_record(tmp_path, CASES[1:])
    assert list(read_record(tmp_path).values()) == CASES[::-1]


def test_processes_do_not_lose_each_others_cases(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda n: add_to_record(tmp_path, [replace(CASES[1], case=f"{n}")]), range(40)):
            pass
    assert set(read_record(tmp_path)) == {str(n) for n in range(40)}


def test_a_damaged_record_is_refused_and_left_alone(tmp_path):
    path = tmp_path / RECORD
    path.write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match=RECORD):
        read_record(tmp_path)
    assert path.read_text(encoding="utf-8") == "{"


def test_a_record_of_another_version_is_refused(tmp_path):
    add_to_record(tmp_path, CASES)
    path = tmp_path / RECORD
    text = path.read_text(encoding="utf-8").replace('"format_version": 1', '"format_version": 9')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match="found 9"):
        read_record(tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match=r"expected to write .*predictions.json"):
        add_to_record(tmp_path / "file", CASES)
