import csv
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from autospine.core.errors import FormatError, WorkspaceError
from autospine.evaluation.label_statistics import LabelStatistics
from autospine.evaluation.statistics_files import (
    STATISTICS,
    STATISTICS_COLUMNS,
    STATISTICS_TABLE,
    add_statistics,
    read_statistics,
)

FOUND = LabelStatistics(
    label="=L1",
    integer=20,
    voxels=12,
    ml=0.072,
    centroid_mm=(11.5, -12.0, 37.5),
    mean_intensity=301.25,
    components=2,
    touches_border=True,
)
ABSENT = LabelStatistics(
    label="L2",
    integer=21,
    voxels=0,
    ml=0.0,
    centroid_mm=None,
    mean_intensity=None,
    components=0,
    touches_border=False,
)


def table(folder: Path) -> list[list[str]]:
    with (folder / STATISTICS_TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_files_say_the_same_and_cells_are_safe(tmp_path: Path) -> None:
    assert read_statistics(tmp_path) == {}
    add_statistics(tmp_path, {"b": (FOUND, ABSENT)})
    assert read_statistics(tmp_path) == {"b": (FOUND, ABSENT)}
    assert table(tmp_path) == [
        list(STATISTICS_COLUMNS),
        ["b", "'=L1", "20", "12", "0.072", "11.5", "-12.0", "37.5", "301.25", "2", "true", "LPS"],
        ["b", "L2", "21", "0", "0.0", "", "", "", "", "0", "false", "LPS"],
    ]


def test_files_name_the_coordinates_and_those_that_do_not_are_read(tmp_path: Path) -> None:
    add_statistics(tmp_path, {"b": (FOUND,)})
    path = tmp_path / STATISTICS
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["format_version"], content.pop("coordinates")) == (2, "LPS")
    path.write_text(json.dumps(content | {"format_version": 1}), encoding="utf-8")
    assert read_statistics(tmp_path) == {"b": (FOUND,)}
    add_statistics(tmp_path, {"a": (ABSENT,)})
    assert json.loads(path.read_text(encoding="utf-8"))["coordinates"] == "LPS"
    assert read_statistics(tmp_path) == {"a": (ABSENT,), "b": (FOUND,)}


def test_cases_of_other_runs_stay(tmp_path: Path) -> None:
    add_statistics(tmp_path, {"b": (FOUND,), "c": (FOUND,)})
    add_statistics(tmp_path, {"a": (ABSENT,), "c": (ABSENT,)})
    add_statistics(tmp_path, {})
    assert read_statistics(tmp_path) == {"a": (ABSENT,), "b": (FOUND,), "c": (ABSENT,)}
    assert [row[0] for row in table(tmp_path)[1:]] == ["a", "b", "c"]


def test_intensities_stay_where_the_same_label_map_is_measured_without_its_image(tmp_path: Path) -> None:
    add_statistics(tmp_path, {"a": (FOUND, ABSENT), "b": (FOUND,)})
    without, other = replace(FOUND, mean_intensity=None), replace(FOUND, mean_intensity=None, voxels=13)
    add_statistics(tmp_path, {"a": (without, ABSENT), "b": (other,)})
    assert read_statistics(tmp_path) == {"a": (FOUND, ABSENT), "b": (other,)}


def test_runs_side_by_side_do_not_lose_each_others_cases(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: add_statistics(tmp_path, {f"case{i}": (FOUND,)}), range(12)))
    assert len(read_statistics(tmp_path)) == len(table(tmp_path)) - 1 == 12


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / STATISTICS).write_text('{"mean": 3}', encoding="utf-8")
    with pytest.raises(FormatError, match=r"statistics of label maps .* restore the file"):
        add_statistics(tmp_path, {"a": (FOUND,)})
    assert (tmp_path / STATISTICS).read_text(encoding="utf-8") == '{"mean": 3}'
    (tmp_path / STATISTICS).write_text('{"format_version": 9, "cases": {}}', encoding="utf-8")
    with pytest.raises(FormatError, match=r"format_version 1 to 2 .* found 9; name another output folder"):
        add_statistics(tmp_path, {"a": (FOUND,)})


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match=r"expected to write .*; free some space"):
        add_statistics(tmp_path / "file", {"a": (replace(FOUND, label="L1"),)})
