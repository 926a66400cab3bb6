from dataclasses import replace

import makers
import pytest

from autospine.models.localizer import find_localizer
from autospine.models.model_folder import open_model
from autospine.storage.serialization import write_json


@pytest.fixture
def model(tmp_path):
    makers.write_model(tmp_path / "fullres", folds=("0", "1"))
    return open_model(tmp_path / "fullres")


@pytest.fixture
def localizer(model):
    """A coarser model beside it."""
    coarse = makers.configuration(name="lowres", spacing_mm=(4.0, 4.0, 4.0))
    makers.write_model(model.path.parent / "lowres", folds=("0", "1"), configurations=(coarse,))
    return open_model(model.path.parent / "lowres")


def test_a_coarse_model_that_is_broken_or_bad_finds_no_spine(model, localizer, caplog):
    assert find_localizer(model) == localizer
    scores = {"format_version": 3, "folds": {}, "postprocessed": None, "modalities": {}}
    for dice, expected in ((0.49, None), (0.5, localizer)):
        write_json(localizer.path / "cross_validation.json", scores | {"mean_dice": dice})
        assert find_localizer(model) == expected
    (localizer.path / "plan.json").write_text("{", encoding="utf-8")
    assert find_localizer(model) is None
    assert "cannot locate the spine" in caplog.text


def test_without_a_coarser_model_of_the_same_channels_there_is_none(model):
    assert find_localizer(model) is None
    hardly = makers.configuration(name="lowres", spacing_mm=(1.6, 1.6, 1.6))
    makers.write_model(model.path.parent / "lowres", configurations=(hardly,))
    assert find_localizer(model) is None
    coarse = replace(hardly, spacing_mm=(4.0, 4.0, 4.0))
    makers.write_model(model.path.parent / "lowres", configurations=(coarse,), channels=("other",))
    assert find_localizer(model) is None
