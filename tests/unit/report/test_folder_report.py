"""The page of a folder: what it says, and what it makes of bad input."""

import base64
import gzip
import hashlib
import json
import os
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import report_folders
from report_folders import Page

from autospine.cli import main
from autospine.core.errors import WorkspaceError
from autospine.prediction.case_log import PredictedCase, UsedModel, add_to_record
from autospine.report.folder_report import write_report
from autospine.report.report_page import NIIVUE
from autospine.report.result_folder import read_results


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Path:
    return report_folders.evaluated_folder(tmp_path_factory.mktemp("evaluated"))


def test_the_worst_case_comes_first_and_says_what_is_wrong(evaluated):
    page = Page(evaluated / "report.html")
    names = [page.case(index)["name"] for index in range(4)]
    assert names == ["empty", "exchanged", "shifted", "good"]
    assert "L1 is missed: 0 % of it has any label" in page.case(0)["findings"]
    assert "100 % of L1 is called L2" in page.case(1)["findings"]
    assert page.case(3)["findings"] == ["prediction and reference agree"]
    assert "Dice 0.000" in page.words
    assert "confidence interval" in page.words


def test_pictures_of_a_case_go_through_the_worst_place_and_the_middle(evaluated):
    page = Page(evaluated / "report.html")
    assert [len(page.case(index)["pictures"]) for index in range(4)] == [6, 6, 6, 3]
    for picture in page.case(1)["pictures"]:
        assert all(picture[layer] for layer in ("image", "prediction", "reference", "difference"))
    assert [bool(picture["marked"]) for picture in page.case(1)["pictures"]] == [True] * 3 + [False] * 3


def test_the_page_asks_nothing_of_a_network_and_runs_its_own_script_alone(evaluated):
    page = Page(evaluated / "report.html")
    for _, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv")]
    assert policy is not None
    assert "default-src 'none'" in policy
    for block in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.blocks[block].encode()).digest()).decode()
        assert f"{block}-src 'sha256-{digest}'" in policy
    library = gzip.decompress(base64.b64decode(page.blocks["viewer-library"]))
    digest = hashlib.sha256(library).hexdigest()
    assert digest in (NIIVUE.parent / "README.md").read_text(encoding="utf-8")
    assert base64.b64encode(bytes.fromhex(digest)).decode() in policy


def test_volumes_of_the_viewer_are_reduced_and_said_so(evaluated):
    page = Page(evaluated / "report.html")
    volumes = json.loads(page.blocks["volumes-1"])
    assert volumes["note"].startswith("reduced for this page: voxels of 3 × 2 × 2 mm")
    assert [each["name"] for each in volumes["classes"]] == ["L1", "L2", "canal"]
    maps = {
        name: nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(volumes[name])))
        for name in ("image", "prediction", "reference")
    }
    shape = tuple(reversed(report_folders.SHAPE))
    assert {each.shape for each in maps.values()} == {shape}
    assert nibabel.aff2axcodes(maps["image"].affine) == ("R", "A", "S")
    expected = report_folders.reference().transpose(2, 1, 0)[::-1, ::-1] > 0
    assert np.array_equal(np.asarray(maps["reference"].dataobj) > 0, expected)
    s, p, left = volumes["place"]
    assert volumes["start"] == [0, 0, 0]
    assert volumes["count"] == list(report_folders.SHAPE)
    at = (shape[0] - 1 - left, shape[1] - 1 - p, s)
    assert maps["prediction"].dataobj[at] != maps["reference"].dataobj[at]


def test_what_goes_to_a_process_that_draws_a_case_does_not_grow_with_the_folder(evaluated):
    results = read_results(evaluated)
    many = {f"other {number}": results.scores["cases"]["good"] for number in range(1000)}
    larger = replace(
        results,
        scores=dict(results.scores) | {"cases": dict(results.scores["cases"]) | many},
        images=dict(results.images) | {name: (Path(name),) for name in many},
    )
    assert pickle.dumps(larger.of_case("good")) == pickle.dumps(results.of_case("good"))
    assert results.of_case("good").read_maps("good")[0].reference is not None


def test_ids_occur_once_and_links_lead_somewhere(evaluated):
    page = Page(evaluated / "report.html")
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {link[1:] for link in links if link} <= set(ids)


