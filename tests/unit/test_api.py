"""Models from Python: loaded from a folder or a file, they do what the command does."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import jaxtyping
import makers
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import autospine
from autospine import api
from autospine.core.errors import ModelError
from autospine.inference.predictor import Predictor
from autospine.io.in_memory import as_volume
from autospine.models.model_export import export_model
from autospine.models.model_folder import TRAINED_ON, TrainedOn, TrainingImage, open_model
from autospine.prediction.predict_cases import predict
from autospine.prediction.prediction_options import PredictionOptions
from autospine.storage.digest import digest_of_voxels
from autospine.storage.serialization import write_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "fullres"
    makers.write_model(folder)
    return folder


@pytest.fixture(scope="module")
def image():
    made = sitk.GetImageFromArray(np.random.default_rng(0).normal(0, 300, (20, 18, 22)).astype(np.float32))
    made.SetSpacing((1.1, 0.9, 1.0))
    made.SetDirection((-1, 0, 0, 0, 0, 1, 0, 1, 0))
    return made


def test_images_that_it_has_learnt_from_are_told(folder, image, tmp_path, caplog):
    shutil.copytree(folder, tmp_path / "fullres")
    volume = as_volume(image, None)
    learnt = TrainingImage(
        digest=digest_of_voxels(volume.array[0]),
        shape=volume.grid.shape,
        spacing_mm=volume.grid.spacing_mm,
    )
    facts = TrainedOn(format_version=2, plan={}, cases={}, images={"mr_07": learnt})
    write_json(tmp_path / "fullres" / "fold_full" / TRAINED_ON, facts)
    model = autospine.load_model(tmp_path / "fullres", device="cpu")
    told = "the model has learnt from this image (mr_07)"
    model.predict(image)
    assert any(text.startswith(told) for text in caplog.messages)
    caplog.clear()
    model.predict(image + 1)
    assert not any(told in text for text in caplog.messages)


def test_the_same_labels_as_the_command(folder, image, tmp_path):
    source = tmp_path / "in" / "case.nii.gz"
    source.parent.mkdir()
    sitk.WriteImage(image, str(source))
    predict([open_model(folder)], source, tmp_path / "out", PredictionOptions(device="cpu"))
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "case.nii.gz")))

    export_model(open_model(folder), tmp_path / "model.autospine")
    for path in (folder, tmp_path / "model.autospine"):
        model = autospine.load_model(path, device="cpu")
        assert model.labels == {"bone": 3, "canal": 7}
        labels = model.predict(image)
        assert np.array_equal(sitk.GetArrayFromImage(labels), expected)
        assert labels.GetDirection() == image.GetDirection()
    assert len(np.unique(expected)) > 1, "a constant map would show nothing"
    of_nibabel = model.predict(nibabel.load(source))
    assert np.array_equal(np.asarray(of_nibabel.dataobj).transpose(2, 1, 0), expected)
    assert np.array_equal(sitk.GetArrayFromImage(model.predict(source)), expected)


def test_several_models_predict_together(folder, image, tmp_path):
    torch.manual_seed(7)
    makers.write_model(tmp_path / "fast", folds=("0", "1"))
    paths = [folder, tmp_path / "fast"]
    alone = [
        autospine.load_model(path).predict_with_probabilities(image, classes="bone")[1] for path in paths
    ]
    both = autospine.load_model(paths).predict_with_probabilities(image, classes="bone")[1]
    first, second = (sitk.GetArrayFromImage(maps["bone"]) for maps in alone)
    assert not np.allclose(first, second, atol=1e-3), "the same networks would show nothing"
    np.testing.assert_allclose(sitk.GetArrayFromImage(both["bone"]), (first + second) / 2, atol=1e-5)
    with pytest.raises(ModelError, match=r"found the same weights in .*fullres and .*fullres"):
        autospine.load_model([folder, str(folder)])
    with pytest.raises(ModelError, match="found an empty list"):
        autospine.load_model([])


def test_the_mirror_image_counts_as_much_as_the_image(folder, image):
    array = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))
    once, twice = (autospine.load_model(folder, roi=False, mirror=mirror) for mirror in (False, True))

    def probabilities(model, of):
        return model.predict_with_probabilities(of, classes="bone", modality="CT", spacing_mm=(1.5,) * 3)[1][
            "bone"
        ]

    expected = (probabilities(once, array) + probabilities(once, array[..., ::-1])[..., ::-1]) / 2
    assert not np.allclose(probabilities(once, array), expected, atol=1e-3)
    np.testing.assert_allclose(probabilities(twice, array), expected, atol=1e-5)


def test_every_tile_is_run_where_that_is_asked_for(folder):
    assert autospine.load_model(folder, folds=["full"]).predictor.region_of_interest
    assert not autospine.load_model(folder, roi=False).predictor.region_of_interest


def test_what_cannot_be_used_is_refused(folder, image):
    model = autospine.load_model(folder, device="cpu")
    with pytest.raises((ModelError, jaxtyping.TypeCheckError), match="PET"):
        model.predict(image, modality="PET")
    with pytest.raises(ModelError, match="expected 1 channel "):
        model.predict([image, image])
    with pytest.raises(ModelError, match="model folder"):
        autospine.load_model(folder.parent / "nowhere")
    with pytest.raises(AttributeError, match="nothing"):
        _ = autospine.nothing


def test_folds_may_be_numbers(tmp_path):
    makers.write_model(tmp_path / "fullres", folds=("0", "1"))
    assert len(autospine.load_model(tmp_path / "fullres", folds=[1]).predictor.networks) == 1
    with pytest.raises(ModelError, match="expected folds among 0, 1"):
        autospine.load_model(tmp_path / "fullres", folds=[2])


def test_probabilities_come_with_the_labels_they_are_of(folder, image):
    model = autospine.load_model(folder, device="cpu")
    expected = sitk.GetArrayFromImage(model.predict(image))
    labels, maps = model.predict_with_probabilities(image)
    assert np.array_equal(sitk.GetArrayFromImage(labels), expected)
    assert list(maps) == ["background", "bone", "canal"]
    assert {map_.GetPixelID() for map_ in maps.values()} == {sitk.sitkFloat32}
    assert all(map_.GetDirection() == image.GetDirection() for map_ in maps.values())
    scores = np.stack([sitk.GetArrayFromImage(map_) for map_ in maps.values()])
    np.testing.assert_allclose(scores.sum(0), 1, atol=1e-5)
    assert np.array_equal(np.asarray([0, 3, 7])[scores.argmax(0)], expected)


def test_probabilities_are_of_the_kind_of_the_image(folder, image):
    model = autospine.load_model(folder, device="cpu")
    array = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))
    spacing_mm = (0.9, 1.0, 1.1)
    labels, maps = model.predict_with_probabilities(array, classes=["canal"], spacing_mm=spacing_mm)
    assert list(maps) == ["canal"]
    assert (maps["canal"].shape, maps["canal"].dtype) == (array.shape, np.float32)
    assert np.array_equal(labels, model.predict(array, spacing_mm=spacing_mm))
    of_simpleitk = model.predict_with_probabilities(image, classes="canal")[1]["canal"]
    turned = sitk.GetArrayFromImage(sitk.DICOMOrient(of_simpleitk, "LPS"))
    np.testing.assert_allclose(turned, maps["canal"], atol=1e-5)

    affine = np.diag([-1.1, -1.0, 0.9, 1.0])
    of_nibabel = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
    _, nibabels = model.predict_with_probabilities(of_nibabel, classes=["canal"])
    assert np.array_equal(nibabels["canal"].affine, affine)
    found = np.asarray(nibabels["canal"].dataobj).transpose(2, 1, 0)
    np.testing.assert_allclose(found, maps["canal"], atol=1e-5)


def test_where_no_tile_is_run_the_probability_is_that_of_background(folder):
    model = autospine.load_model(folder, device="cpu")
    head = model.predictor.networks[0].head
    with torch.no_grad():  # background everywhere, though not for certain
        head.weight.zero_()
        head.bias.copy_(torch.tensor([3.0, 0.0, 0.0]))
    # With noise, as equal corners would be cropped as padding.
    noise = np.random.default_rng(0).normal(0, 9, (20, 18, 96))
    body_and_air = (noise + np.where(np.arange(96) < 16, 40, -1000)).astype(np.int16)
    labels, maps = model.predict_with_probabilities(body_and_air, spacing_mm=(1.5,) * 3, modality="CT")
    assert not labels.any()
    certain = float(torch.tensor([3.0, 0.0, 0.0]).softmax(0)[0])
    np.testing.assert_allclose(maps["background"][:, :, :16], certain, atol=1e-5)
    assert np.unique(maps["background"][:, :, -16:]).tolist() == [1]
    assert np.unique(maps["bone"][:, :, -16:]).tolist() == [0]


def test_probabilities_that_cannot_be_had_are_refused(folder, image, monkeypatch):
    model = autospine.load_model(folder, device="cpu")
    with pytest.raises(ModelError, match="expected classes among background, bone, canal, found 'disc'"):
        model.predict_with_probabilities(image, classes=["bone", "disc"])
    monkeypatch.setattr(api, "free_memory", lambda: 10_000)
    with pytest.raises(ModelError, match=r"of memory for the probabilities of 3 classes, .* name fewer"):
        model.predict_with_probabilities(image)


def test_the_modality_is_found_as_for_the_command(folder, write_series, tmp_path, monkeypatch):
    seen = []

    def note(self, volume, modality, *_):
        seen.append(modality)
        return np.zeros(volume.grid.shape, np.uint8)

    monkeypatch.setattr(Predictor, "predict", note)
    array = np.random.default_rng(0).normal(-300, 300, (20, 18, 22)).astype(np.int16)
    model = autospine.load_model(folder, device="cpu")
    model.predict(array, spacing_mm=(1, 1, 1))
    replace(model, channels=("T2",)).predict(array, spacing_mm=(1, 1, 1))
    write_series(tmp_path / "series", array, range(20), modality="MR")
    model.predict(tmp_path / "series")
    model.predict(str(tmp_path / "series"), modality="CT")
    assert seen == ["CT", "MR", "MR", "CT"]


def test_the_package_shows_what_there_is():
    """Also to the completion of a shell, which goes by `dir`."""
    assert dir(autospine) == sorted(autospine.__all__)
    for name in autospine.__all__:
        assert getattr(autospine, name) is not None
    assert issubclass(autospine.ModelError, autospine.AutospineError)


def test_a_model_says_what_is_known_of_it(folder, tmp_path):
    info = autospine.load_model(folder).info
    assert (info.dataset, info.configuration, info.folds) == ("Dataset007_Small", "fullres", ("full",))
    assert info.spacing_mm == (1.5, 1.5, 1.5)
    assert (info.dice, info.dice_by_class, info.training_cases) == (None, {}, ())
    makers.write_model(tmp_path / "fast", folds=("0", "1"))
    scores = {
        "format_version": 3,
        "n_cases": 2,
        "mean_dice": 0.75,
        "classes": {"bone": {"dice": 0.8}, "canal": {"dice": None}},
        "modalities": {},
        "postprocessed": None,
        "folds": {"0": {"cases": ["b"]}, "1": {"cases": ["a"]}},
    }
    (tmp_path / "fast" / "cross_validation.json").write_text(json.dumps(scores))
    both = autospine.load_model([tmp_path / "fast", folder], folds=None)
    assert [each.configuration for each in both.members] == ["fullres", "fullres"]
    assert both.info.folds == ("0", "1")
    assert (both.info.dice, both.info.training_cases) == (0.75, ("a", "b"))
    assert both.info.dice_by_class == {"bone": 0.8, "canal": None}
    one = autospine.load_model(tmp_path / "fast", folds=0)
    assert one.info.training_cases == ("a",)


def test_importing_the_package_is_cheap():
    code = "import sys, autospine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("when", ["before loading", "before predicting"])
@pytest.mark.parametrize("default", [torch.float64, torch.float16, torch.bfloat16, "meta"])
def test_defaults_of_the_caller_change_nothing(folder, default, when):
    """Another library in the same process may have set them."""
    array = np.random.default_rng(0).normal(0, 300, (20, 18, 22)).astype(np.int16)

    def predict(model):
        return model.predict_with_probabilities(array, spacing_mm=(1.5, 1.5, 1.5), modality="CT")

    expected = predict(autospine.load_model(folder, device="cpu"))
    model = autospine.load_model(folder, device="cpu")
    try:
        if default == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(default)
        if when == "before loading":
            model = autospine.load_model(folder, device="cpu")
        found = predict(model)
        assert torch.empty(1).device.type == ("meta" if default == "meta" else "cpu")
        assert torch.get_default_dtype() == (torch.float32 if default == "meta" else default)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert np.array_equal(found[0], expected[0])
    for name, map_ in expected[1].items():
        assert np.array_equal(found[1][name], map_)


def test_an_autocast_of_the_caller_changes_nothing(folder):
    array = np.random.default_rng(0).normal(0, 300, (20, 18, 22)).astype(np.int16)
    model = autospine.load_model(folder, device="cpu")
    given = {"spacing_mm": (1.5, 1.5, 1.5), "modality": "CT"}
    expected = model.predict_with_probabilities(array, **given)[1]
    with torch.autocast("cpu", torch.bfloat16):
        found = model.predict_with_probabilities(array, **given)[1]
    assert all(np.array_equal(found[name], map_) for name, map_ in expected.items())
