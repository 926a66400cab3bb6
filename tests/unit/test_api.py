"""Models from Python: loaded from a folder or a file, they do what the command does."""

import subprocess
import sys

import jaxtyping
import makers
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import autospine
from autospine.errors import ModelError
from autospine.inference import open_model
from autospine.inference.bundle import export_model
from autospine.pipeline import predict


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


def test_the_same_labels_as_the_command(folder, image, tmp_path):
    source = tmp_path / "in" / "case.nii.gz"
    source.parent.mkdir()
    sitk.WriteImage(image, str(source))
    predict([open_model(folder)], source, tmp_path / "out", device=torch.device("cpu"))
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


def test_what_cannot_be_used_is_refused(folder, image):
    model = autospine.load_model(folder, device="cpu")
    with pytest.raises((ModelError, jaxtyping.TypeCheckError), match="PET"):
        model.predict(image, modality="PET")
    with pytest.raises(ModelError, match="expected 1 channels"):
        model.predict([image, image])
    with pytest.raises(ModelError, match="model folder"):
        autospine.load_model(folder.parent / "nowhere")
    with pytest.raises(AttributeError, match="nothing"):
        _ = autospine.nothing


def test_importing_the_package_is_cheap():
    code = "import sys, autospine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
