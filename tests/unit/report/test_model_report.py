"""Reports of model folders and of plans."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import makers
import numpy as np
import pytest
import report_folders
from report_folders import Page
from safetensors.numpy import save_file

from autospine.cli import main
from autospine.report.folder_report import write_report
from autospine.storage.serialization import write_json


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of a workspace, of which fold 0 is validated and fold 1 has begun."""
    raw = report_folders.raw_dataset(tmp_path)
    model = report_folders.validated_model(raw, tmp_path / "results/Dataset001_Small/fast")
    (model / "fold_1").mkdir()
    shutil.copy(model / "fold_0/metrics.jsonl", model / "fold_1")
    return model


def test_a_model_shows_its_held_out_cases_curves_and_plan(model):
    page = Page(write_report(model))
    names = [page.case(index)["name"] for index in range(4)]
    assert names == ["empty", "exchanged", "shifted", "good"]
    assert len(page.case(1)["pictures"]) == 6
    assert page.case(1)["pictures"][0]["reference"]
    assert "complete folds 1: fold 0 unfinished folds 1: fold 1" in page.words
    for heading in ("Scores", "Training", "Plan", "Configuration"):
        assert heading in page.words
    assert "site 1" in page.words


def test_the_foot_of_a_model_says_how_it_was_trained_and_how_to_do_that_again(model, tmp_path):
    log = "".join(json.dumps({"epoch": n, "loss": 0.5, "seconds": 45.0}) + "\n" for n in (1, 2))
    (model / "fold_1/metrics.jsonl").write_text(log, encoding="utf-8")
    path = model / "cross_validation.json"
    scores = json.loads(path.read_text(encoding="utf-8"))
    scores["folds"]["0"]["weights"] = "a1b2"
    path.write_text(json.dumps(scores), encoding="utf-8")
    words = Page(write_report(model)).words
    assert "fold 0 0.0 min, fold 1 1.5 min" in words
    assert "weights of fold 0 BLAKE2b a1b2" in words
    assert f"autospine train fast -d Dataset001_Small -w {tmp_path} --fold all" in words
    shutil.copytree(model, tmp_path / "elsewhere")
    assert "training again" not in Page(write_report(tmp_path / "elsewhere")).words


