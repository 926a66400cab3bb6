"""Reports of comparisons and of experiments: models side by side, and the cases in which they differ."""

import json
import shutil
from pathlib import Path

import pytest
import report_folders
from report_folders import Page

from autospine.cli import main
from autospine.models.best import Best, Candidate
from autospine.report.folder_report import write_report
from autospine.storage.serialization import write_json


def candidate(folder: Path, *members: str, p_value: float | None = None) -> Candidate:
    """A candidate as its folder has scored it."""
    scores = json.loads((folder / "cross_validation.json").read_text(encoding="utf-8"))
    return Candidate(
        members=members,
        dice=scores["mean_dice"],
        cleaned_dice=None,
        modality_dice={},
        minutes=1.5,
        parameters=2_000_000,
        memory_bytes=2**30,
        p_value=p_value,
    )


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    """The results of two models and of both together, which are best."""
    raw, results = report_folders.raw_dataset(tmp_path), tmp_path / "results/Dataset001_Small"
    both = report_folders.validated_model(
        raw, results / "ensembles/fast+slow", kinds=("good", "shifted", "shifted", "shifted")
    )
    for name in ("dataset.json", "plan.json"):  # an ensemble has none of its own
        (both / name).unlink()
    slow = report_folders.validated_model(
        raw, results / "slow", kinds=("good", "good", "exchanged", "exchanged")
    )
    fast = report_folders.validated_model(raw, results / "fast")
    candidates = (
        candidate(both, "fast", "slow"),
        candidate(slow, "slow", p_value=0.01),
        candidate(fast, "fast", p_value=0.2),
    )
    best = Best(
        format_version=1,
        dataset="Dataset001_Small",
        n_cases=4,
        members=("fast", "slow"),
        command="autospine predict -i IMAGES -o OUTPUT",
        candidates=candidates,
    )
    write_json(results / "best.json", best)
    return results


def test_a_comparison_says_which_model_is_best_and_what_is_shown(compared):
    page = Page(write_report(compared))
    assert "best fast + slow" in page.words
    assert "fast + slow is shown to be better than slow." in page.words
    assert "fast + slow is not shown to be better than fast (p = 0.2): it may be chance." in page.words
    assert "4 cases are too few for any difference to be shown" in page.words
    for heading in ("Models, the best first", "Difference from fast + slow in each case", "Scores"):
        assert heading in page.words
    assert f"autospine compare -d Dataset001_Small -w {compared.parents[1]}" in page.words


def test_cases_are_those_of_the_best_and_say_where_another_model_is_better(compared):
    page = Page(write_report(compared))
    cases = {page.case(index)["name"]: page.case(index) for index in range(4)}
    assert all(picture["reference"] for picture in cases["shifted"]["pictures"])
    dice = {fact["name"]: fact["value"] for fact in cases["shifted"]["facts"]}
    assert dice["Dice of slow"] == "1.000"
    assert float(dice["Dice of fast + slow"]) == float(dice["Dice of fast"]) < 1
    better = f"slow is better here: Dice 1.000 instead of {dice['Dice of fast + slow']} of fast + slow"
    assert better in cases["shifted"]["findings"]
    assert not [text for text in cases["good"]["findings"] if "better" in text]


def test_points_of_the_comparison_open_the_case_that_they_stand_for(compared):
    page = Page(write_report(compared))
    index = next(i for i in range(4) if page.case(i)["name"] == "shifted")
    points = [text for text in page.text if text.startswith("shifted, slow: ")]
    assert points[0] == "shifted, slow: 1"
    assert len(points) == 2  # its Dice, and the difference from the best
    source = page.source
    assert source[: source.index("shifted, slow: 1")].rsplit("data-case=", 1)[1].startswith(f'"{index}"')


def test_models_that_were_scored_again_since_are_named(compared):
    path = compared / "best.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["candidates"][2]["dice"] += 0.1
    path.write_text(json.dumps(content), encoding="utf-8")
    page = Page(write_report(compared))
    assert "The scores of fast are not those of the comparison any more" in page.words
    assert [fact["name"] for fact in page.case(0)["facts"]] == ["Dice of fast + slow", "Dice of slow"]


def test_a_comparison_whose_models_have_gone_keeps_its_table(compared):
    for folder in ("fast", "slow", "ensembles"):
        shutil.rmtree(compared / folder)
    page = Page(write_report(compared))
    assert "Models, the best first" in page.words
    assert "no case is predicted or scored yet" in page.words


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return report_folders.experiment_folder(tmp_path)


def test_an_experiment_shows_question_verdict_table_and_cases(experiment):
    page = Page(write_report(experiment))
    for text in (
        "Does it earn its cost?",
        "What was removed does harm here.",
        "no <b>attention</b> at all",
        "+0.300",
        "+0.100 to +0.500",
        f"autospine experiment ablation -d Dataset001_Small -w {experiment.parents[3]} -c fast --seeds 1",
        "--seeds 1 --fold 0 --steps 20",
        "Loss of each design",
        "Difference in Dice from as_planned in each group of cases",
        "plain, CT: 0.4",
        "1.50",
        "Difference from as_planned in each case",
    ):
        assert text in page.words
    assert page.case(0)["name"] == "empty"
    assert page.case(0)["pictures"][0]["reference"]
    assert page.case(1)["findings"][-1].startswith("plain is better here: Dice 1.000 instead of")


def test_a_damaged_experiment_is_told(experiment, capsys):
    path = experiment / "experiment.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for wrong in ({**content, "format_version": 7}, {**content, "designs": []}):
        path.write_text(json.dumps(wrong), encoding="utf-8")
        assert main(["report", str(experiment)]) == 1
        assert "experiment.json" in capsys.readouterr().err
    shutil.rmtree(experiment / "plain")
    path.write_text(json.dumps(content), encoding="utf-8")
    page = Page(write_report(experiment))
    assert "Experiment" in page.words
