"""`autospine attention`, on an untrained model."""

import json

import makers
import numpy as np
import pytest
import SimpleITK as sitk

from autospine.cli.app import main


@pytest.fixture
def scan(tmp_path):
    """An image with a body that is stored in another order of axes, and its labels."""
    dataset = makers.dataset_of(
        tmp_path / "data", {"a": np.array([0, 3, 7], dtype=np.uint8)[makers.column()]}
    )
    (case,) = dataset.cases
    for path in (case.images[0], case.labels):
        image = sitk.ReadImage(str(path))
        image.SetOrigin((5.0, -3.0, 7.0))
        sitk.WriteImage(sitk.DICOMOrient(image, "RAI"), str(path))
    return case


def run(scan, tmp_path, *more: str) -> int:
    return main(
        [
            *("attention", "-m", str(tmp_path / "model"), "-i", str(scan.images[0])),
            *("-o", str(tmp_path / "out"), "--device", "cpu", *more),
        ]
    )


def test_maps_lie_on_the_grid_of_the_image(tmp_path, scan, capsys):
    makers.write_model(tmp_path / "model")
    assert run(scan, tmp_path, "-l", str(scan.labels)) == 0
    out = tmp_path / "out"
    image = sitk.ReadImage(str(scan.images[0]))
    names = sorted(path.name for path in out.iterdir())
    received = [f"stage{n}_received.nii.gz" for n in (1, 2, 3, 4)]
    saliency = [f"stage{n}_saliency.nii.gz" for n in (1, 2)]
    assert names == sorted(["attention.json", "attention.png", *received, *saliency])
    for name in (*received, *saliency):
        written = sitk.ReadImage(str(out / name))
        assert written.GetSize() == image.GetSize()
        assert np.allclose(written.GetOrigin(), image.GetOrigin())
        assert np.allclose(written.GetDirection(), image.GetDirection())
    found = json.loads((out / "attention.json").read_text())
    assert found["boundaries"] == "of the reference"
    assert found["fusion_weights"] == [1.0, 0.0]
    first = next(each for each in found["maps"] if each["map"] == "mean")
    assert (first["stage"], first["gamma"], first["spread"]) == (1, 0.0, 0.0)
    shown = capsys.readouterr().out
    assert "stage 1 hardly tells boundaries from the rest (AUC 0.50" in shown


def test_heads_are_written_on_request_and_the_prediction_gives_boundaries(tmp_path, scan, capsys):
    makers.write_model(tmp_path / "model")
    assert run(scan, tmp_path, "--heads", "--modality", "CT") == 0
    out = tmp_path / "out"
    assert (out / "stage1_head2.nii.gz").is_file()
    assert json.loads((out / "attention.json").read_text())["boundaries"] == "of the prediction"


def test_what_cannot_be_shown_is_said(tmp_path, scan, capsys):
    plain = makers.configuration(network=makers.network_plan(attention="identity", fusion=None))
    makers.write_model(tmp_path / "model", configurations=(plain,))
    assert run(scan, tmp_path) == 1
    assert "network with attention" in capsys.readouterr().err
    assert run(scan, tmp_path, "-l", str(tmp_path / "none.nii.gz")) == 1
    assert "a label map" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
