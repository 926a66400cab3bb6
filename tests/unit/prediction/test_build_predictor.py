import makers
import pytest

from autospine.models.model_folder import open_model
from autospine.prediction.build_predictor import warn_of_short_training


@pytest.mark.parametrize(("epochs", "warned"), [(2, False), (1000, True)])
def test_a_model_of_a_few_steps_is_named(tmp_path, caplog, epochs, warned):
    """Each fold of it was trained for 10 steps."""
    planned = makers.configuration(training={"epochs": epochs, "iterations_per_epoch": 5})
    makers.write_model(tmp_path / "trial", folds=("0", "1"), configurations=(planned,))
    warn_of_short_training([open_model(tmp_path / "trial")], ["1"])
    said = "trial was trained for 10 of the 5000 steps that its plan has"
    assert (said in caplog.text and "choose another model" in caplog.text) == warned
