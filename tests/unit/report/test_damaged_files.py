"""Files that were changed by hand: a report is written, or one sentence names the file."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_folders

from autospine.cli import main
from autospine.core.errors import AutospineError
from autospine.prediction.case_log import RECORD
from autospine.report.folder_report import write_report
from autospine.report.result_folder import SCORES

WRONG: tuple[Any, ...] = (None, 3, "word", [], {}, [7], {"a": [1]}, 10**400)


def places(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to each value of JSON."""
    yield place
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from places(content[key], (*place, key))


def changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return JSON in which one value is another."""
    if not place:
        return value
    whole = copy.deepcopy(content)
    part = whole
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return whole


def check_changes(folder: Path, file: str, spare: Path, step: int = 3) -> int:
    """Change every `step`th value of a file in turn; return how many pages were written all the same."""
    spare.mkdir()
    path = folder / file
    text = path.read_text(encoding="utf-8")
    written = 0
    for number, place in enumerate(list(places(json.loads(text)))[::step]):
        value = WRONG[number % len(WRONG)]
        path.write_text(json.dumps(changed(json.loads(text), place, value)), encoding="utf-8")
        try:
            write_report(folder, spare, most_pictured=0)
            written += 1
        except AutospineError as error:
            assert file in str(error), (place, value)
            assert "\n" not in str(error)
    path.write_text(text, encoding="utf-8")
    return written


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_folders.evaluated_folder(tmp_path_factory.mktemp("evaluated"), "--no-report")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_folders.experiment_folder(tmp_path_factory.mktemp("experiment"))


def test_any_change_of_scores_leads_to_a_page_or_to_a_sentence(evaluated, tmp_path):
    assert check_changes(evaluated, SCORES, tmp_path / "pages") > 30


@pytest.mark.parametrize("file", [RECORD, "statistics.json"])
def test_what_is_damaged_beside_the_scores_is_left_out_and_said(evaluated, tmp_path, file):
    text = (evaluated / file).read_text(encoding="utf-8")
    (evaluated / file).write_text(text[: len(text) // 2], encoding="utf-8")
    words = report_folders.Page(write_report(evaluated, tmp_path)).words
    (evaluated / file).write_text(text, encoding="utf-8")
    assert "not read left out: expected" in words
    assert f"{evaluated / file}, found no JSON" in words
    assert "mean Dice" in words


def test_any_change_of_a_model_or_an_experiment_leads_to_a_page_or_to_a_sentence(experiment, tmp_path):
    assert check_changes(experiment, "experiment.json", tmp_path / "a", step=1) > 20
    model = experiment / "plain/seed_0"
    assert check_changes(model, "cross_validation.json", tmp_path / "b") > 30


def test_any_change_of_the_differences_leaves_the_page_without_them(evaluated, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(evaluated, other)
    references = evaluated.parent / "Dataset001_Small/labelsTs"
    assert main(["evaluate", str(other), str(references), "--against", str(evaluated), "--no-report"]) == 0
    values = len(list(places(json.loads((other / "comparison.json").read_text(encoding="utf-8"))))[::3])
    assert check_changes(other, "comparison.json", tmp_path / "pages") == values
