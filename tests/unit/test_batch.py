"""Folders from Python: what the command does, with errors instead of a table."""

import json
import pickle

import makers
import numpy as np
import pytest
import SimpleITK as sitk

import autospine
from autospine.core.errors import DatasetError, ImageError, ModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "fullres"
    makers.write_model(folder, folds=("0", "1"))
    return folder


@pytest.fixture
def images(tmp_path):
    """Two images, of which the second one by name is the first one by size."""
    place = tmp_path / "images"
    place.mkdir()
    for name, n in (("b", 18), ("a", 22)):
        array = np.random.default_rng(n).normal(0, 300, (n, 18, 20)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(place / f"{name}_0000.nii.gz"))
    return place


def test_a_folder_is_segmented_as_each_image_is(folder, images, tmp_path, capsys):
    written = autospine.predict_folder(folder, images, tmp_path / "out", device="cpu", folds=[1])
    assert written == {name: tmp_path / "out" / f"{name}.nii.gz" for name in "ab"}
    model = autospine.load_model(folder, device="cpu", folds=[1])
    for name, path in written.items():
        alone = sitk.GetArrayFromImage(model.predict(images / f"{name}_0000.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), alone)
    assert capsys.readouterr() == ("", "")
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [case["status"] for case in record["cases"]] == ["written", "written"]


def test_images_may_be_listed_in_any_order_and_are_kept_if_that_is_asked_for(folder, images, tmp_path):
    listed = [images / "b_0000.nii.gz", str(images / "a_0000.nii.gz")]
    first = autospine.predict_folder(str(folder), listed, tmp_path / "out", device="cpu")
    before = {path: path.stat().st_mtime_ns for path in first.values()}
    again = autospine.predict_folder(folder, images, tmp_path / "out", device="cpu", overwrite=False)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in again.values()} == before


def test_progress_is_shown_if_that_is_asked_for(folder, images, tmp_path, capsys):
    autospine.predict_folder(folder, images, tmp_path / "out", device="cpu", progress=True)
    assert "a (1/2)" in capsys.readouterr().err
    autospine.predict_folder(folder, images, tmp_path / "out", device="cpu")
    assert capsys.readouterr() == ("", "")


def test_cases_that_fail_are_named_and_the_others_are_there(folder, images, tmp_path):
    (images / "c_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(ImageError, match="1 case of 3 failed: c: ") as caught:
        autospine.predict_folder(folder, images, tmp_path / "out", device="cpu")
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, autospine.FailedCasesError)
    assert error.written == {name: tmp_path / "out" / f"{name}.nii.gz" for name in "ab"}
    assert list(error.failed) == ["c"]
    assert str(error) == f"1 case of 3 failed: c: {error.failed['c']}"
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]


def test_what_cannot_be_is_refused(folder, images, tmp_path):
    with pytest.raises(ModelError, match="expected folds among 0, 1"):
        autospine.predict_folder(folder, images, tmp_path / "out", folds=[7])
    with pytest.raises(ModelError, match="found an empty list"):
        autospine.predict_folder([], images, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="found none"):
        autospine.predict_folder(folder, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()
