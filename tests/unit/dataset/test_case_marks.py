import json
from pathlib import Path

import pytest

from autospine.core.errors import FormatError
from autospine.dataset.case_marks import cases_marked, read_marks

CASES = {
    "a": {"mark": "fail", "grade": 2, "note": "cut"},
    "b": {"mark": "artefact", "grade": None, "note": ""},
    "c": {"mark": "pass", "grade": 9, "note": ""},
    "d": {"mark": "", "grade": 3, "note": "?"},
}


def written(path: Path, **changes: object) -> Path:
    content = {
        "format_version": 1,
        "kind": "autospine marks",
        "report": "out",
        "folder": "/out",
        "cases": CASES,
    }
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def test_marks_are_read_with_grades_and_notes(tmp_path):
    marks = read_marks(written(tmp_path / "marks.json"))
    assert (marks["a"].mark, marks["a"].grade, marks["a"].note) == ("fail", 2, "cut")
    assert marks["b"].grade is None


def test_cases_of_a_judgement_come_with_their_notes(tmp_path):
    path = written(tmp_path / "marks.json")
    assert cases_marked(path, "fail") == {"a": "cut"}
    assert cases_marked(path, "fail", "artefact") == {"a": "cut", "b": ""}


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "something else"},
        {"format_version": 2},
        {"cases": {"a": {"mark": "bad", "grade": None, "note": ""}}},
        {"cases": {"a": {"mark": "fail", "grade": 10, "note": ""}}},
    ],
)
def test_what_is_no_file_of_marks_is_refused(tmp_path, changes):
    with pytest.raises(FormatError):
        read_marks(written(tmp_path / "marks.json", **changes))


def test_a_file_without_such_marks_says_how_to_make_them(tmp_path):
    with pytest.raises(FormatError, match=r"marked fail in .* found none; mark them in the report"):
        cases_marked(written(tmp_path / "marks.json", cases={}), "fail")
