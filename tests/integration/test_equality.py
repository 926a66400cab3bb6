"""A trained network gives the same labels however its work is cut up: by slabs, bands, or several cases."""

import contextlib
from dataclasses import replace
from pathlib import Path

import makers
import numpy as np
import pytest
import torch
import whole

from autospine.cli import main
from autospine.core.geometry import Grid, vector
from autospine.core.types import Modality
from autospine.inference.predictor import Predictor
from autospine.io.images import Volume, read_labels, read_volume, write_array
from autospine.models.model_folder import ModelFolder, open_model, save_weights
from autospine.phantom import PhantomSettings, write_dataset
from autospine.plan import build_network
from autospine.prediction import read_ahead
from autospine.prediction.build_predictor import build_predictor
from autospine.prediction.predict_cases import predict
from autospine.prediction.prediction_options import PredictionOptions

CPU = torch.device("cpu")
NAME = "Dataset001_Tiny"

TIE = 1e-5
"""Where the two best classes are closer than this, rounding decides."""

EXTENT_MM = (130.0, 76.0, 76.0)
"""Larger images are cut to this, around their middle: long along S, where the slab moves."""

PHANTOMS = ("lumbar_ct_005", "lumbar_mr_006")

REAL = {
    "ct_hip_metal": "Dataset001_SpineReal/imagesTr/ct_hip_metal_0000.nii.gz",
    "ct_cervical": "Dataset001_SpineReal/imagesTr/ct_cervical_0000.nii.gz",
    "mr_abdomen": "Dataset001_SpineReal/imagesTr/mr_abdomen_0000.nii.gz",
    "mr_lumbar": "Dataset001_SpineReal/imagesTs/mr_lumbar_0000.nii.gz",
    "ct_dicom": "real/dicom_ct",
}


