import json
import shutil
from dataclasses import replace
from pathlib import Path

import makers
import numpy as np
import pandas as pd
import pytest
from report_folders import Page

from autospine.cli import main
from autospine.evaluation.metrics import BUILT_IN
from autospine.io.images import write_array
from autospine.prediction.case_log import PredictedCase, add_to_record

SHAPE = (9, 9, 9)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """A cube, and its prediction a voxel lower."""
    reference = np.zeros(SHAPE, dtype=np.uint8)
    reference[3:6, 3:6, 3:6] = 1
    write_array(tmp_path / "labelsTr" / "a.nii.gz", reference, makers.grid(SHAPE))
    write_array(tmp_path / "out" / "a.nii.gz", np.roll(reference, 1, axis=0), makers.grid(SHAPE))
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "disc": 1}}
    described |= {"numTraining": 1, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return str(tmp_path / "out"), str(tmp_path / "labelsTr")


def test_the_metrics_that_are_named_are_those_that_are_written(folders, capsys):
    assert main(["evaluate", *folders, "--metric", "hd95", "--metric", "dice"]) == 0
    assert "HD95 mm" in capsys.readouterr().out
    table = pd.read_csv(Path(folders[0]) / "evaluation.csv")
    assert list(table.columns[4:6]) == ["hd95", "dice"]
    assert table["hd95"][0] == makers.grid(SHAPE).spacing_mm[0]


@pytest.mark.parametrize("shows", ["case_of_training", None])
def test_training_images_are_named_on_the_screen_and_in_the_file(folders, capsys, shows):
    entry = PredictedCase(case="a", status="written", training_case=shows)
    add_to_record(Path(folders[0]), [entry])
    assert main(["evaluate", *folders]) == 0
    learnt = [] if shows is None else ["a"]
    assert ("the model has learnt from this case (a)" in capsys.readouterr().out) == bool(learnt)
    written = json.loads((Path(folders[0]) / "evaluation.json").read_text(encoding="utf-8"))
    assert written["training_images"] == learnt


def test_label_values_of_another_meaning_are_told(folders, capsys):
    assert main(["evaluate", *folders]) == 0  # leaves the names of its labels in the folder
    assert "mean something else" not in capsys.readouterr().err
    path = Path(folders[0]) / "statistics.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"disc"', '"vertebra"'), encoding="utf-8")
    assert main(["evaluate", *folders]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "mean something else than those of the references: 1 is vertebra there and disc here" in said


def test_a_damaged_map_does_not_stop_the_others(folders, capsys):
    prediction, reference = Path(folders[0]) / "a.nii.gz", Path(folders[1]) / "a.nii.gz"
    for name in "bc":
        shutil.copy(prediction, prediction.with_name(f"{name}.nii.gz"))
        shutil.copy(reference, reference.with_name(f"{name}.nii.gz"))
    makers.cut_short(prediction.with_name("b.nii.gz"))
    assert main(["evaluate", *folders]) == 1
    said = capsys.readouterr()
    assert "case b, file " in said.err
    assert "Could not be compared, in no mean: b" in said.out
    assert "autospine: 1 of 3 pairs of label maps cannot be compared, and are in no mean: b" in said.err
    assert set(pd.read_csv(prediction.with_name("evaluation.csv"))["case"]) == {"a", "c"}
    written = json.loads(prediction.with_name("evaluation.json").read_text(encoding="utf-8"))
    assert list(written["cases"]) == ["a", "c"] and list(written["failed"]) == ["b"]
    page = prediction.with_name("report.html").read_text(encoding="utf-8")
    assert "prediction and reference cannot be compared: case b, file" in page


def test_every_metric_is_in_the_files(folders, capsys):
    assert main(["evaluate", *folders, "--metric", "all"]) == 0
    table = pd.read_csv(Path(folders[0]) / "evaluation.csv")
    written = json.loads((Path(folders[0]) / "evaluation.json").read_text(encoding="utf-8"))
    names = [metric.name for metric in BUILT_IN]
    assert list(table.columns[4:-3]) == names
    assert list(written["foreground"]) == names
    assert (written["mean_rq"], written["foreground"]["rq"], written["mean_id_rate"]) == (0, 0, None)


def test_predictions_on_another_grid_are_resampled_on_request_alone(folders, capsys):
    """The cube one voxel higher is the reference, cut by a plane of background below."""
    reference = np.zeros(SHAPE, dtype=np.uint8)
    reference[3:6, 3:6, 3:6] = 1
    grid = makers.grid(SHAPE)
    origin = tuple(grid.physical(np.asarray([1, 0, 0])).tolist())
    shape = (SHAPE[0] - 1, *SHAPE[1:])
    smaller = replace(grid, shape=shape, origin_mm=origin)
    write_array(Path(folders[0]) / "a.nii.gz", reference[1:], smaller)
    assert main(["evaluate", *folders]) == 1
    assert "--resample" in capsys.readouterr().err
    assert main(["evaluate", *folders, "--resample"]) == 0
    assert pd.read_csv(Path(folders[0]) / "evaluation.csv")["dice"][0] == 1


def test_two_models_are_compared_case_by_case(folders, capsys, tmp_path):
    assert main(["evaluate", *folders, "--output", str(tmp_path / "other")]) == 0
    write_array(
        Path(folders[0]) / "a.nii.gz",
        np.full(SHAPE, 1, dtype=np.uint8),
        makers.grid(SHAPE),
    )
    capsys.readouterr()
    assert main(["evaluate", *folders, "--against", str(tmp_path / "other")]) == 0
    shown = capsys.readouterr().out
    (row,) = [line.split() for line in shown.splitlines() if "-0." in line and "disc" in line]
    assert row[:2] == ["disc", "1"]
    assert "no difference over fewer than 6 subjects can be significant" in shown
    table = pd.read_csv(Path(folders[0]) / "comparison.csv")
    assert table["other"][0] == pytest.approx(2 / 3, abs=1e-6)
    assert table["difference"][0] < 0
    page = Path(folders[0]) / "report.html"
    assert "Differences, class by class" in Page(page).words
    assert f"compared with {tmp_path / 'other'}" in Page(page).words
    assert main(["evaluate", *folders]) == 0  # what was compared before is no longer of these scores
    assert "Differences, class by class" not in Page(page).words


def test_the_other_scores_must_be_there(folders, capsys, tmp_path):
    assert main(["evaluate", *folders, "--against", str(tmp_path)]) == 1
    assert "run `autospine evaluate" in capsys.readouterr().err


def test_an_unknown_metric_is_answered_with_those_that_there_are(folders, capsys):
    assert main(["evaluate", *folders, "--metric", "f1"]) == 1
    assert "dice, iou, recall, volume_error, hd95, nsd_1mm" in capsys.readouterr().err
    assert not (Path(folders[0]) / "evaluation.csv").exists()