def test_the_page_has_the_command_that_leaves_marked_cases_out(model, tmp_path, capsys, monkeypatch):
    page = Page(write_report(model))
    words = f"autospine dataset exclude -d Dataset001_Small -w {tmp_path} --marks marks.json"
    assert words in page.words
    assert "autospine predict" not in page.words
    marks = {"format_version": 1, "kind": "autospine marks", "report": "", "folder": ""}
    marks["cases"] = {"empty": {"mark": "fail", "grade": None, "note": "nothing is labelled"}}
    (tmp_path / "marks.json").write_text(json.dumps(marks), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(words.split()[1:]) == 0
    excluded = (tmp_path / "raw/Dataset001_Small/excluded.csv").read_text(encoding="utf-8")
    assert "empty,nothing is labelled" in excluded


def test_the_foot_of_a_model_says_what_it_was_trained_with(model):
    facts = {"autospine": "0.0.9", "torch": "2.12", "device": "CPU, 3 threads"}
    weights = model / "fold_0/model.safetensors"
    save_file({"a": np.zeros(1)}, weights, metadata={"facts": json.dumps(facts)})
    words = Page(write_report(model)).words
    assert "versions autospine 0.0.9, torch 2.12 device CPU, 3 threads" in words
    weights.write_bytes(weights.read_bytes()[:20])
    assert "autospine 0.0.9" not in Page(write_report(model)).words


def test_marks_of_other_cases_do_not_hinder_an_exclusion(model, tmp_path, capsys):
    marks = {"format_version": 1, "kind": "autospine marks", "report": "", "folder": ""}
    mark = {"mark": "fail", "grade": None, "note": ""}
    path = tmp_path / "marks.json"
    command = ["dataset", "exclude", "-d", "Dataset001_Small", "-w", str(tmp_path), "--marks", str(path)]
    path.write_text(json.dumps({**marks, "cases": {"empty": mark, "a test case": mark}}), encoding="utf-8")
    assert main(command) == 0
    said = capsys.readouterr()
    assert "excluded: empty" in said.out
    assert "no training cases of Dataset001_Small, left out: a test case" in said.out + said.err
    path.write_text(json.dumps({**marks, "cases": {"a test case": mark}}), encoding="utf-8")
    assert main(command) == 1
    assert "expected training cases of Dataset001_Small" in capsys.readouterr().err


def test_pictures_of_the_worst_cases_alone_where_time_is_short(model):
    page = Page(write_report(model, most_pictured=1))
    assert [bool(page.case(index)["pictures"]) for index in range(4)] == [True, False, False, False]
    assert "not drawn" in page.case(3)["findings"][-1]


def test_a_model_that_is_not_validated_shows_its_curves(model):
    (model / "cross_validation.json").unlink()
    page = Page(write_report(model))
    assert "no case is predicted or scored yet" in page.words
    assert "Training" in page.words
    assert "case-0" not in page.blocks


def test_a_model_without_its_dataset_shows_scores_and_predictions(model):
    shutil.rmtree(model.parents[2] / "raw")
    page = Page(write_report(model))
    assert page.case(0)["name"] == "empty"
    assert page.case(1)["pictures"][0]["reference"] == ""


def test_a_plan_gives_every_number_its_reason(tmp_path):
    plan = makers.plan()
    write_json(tmp_path / "plan.json", plan)
    page = Page(write_report(tmp_path))
    for decision in plan.rationale:
        assert decision.value in page.words
        assert decision.reason in page.words
    assert "case-0" not in page.blocks


def test_a_plan_of_a_workspace_has_its_command(model, tmp_path):
    planned = tmp_path / "preprocessed/Dataset001_Small"
    write_json(planned / "plan.json", makers.plan())
    words = Page(write_report(planned)).words
    assert f"autospine plan-and-preprocess -d Dataset001_Small -w {tmp_path}" in words
    assert f"next autospine train 0 -d Dataset001_Small -w {tmp_path} --fold all" in words
    (planned / "plan.json").rename(planned / "fingerprint.txt")
    (planned / "fingerprint.json").write_text("{}", encoding="utf-8")


def test_a_model_shows_the_decisions_of_its_own_configuration_alone(model):
    plan = makers.plan()
    (configuration,) = plan.configurations
    other = replace(plan.rationale[0], name="other.patch size", reason="it fits another one")
    own = replace(plan.rationale[0], name=f"{configuration.name}.patch size", reason="it fits this one")
    write_json(model / "plan.json", replace(plan, rationale=(other, own)))
    words = Page(write_report(model)).words
    assert "it fits this one" in words
    assert "it fits another one" not in words


def test_a_model_that_was_hardly_trained_says_so(model):
    configuration = makers.configuration()
    recipe = replace(configuration.training, epochs=1000, iterations_per_epoch=5)
    write_json(model / "plan.json", makers.plan(replace(configuration, training=recipe)))
    (model / "fold_0/metrics.jsonl").write_text('{"epoch": 1, "step": 3}\n', encoding="utf-8")
    assert "hardly trained 3 of 5000 steps" in Page(write_report(model)).words
    (model / "fold_0/metrics.jsonl").write_text('{"epoch": 9, "step": 900}\n', encoding="utf-8")
    (model / "fold_1/metrics.jsonl").write_text('{"epoch": 1, "step": 3}\n', encoding="utf-8")
    assert "hardly trained" not in Page(write_report(model)).words  # fold 1 is not complete


def test_a_damaged_plan_is_told(tmp_path, capsys):
    (tmp_path / "plan.json").write_text("{}", encoding="utf-8")
    assert main(["report", str(tmp_path)]) == 1
    assert "plan.json" in capsys.readouterr().err