def test_names_are_shown_as_text_whatever_they_contain(tmp_path, capsys):
    names = report_folders.HOSTILE_CASES
    out = report_folders.hostile_folder(tmp_path)
    assert main(["evaluate", str(out), str(tmp_path / "Dataset001_Small/labelsTs")]) == 0
    page = Page(out / "report.html")
    assert not [tag for tag, _ in page.tags if tag in ("img", "b")]
    assert report_folders.HOSTILE in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert {page.case(index)["name"] for index in range(4)} == set(names)
    assert page.source.count("<script") == 4 + 4 + 3  # cases, volumes, the table, the library, the page's own


def test_a_folder_without_references_shows_its_predictions(tmp_path):
    out = report_folders.dataset_folder(tmp_path)
    for name in ("statistics.json", "evaluation.json"):
        assert not (out / name).exists()
    add_to_record(out, [PredictedCase(case="broken", status="failed", error="the image <is> damaged")])
    page = Page(write_report(out))
    assert page.case(0)["name"] == "broken"
    assert page.case(0)["findings"] == ["the prediction has failed: the image <is> damaged"]
    assert "1.5 to 4.5 s" in page.words
    assert "Scores" not in page.words
    assert "predictions again" not in page.words  # as it is not known with which model


def test_predictions_have_the_command_that_makes_them_again(tmp_path):
    out = report_folders.dataset_folder(tmp_path)
    model = UsedModel(folder="my model", folds=("0", "1"), digest="d1")
    images = tmp_path / "Dataset001_Small/imagesTs"
    for name in report_folders.CASES:
        image = str(images / f"{name}_0000.nii.gz")
        made = {"images": (image,), "models": (model,), "mirrored": True}
        add_to_record(out, [PredictedCase(case=name, status="written", **made)])
    words = Page(write_report(out)).words
    assert f"autospine predict -i {images} -o OTHER_FOLDER -m 'my model' -f 0 -f 1 --mirror" in words


def test_images_that_have_gone_leave_pictures_of_the_labels(tmp_path):
    out = report_folders.evaluated_folder(tmp_path, "--no-report")
    assert not (out / "report.html").exists()
    shutil.rmtree(tmp_path / "Dataset001_Small/imagesTs")
    (out / "good.nii.gz").unlink()
    page = Page(write_report(out))
    cases = {page.case(index)["name"]: page.case(index) for index in range(4)}
    assert cases["shifted"]["pictures"][0]["image"] == ""
    assert cases["shifted"]["pictures"][0]["prediction"]
    assert any("cannot be read" in text for text in cases["shifted"]["findings"])
    assert not any("reference" in text for text in cases["shifted"]["findings"])
    assert cases["good"]["pictures"] == []
    (reason,) = cases["good"]["findings"]
    assert reason == "no pictures: its label map has gone, or is in a format that is not drawn"


def test_references_that_have_gone_are_named(tmp_path):
    out = report_folders.evaluated_folder(tmp_path, "--no-report")
    shutil.rmtree(tmp_path / "Dataset001_Small/labelsTs")
    case = Page(write_report(out)).case(1)
    assert case["scores"]["L1"]["Dice"] == 0
    assert (case["pictures"][0]["prediction"] != "", case["pictures"][0]["reference"]) == (True, "")
    lacking = "pictures without the reference: its label map has gone since it was compared"
    assert lacking in case["findings"]


def test_scores_of_an_earlier_version_are_shown_without_pictures(tmp_path):
    out = report_folders.evaluated_folder(tmp_path, "--no-report", "-o", str(tmp_path / "scores"))
    path = tmp_path / "scores/evaluation.json"
    scores = json.loads(path.read_text(encoding="utf-8"))
    del scores["compared"]
    path.write_text(json.dumps(scores), encoding="utf-8")
    page = Page(write_report(path.parent))
    assert page.case(0)["name"] == "empty"
    assert page.case(0)["pictures"] == []
    assert out.is_dir()


@pytest.mark.parametrize("part", ["cases", "missing"])
def test_scores_that_were_changed_by_hand_are_told(evaluated, tmp_path, capsys, part):
    scores = json.loads((evaluated / "evaluation.json").read_text(encoding="utf-8")) | {part: "none"}
    (tmp_path / "evaluation.json").write_text(json.dumps(scores), encoding="utf-8")
    assert main(["report", str(tmp_path)]) == 1
    assert f'evaluation.json, found {part} is "none", expected a' in capsys.readouterr().err


