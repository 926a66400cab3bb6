"""The model that comes with AutoSpine: by which name it is taken, and where."""

from pathlib import Path

import makers
import pytest

from autospine.core.errors import ModelError, WorkspaceError
from autospine.models.best import choose_models
from autospine.storage import trained_models
from autospine.storage.trained_models import named_model
from autospine.storage.workspace import Workspace


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
