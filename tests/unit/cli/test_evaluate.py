import json
from pathlib import Path

import makers
import numpy as np
import pandas as pd
import pytest

from autospine.cli import main
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


def test_an_unknown_metric_is_answered_with_those_that_there_are(folders, capsys):
    assert main(["evaluate", *folders, "--metric", "f1"]) == 1
    assert "dice, iou, recall, hd95, nsd_1mm" in capsys.readouterr().err
    assert not (Path(folders[0]) / "evaluation.csv").exists()
