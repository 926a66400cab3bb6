"""The model that comes with AutoSpine: by which name it is taken, and where."""

from pathlib import Path

import makers
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import autospine
from autospine.core.errors import FormatError, ModelError, WorkspaceError
from autospine.io.images import write_array
from autospine.models import archive
from autospine.models.archive import unpack
from autospine.models.best import choose_models
from autospine.models.model_folder import open_model
from autospine.phantom import PhantomSettings, generate
from autospine.phantom.generate import STRUCTURES, by_structure
from autospine.storage import trained_models
from autospine.storage.tensors import load_shapes
from autospine.storage.trained_models import named_model
from autospine.storage.workspace import Workspace

SHIPPED = trained_models.STARTER_FILE


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "package" / "starter.autospine"
    path.parent.mkdir()
    path.touch()
    monkeypatch.setattr(trained_models, "STARTER_FILE", path)
    return path


def test_it_goes_by_its_name_unless_something_else_has_it(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named_model(Path("starter")) == file
    assert named_model(Path("other")) == Path("other")
    (tmp_path / "starter").mkdir()
    assert named_model(Path("starter")) == Path("starter")


def test_it_predicts_where_nothing_is_trained(file, tmp_path):
    workspace = Workspace(root=tmp_path)
    folders, reason = choose_models(workspace, None, None)
    assert folders == (file,)
    assert reason == f"no model is trained in {tmp_path}; name yours with -m, or its workspace with -w"
    for dataset, configuration in (("Dataset001", None), (None, "fast")):
        with pytest.raises(WorkspaceError, match="expected a trained model"):
            choose_models(workspace, dataset, configuration)
    makers.write_model(tmp_path / "results" / "Dataset001_A" / "fast")
    assert choose_models(workspace, None, None).folders == (tmp_path / "results" / "Dataset001_A" / "fast",)


def test_an_installation_without_it_says_so(file, tmp_path, monkeypatch):
    file.unlink()
    monkeypatch.chdir(tmp_path)
    found = r"expected the model that comes with AutoSpine at .*, found none"
    with pytest.raises(ModelError, match=found):
        named_model(Path("starter"))
    with pytest.raises(ModelError, match=found):
        choose_models(Workspace(root=tmp_path), None, None)


def test_a_damaged_one_says_how_it_is_mended(file, monkeypatch):
    monkeypatch.setattr(archive, "STARTER_FILE", file)
    file.write_bytes(SHIPPED.read_bytes()[:-1000])
    mended = r"as it was installed, found it damaged; install AutoSpine again, or name another model"
    with pytest.raises(FormatError, match=mended):
        autospine.load_model("starter", device="cpu")
    file.write_bytes(SHIPPED.read_bytes().replace(b"fold_full", b"fold_half", 1))
    with pytest.raises(FormatError, match=mended), archive.opened_model(file):
        pass


def test_the_file_is_small_and_holds_nothing_but_tensors_and_json(tmp_path):
    assert trained_models.STARTER_FILE.stat().st_size <= 16e6
    manifest = unpack(trained_models.STARTER_FILE, tmp_path / "model")
    assert manifest.licence == "Apache-2.0"
    endings = {Path(name).suffix for name in manifest.files}
    assert endings == {".json", ".safetensors", ""}
    assert [name for name in manifest.files if not Path(name).suffix] == ["LICENSE"]
    model = open_model(tmp_path / "model")
    assert model.plan.labels.names == ("vertebra", "disc", "canal", "sacrum")
    assert len(model.plan.channels) == 1
    assert {tensor.dtype for tensor in load_shapes(model.weights()[0]).values()} <= {
        torch.float16,
        torch.int64,
    }


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_it_segments_a_spine_that_it_has_not_seen(modality, tmp_path):
    made = generate(PhantomSettings(region="lumbar", modality=modality, spacing_mm=(2.5, 2.5, 2.5)), seed=77)
    model = autospine.load_model("starter", device="cpu")
    write_array(tmp_path / "scan.nii.gz", made.image, made.grid)
    found = sitk.GetArrayFromImage(model.predict(tmp_path / "scan.nii.gz", modality=modality))
    reference = by_structure(made.labels)
    for name in ("vertebra", "canal"):
        mine, its = found == model.labels[name], reference == STRUCTURES[name]
        assert 2 * np.sum(mine & its) / np.sum(mine.astype(int) + its) > 0.5, name


def test_water_has_no_spine():
    image = np.full((60, 80, 80), -1000.0, np.float32)
    s, p, left = np.ogrid[:60, :80, :80]
    image[(p - 40) ** 2 + (left - 40) ** 2 + 0 * s < 30**2] = 0
    labels = autospine.load_model("starter", device="cpu").predict(
        image, modality="CT", spacing_mm=(3.0, 3.0, 3.0)
    )
    assert np.mean(labels != 0) < 0.002
