import pytest

from autospine.core.errors import DatasetError
from autospine.dataset.excluded_cases import EXCLUDED, exclude_cases, include_cases, read_excluded
from autospine.dataset.raw import load_dataset


def test_excluded_cases_are_no_training_cases_and_their_files_stay(raw_dataset):
    folder = raw_dataset()
    names = [case.name for case in load_dataset(folder).cases]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert exclude_cases(folder, {names[0]: "cut labels, twice"}) == (names[0],)
    dataset = load_dataset(folder)
    assert [case.name for case in dataset.cases] == names[1:]
    assert any("excluded.csv leaves out 1 case" in note for note in dataset.notes)
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted([*files, folder / EXCLUDED])
    assert read_excluded(folder) == {names[0]: "cut labels, twice"}
    assert include_cases(folder, [names[0]]) == (names[0],)
    assert [case.name for case in load_dataset(folder).cases] == names
    assert not (folder / EXCLUDED).exists()


def test_the_first_reason_stays(tmp_path):
    exclude_cases(tmp_path, {"a": "first"})
    assert exclude_cases(tmp_path, {"a": "second", "=b": ""}) == ("=b",)
    assert read_excluded(tmp_path) == {"=b": "", "a": "first"}


def test_tables_of_spreadsheets_are_read(tmp_path):
    (tmp_path / EXCLUDED).write_text("\ufeffCase;Reason\r\na;bad\r\n\r\nb;\r\n", encoding="utf-8")
    assert read_excluded(tmp_path) == {"a": "bad", "b": ""}


def test_another_table_is_refused(tmp_path):
    (tmp_path / EXCLUDED).write_text("name,why\na,b\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="columns case, reason"):
        read_excluded(tmp_path)


def test_excluded_names_without_files_are_noted(raw_dataset):
    folder = raw_dataset()
    exclude_cases(folder, {"gone": ""})
    dataset = load_dataset(folder)
    assert any("gone" in note and "without image" in note for note in dataset.notes)
