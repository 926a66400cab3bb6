"""Tables of models say what is known of them."""

import makers
import pytest

from autospine.cli.app import main
from autospine.models.model_export import export_model
from autospine.models.model_folder import TRAINED_ON, TrainedOn, TrainingImage, open_model
from autospine.storage.serialization import write_json


@pytest.fixture
def folder(tmp_path):
    """A model that knows the two images that it was trained on."""
    place = tmp_path / "fullres"
    makers.write_model(place)
    image = TrainingImage(digest="0" * 64, shape=(4, 4, 4), spacing_mm=(1.0, 1.0, 1.0))
    facts = TrainedOn(format_version=2, plan={}, cases={}, images={"a": image, "b": image})
    for fold in place.glob("fold_*"):
        write_json(fold / TRAINED_ON, facts)
    return place


def test_whether_training_images_are_known_is_said(folder, tmp_path, capsys):
    export_model(open_model(folder), tmp_path / "model.autospine")
    for path, said in ((folder, "2 known; predictions"), (tmp_path / "model.autospine", "not known, as in")):
        assert main(["model", "info", str(path)]) == 0
        (line,) = (row for row in capsys.readouterr().out.splitlines() if row.startswith("training images"))
        assert said in line
