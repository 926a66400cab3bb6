import makers
import pytest
import torch

from autospine.core.labels import parse_labels
from autospine.models import archive
from autospine.models.model_folder import open_model, starter_locates
from autospine.prediction import build_predictor as building
from autospine.prediction.build_predictor import build_predictor, warn_of_short_training
from autospine.storage.trained_models import STARTER_FILE, STARTER_MM

SPINE = parse_labels({"background": 0, "L1": 3, "disc_L1": 4, "spinal canal": 7})
CPU = torch.device("cpu")


@pytest.fixture
def spine(tmp_path):
    makers.write_model(tmp_path / "fullres", labels=SPINE)
    return open_model(tmp_path / "fullres")


def test_the_starter_locates_the_spine_for_models_that_have_no_localizer(spine):
    predictor = build_predictor([spine], CPU)
    assert predictor.localizer.configuration.name == "starter"
    assert predictor.localizer.configuration.spacing_mm == (STARTER_MM,) * 3
    names = predictor.localizer.plan.labels.names
    assert [names[value - 1] for value in predictor.found_together] == ["vertebra", "canal"]
    for none in ({"region_of_interest": False}, {"use_localizer": False}):
        assert build_predictor([spine], CPU, **none).localizer is None


def test_a_localizer_of_the_same_dataset_comes_before_the_starter(spine):
    coarse = makers.configuration(name="lowres", spacing_mm=(3.0, 3.0, 3.0))
    makers.write_model(spine.path / "finder", labels=SPINE, configurations=(coarse,))
    predictor = build_predictor([spine], CPU)
    assert predictor.localizer.configuration.name == "lowres"
    assert predictor.found_together == ()


@pytest.mark.parametrize(
    ("labels", "spacing_mm"),
    [({"L1": 1, "rib": 2}, 1.5), ({"L1": 1, "coccyx": 2}, 1.5), ({"L1": 1}, 2.5)],
)
def test_the_starter_locates_nothing_but_spines_for_finer_models(tmp_path, labels, spacing_mm):
    configuration = makers.configuration(spacing_mm=(spacing_mm,) * 3)
    space = parse_labels({"background": 0, **labels})
    makers.write_model(tmp_path / "fullres", labels=space, configurations=(configuration,))
    assert not starter_locates(open_model(tmp_path / "fullres"))


def test_a_damaged_or_missing_starter_stops_no_prediction(spine, tmp_path, monkeypatch, caplog):
    file = tmp_path / "starter.autospine"
    for module in (building, archive):
        monkeypatch.setattr(module, "STARTER_FILE", file)
    assert build_predictor([spine], CPU).localizer is None
    assert caplog.text == ""
    file.write_bytes(STARTER_FILE.read_bytes()[:5000])
    assert build_predictor([spine], CPU).localizer is None
    assert "the starter cannot locate the spine: expected the model that comes with AutoSpine" in caplog.text


@pytest.mark.parametrize(("epochs", "warned"), [(2, False), (1000, True)])
def test_a_model_of_a_few_steps_is_named(tmp_path, caplog, epochs, warned):
    """Each fold of it was trained for 10 steps."""
    planned = makers.configuration(training={"epochs": epochs, "iterations_per_epoch": 5})
    makers.write_model(tmp_path / "trial", folds=("0", "1"), configurations=(planned,))
    warn_of_short_training([open_model(tmp_path / "trial")], ["1"])
    said = "trial was trained for 10 of the 5000 steps that its plan has"
    assert (said in caplog.text and "choose another model" in caplog.text) == warned