def test_label_maps_that_are_newer_than_their_scores_are_told(tmp_path):
    out = report_folders.evaluated_folder(tmp_path, "--no-report")
    said = "label maps were predicted after they were scored"
    assert said not in Page(write_report(out)).words
    before = (out / "evaluation.json").stat().st_mtime - 3600
    os.utime(out / "evaluation.json", (before, before))
    assert said in Page(write_report(out)).words


def test_scores_again_has_the_options_of_the_evaluation(tmp_path):
    scores = tmp_path / "scores"
    out = report_folders.evaluated_folder(tmp_path, "--metric", "dice", "--metric", "hd95", "-o", str(scores))
    references = tmp_path / "Dataset001_Small/labelsTs"
    command = f"autospine evaluate {out} {references} --metric dice --metric hd95 -o {scores}"
    assert command in Page(scores / "report.html").words


def test_a_folder_whose_name_is_no_text_has_a_page(tmp_path):
    out = report_folders.evaluated_folder(tmp_path, "--no-report")
    odd = tmp_path / os.fsdecode(b"out-\xff")
    out.rename(odd)
    assert "Evaluation: out-" in Page(write_report(odd, tmp_path / "page.html")).words


def test_a_page_goes_into_the_folder_that_is_named(evaluated, tmp_path):
    assert write_report(evaluated, tmp_path) == tmp_path / "report.html"
    assert (tmp_path / "report.html").is_file()


def test_a_folder_that_cannot_be_written_to_is_told_with_what_helps(evaluated, capsys):
    assert main(["report", str(evaluated), "-o", "/proc/report.html"]) == 1
    assert "name another with -o" in capsys.readouterr().err


def test_one_case_and_a_class_that_never_occurs_have_a_page(tmp_path):
    labels = {**report_folders.LABELS, "coccyx": 77}
    out = report_folders.dataset_folder(tmp_path, names=report_folders.CASES)
    raw = tmp_path / "Dataset001_Small"
    described = json.loads((raw / "dataset.json").read_text(encoding="utf-8")) | {"labels": labels}
    (raw / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    for case in report_folders.CASES[1:]:
        (out / f"{case}.nii.gz").unlink()
        (raw / f"labelsTs/{case}.nii.gz").unlink()
    (out / "predictions.json").unlink()
    assert main(["evaluate", str(out), str(raw / "labelsTs")]) == 0
    page = Page(out / "report.html")
    assert page.case(0)["name"] == "good"
    assert page.case(0)["scores"]["coccyx"]["Dice"] is None
    assert "case-1" not in page.blocks


def test_a_folder_with_nothing_to_report_on_is_refused(tmp_path):
    with pytest.raises(WorkspaceError, match="name another folder"):
        write_report(tmp_path)


def test_a_report_that_fails_does_not_fail_the_command(tmp_path, monkeypatch, capsys):
    def fail(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autospine.report.folder_report.write_page", fail)
    out = report_folders.evaluated_folder(tmp_path)
    assert (out / "evaluation.json").is_file()
    assert "the report of" in capsys.readouterr().err


def test_the_command_writes_where_it_is_told(evaluated, tmp_path, capsys):
    target = tmp_path / "page.html"
    assert main(["report", str(evaluated), "-o", str(target)]) == 0
    assert capsys.readouterr().out.strip() == f"report: {target}"
    assert re.search(r"<h1>.*Evaluation: out", target.read_text(encoding="utf-8"))
    assert main(["report", str(tmp_path / "nowhere")]) == 1


def test_the_commands_name_the_dataset_and_the_folder_of_the_images(tmp_path):
    words = Page(report_folders.evaluated_folder(tmp_path / "raw") / "report.html").words
    images = tmp_path / "raw/Dataset001_Small/imagesTs"
    assert f"autospine dataset exclude -d Dataset001_Small -w {tmp_path} --marks marks.json" in words
    assert f"autospine predict -i {images} -o OTHER_FOLDER -m OTHER_MODEL --only-failed marks.json" in words


def test_where_the_images_lie_in_no_workspace_the_commands_leave_the_names_open(evaluated):
    assert "autospine dataset exclude -d DATASET --marks marks.json" in Page(evaluated / "report.html").words
