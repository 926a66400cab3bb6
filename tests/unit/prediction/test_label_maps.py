"""Predicted label maps as files: every format, and what is refused before anything is predicted."""

from collections.abc import Callable
from pathlib import Path

import makers
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from autospine.core.errors import AutospineError, DatasetError, WorkspaceError
from autospine.core.geometry import difference
from autospine.dataset.raw import Case
from autospine.inference.predictor import Predictor
from autospine.io import dicom_seg
from autospine.io.dicom_seg import ENDING
from autospine.io.formats import ENDINGS
from autospine.io.images import read_labels, read_volume, write_array
from autospine.models.model_folder import open_model
from autospine.prediction import predict_cases
from autospine.prediction.label_maps import FIRST_LINE, NAMES, LabelMaps
from autospine.prediction.prediction_options import FORMATS, PredictionOptions

CPU = torch.device("cpu")

WriteSeries = Callable[..., list[Path]]


@pytest.fixture
def model(tmp_path: Path):
    makers.write_model(tmp_path / "model")
    return open_model(tmp_path / "model")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "ct.nii.gz"
    voxels = np.random.default_rng(0).normal(40, 300, (20, 24, 22)).astype(np.int16)
    write_array(path, voxels, makers.grid(voxels.shape, (1.5, 1.5, 1.5)))
    return path


@pytest.fixture
def series(write_series: WriteSeries, tmp_path: Path) -> Path:
    voxels = np.random.default_rng(0).normal(40, 300, (10, 24, 22)).astype(np.int16)
    write_series(tmp_path / "series", voxels, [1.5 * index for index in range(10)])
    return tmp_path / "series"


def predict(model, image: Path, output: Path, file_format: str | None):
    ending = None if file_format is None else f".{file_format}"
    return predict_cases.predict([model], image, output, PredictionOptions(device="cpu", ending=ending))


def test_the_command_offers_what_can_be_written():
    assert {f".{ending}" for ending in FORMATS} <= {*ENDINGS, ENDING}


def test_formats_hold_the_same_label_map(model, image, tmp_path):
    expected = read_labels(predict(model, image, tmp_path / "out", None).written[0])
    assert len(np.unique(expected.array)) > 1
    for one in FORMATS:
        if one == "dcm":
            continue
        (written,) = predict(model, image, tmp_path / one, one).written
        assert written == tmp_path / one / f"ct.{one}"
        found = read_labels(written)
        assert np.array_equal(found.array, expected.array)
        assert difference(found.stored, expected.stored) is None
        assert (tmp_path / one / NAMES).is_file() == ("nrrd" not in one)
    names = (tmp_path / "out" / NAMES).read_text()
    assert all(f'"{name}"' in names for name in model.plan.labels.names)
    image = sitk.ReadImage(str(tmp_path / "seg.nrrd" / "ct.seg.nrrd"))
    assert image.GetMetaData("Segment0_Name") in model.plan.labels.names


def test_dicom_in_and_out(model, series, tmp_path):
    hd = pytest.importorskip("highdicom")
    expected = read_labels(predict(model, series, tmp_path / "out", None).written[0]).array[0]
    (written,) = predict(model, series, tmp_path / "dicom", "dcm").written
    assert written == tmp_path / "dicom" / "series.dcm"
    made = hd.seg.segread(written)
    by_name = dict(zip(model.plan.labels.names, model.plan.labels.painted, strict=True))
    for number, one in enumerate(made.SegmentSequence, start=1):
        voxels = made.get_volume(segment_numbers=[number], combine_segments=True, relabel=True).array
        assert voxels.sum() == (expected == by_name[one.SegmentLabel]).sum()
    assert not (tmp_path / "dicom" / NAMES).exists()
    # What is there is kept.
    options = PredictionOptions(device="cpu", ending=".dcm", overwrite=False)
    again = predict_cases.predict([model], series, tmp_path / "dicom", options)
    assert again.written == (written,)


def test_dicom_takes_dicom(model, image, series, tmp_path):
    pytest.importorskip("highdicom")
    with pytest.raises(DatasetError, match=r"refer to, found ct in another format; predict with another --f"):
        predict(model, image, tmp_path / "out", "dcm")
    assert not (tmp_path / "out").exists()


def test_slices_that_cannot_be_referred_to_fail_before_the_networks_run(
    model, series, write_series, tmp_path, monkeypatch
):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    voxels = np.random.default_rng(0).normal(40, 300, (10, 24, 22)).astype(np.int16)
    for name in ("a", "b"):
        write_series(tmp_path / "in" / name, voxels, [1.5 * index for index in range(10)])
    for file in (tmp_path / "in" / "a").iterdir():
        header = pydicom.dcmread(file)
        header.FrameOfReferenceUID = ""
        header.save_as(file)
    usual, seen = Predictor.predict, []

    def note(self, volume, modality, description, *arguments):
        seen.append(description)
        return usual(self, volume, modality, description, *arguments)

    monkeypatch.setattr(Predictor, "predict", note)
    result = predict(model, tmp_path / "in", tmp_path / "out", "dcm")
    assert [case.status for case in result.cases] == ["failed", "written"]
    assert "expected slices with a frame of reference" in result.failed["a"]
    assert seen == ["b (2/2)"]


def test_a_missing_library_is_noticed_first(model, series, tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_seg, "find_spec", lambda name: None)
    with pytest.raises(AutospineError, match=r"pip install 'autospine\[dicom\]'"):
        predict(model, series, tmp_path / "out", "dcm")
    assert not (tmp_path / "out").exists()


def test_unknown_formats_are_refused(model, image, tmp_path):
    with pytest.raises(DatasetError, match=r"expected a format among \.nii\.gz, .*, found \.png"):
        predict(model, image, tmp_path / "out", "png")


def test_a_file_of_the_users_is_not_replaced(model, image, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAMES).write_text("1 my own list\n")
    with pytest.raises(WorkspaceError, match=r"labels\.txt, found another file there; name another folder"):
        predict(model, image, tmp_path / "out", "nii.gz")
    assert (tmp_path / "out" / NAMES).read_text() == "1 my own list\n"
    (tmp_path / "out" / NAMES).write_text(f"{FIRST_LINE}\n")
    predict(model, image, tmp_path / "out", "nii.gz")
    assert len((tmp_path / "out" / NAMES).read_text().splitlines()) > 1


def test_nothing_is_written_among_the_slices(model, series):
    before = sorted(series.iterdir())
    with pytest.raises(WorkspaceError, match="output folder other than that of the images"):
        predict(model, series, series, "nii.gz")
    assert sorted(series.iterdir()) == before


def test_a_label_map_is_on_the_grid_of_its_slices(series, tmp_path):
    pytest.importorskip("highdicom")
    volume = read_volume(series)
    maps = LabelMaps(folder=tmp_path / "out", ending=ENDING, labels=makers.LABELS)
    case = Case(name="a", images=(series,), labels=None, modality="CT", site=None, subject="a")
    maps.check([case])
    maps.write_names()
    maps.write(case, np.full(volume.grid.shape, makers.LABELS.painted[0]), volume.stored)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [maps.path(case).name]
