import json

import pytest

from autospine.cli import main


@pytest.fixture
def words(raw_dataset, tmp_path) -> list[str]:
    """The command on a dataset of three cases."""
    raw_dataset(names=("a", "b", "c"))
    return ["dataset", "exclude", "-d", "7", "-w", str(tmp_path)]


def test_cases_are_excluded_listed_and_taken_back(words, capsys):
    assert main([*words, "a", "--reason", "cut"]) == 0
    assert "excluded: a" in capsys.readouterr().out
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == ["a: cut", "1 case of Dataset007_Test excluded"]
    assert main([*words, "a", "--undo"]) == 0
    assert "taken back: a" in capsys.readouterr().out
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == ["0 cases of Dataset007_Test excluded"]


def test_marks_of_a_report_are_taken_with_their_notes(words, tmp_path, capsys):
    cases = {
        "a": {"mark": "fail", "grade": 1, "note": "wrong level"},
        "b": {"mark": "artefact", "grade": None, "note": ""},
        "c": {"mark": "pass", "grade": None, "note": ""},
    }
    content = {"format_version": 1, "kind": "autospine marks", "report": "", "folder": "", "cases": cases}
    (tmp_path / "marks.json").write_text(json.dumps(content), encoding="utf-8")
    assert main([*words, "--marks", str(tmp_path / "marks.json"), "--reason", "see report"]) == 0
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["a: wrong level", "b: see report"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a.nii.gz"], "write a alone"),
        (["nobody"], "expected training cases of Dataset007_Test, found nobody"),
        (["a", "b", "c"], "exclude fewer"),
    ],
)
def test_names_that_cannot_be_excluded_are_told(words, capsys, names, says):
    assert main([*words, *names]) == 1
    assert says in capsys.readouterr().err