KINDS = ["phantoms", pytest.param("real", marks=pytest.mark.real_data)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Phantoms, and a network that has been trained on them until it finds every class somewhere."""
    root = tmp_path_factory.mktemp("workspace")
    settings = PhantomSettings(spacing_mm=(4.0, 4.0, 4.0), size_mm=(112.0, 96.0, 88.0), metal=False)
    folder = root / "raw" / NAME
    write_dataset(folder, cases=5, test_cases=2, scheme="structures", settings=settings, seed=1)
    with contextlib.chdir(root):
        size = ("--memory", "2GB", "--patch", "16", "16", "16", "--feature-size", "8")
        assert main(["plan-and-preprocess", "-d", "1", *size]) == 0
        assert main(["train", "0", "--fold", "0", "--epochs", "1", "--iterations", "80"]) == 0
    return root


@pytest.fixture(scope="module")
def model(workspace) -> ModelFolder:
    """Two folds: the trained one, and one whose weights are a little off."""
    trained = open_model(workspace / "results" / NAME / "fullres")
    torch.manual_seed(0)
    (network,) = trained.networks(["0"])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * parameter.std(correction=0) * torch.randn_like(parameter)
    save_weights(trained.path / "fold_1", network, {"fold": "1"})
    model = open_model(trained.path)
    # The book's way computes in float32.
    training = replace(model.configuration.training, precision="float32")
    return replace(model, configuration=replace(model.configuration, training=training))


@pytest.fixture
def places(workspace, request) -> dict[str, Path]:
    """Where the images of a kind lie, by name."""
    if request.param == "phantoms":
        return {name: workspace / "raw" / NAME / "imagesTs" / f"{name}_0000.nii.gz" for name in PHANTOMS}
    return {name: request.getfixturevalue("real_data") / path for name, path in REAL.items()}


def cut(path: Path) -> Volume:
    """The middle of an image."""
    volume = read_volume(path)
    grid = volume.grid
    kept = [min(n, int(mm / d)) for n, d, mm in zip(grid.shape, grid.spacing_mm, EXTENT_MM, strict=True)]
    start = [(n - k) // 2 for n, k in zip(grid.shape, kept, strict=True)]
    box = tuple(slice(a, a + k) for a, k in zip(start, kept, strict=True))
    middle = Grid(
        shape=(kept[0], kept[1], kept[2]),
        spacing_mm=grid.spacing_mm,
        origin_mm=vector(grid.physical(np.asarray(start))),
        direction=grid.direction,
    )
    return Volume(array=np.ascontiguousarray(volume.array[:, *box]), grid=middle, stored=middle)


def modality_of(name: str) -> Modality:
    return "CT" if "ct" in name.split("_") else "MR"


def predictor_of(model: ModelFolder, folds: list[str]) -> Predictor:
    predictor = build_predictor([model], CPU, folds, region_of_interest=False, use_localizer=False)
    assert isinstance(predictor, Predictor)
    return predictor


def differing(labels: np.ndarray, expected: np.ndarray, scores: np.ndarray) -> int:
    """Voxels that differ where it is not a tie."""
    second, best = np.partition(scores, -2, axis=0)[-2:]
    return int(((labels != expected) & (best - second >= TIE)).sum())


@pytest.mark.parametrize("folds", [["0"], ["0", "1"]], ids="+".join)
@pytest.mark.parametrize("places", KINDS, indirect=True)
def test_slabs_and_bands_give_what_accumulating_the_whole_volume_gives(model, places, folds):
    predictor, classes = predictor_of(model, folds), set()
    # Twice the networks take twice the time: of two, one image is enough.
    for name, path in list(places.items())[: 1 if len(folds) > 1 else None]:
        volume, modality = cut(path), modality_of(name)
        scores = whole.scores(predictor, volume, modality)
        expected = predictor.plan.labels.decode(scores.argmax(0))
        assert differing(predictor.predict(volume, modality), expected, scores) == 0, name
        bands = [band for _, band in predictor.score_bands(volume, modality)]
        np.testing.assert_allclose(np.concatenate(bands, axis=1), scores, atol=1e-5, err_msg=name)
        classes.update(np.unique(expected))
    assert classes == {0, 1, 2, 3}


@pytest.mark.real_data
def test_leaving_out_air_changes_no_label_of_real_images(model, real_data):
    """Return whether the network knows air or labels it: one that paints everywhere runs every tile."""
    slices = read_volume(real_data / REAL["ct_dicom"])
    # A quarter of the slices, of which a corner is air.
    array = np.ascontiguousarray(slices.array[:, :, :256, :256])
    grid = makers.grid(array.shape[1:], slices.grid.spacing_mm)
    volume = Volume(array=array, grid=grid, stored=grid)
    trained = replace(predictor_of(model, ["0"]), region_of_interest=True)
    certain = replace(trained, networks=[_CertainOfAir(trained.networks[0])])
    for some in (trained, certain):
        every = replace(some, region_of_interest=False)
        labels, expected = (one.predict(volume, "CT") for one in (some, every))
        np.testing.assert_array_equal(labels, expected)
        assert labels.any()
    job = certain.prepare(volume, "CT")
    assert len(job.run) < job.tiles
    torch.manual_seed(0)
    untrained = replace(trained, networks=[build_network(model.plan, model.configuration).eval()])
    assert len(untrained.prepare(volume, "CT").run) == job.tiles


class _CertainOfAir(torch.nn.Module):
    """A network that is certain of background in tiles that show nothing."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores = self.network(image)
        if image.max() - image.min() < 1e-3:
            scores[:, 0] = scores.max() + 100
        return scores


@pytest.mark.parametrize("places", KINDS, indirect=True)
def test_cases_in_one_run_are_what_each_is_alone(model, places, tmp_path, monkeypatch):
    """Reading ahead and writing behind change nothing, whatever case comes before."""
    for name, path in places.items():
        volume = cut(path)
        write_array(tmp_path / "in" / f"{name}.nii.gz", volume.array[0], volume.grid)
    options = PredictionOptions(device="cpu", folds=("0",))
    together = predict([model], tmp_path / "in", tmp_path / "together", options)
    assert [case.status for case in together.cases] == ["written"] * len(places)
    monkeypatch.setattr(read_ahead, "free_memory", lambda: 0)
    one_by_one = predict([model], tmp_path / "in", tmp_path / "one_by_one", options)
    for name, written, later in zip(sorted(places), together.written, one_by_one.written, strict=True):
        (alone,) = predict([model], tmp_path / "in" / f"{name}.nii.gz", tmp_path / "alone", options).written
        assert written.name == later.name == alone.name == f"{name}.nii.gz"
        assert written.read_bytes() == later.read_bytes() == alone.read_bytes()
        assert read_labels(alone).array.any()
