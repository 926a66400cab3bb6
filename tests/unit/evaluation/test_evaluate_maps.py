"""Folders of label maps that are to be compared, before any is read."""

from pathlib import Path

import pytest

from autospine.core.errors import DatasetError
from autospine.evaluation.evaluate_maps import evaluate_predictions


@pytest.mark.parametrize("swapped", [False, True])
def test_folders_in_the_wrong_order_are_told_the_right_one(tmp_path: Path, swapped: bool):
    references, predictions = tmp_path / "raw" / "labelsTs", tmp_path / "out" / "fast"
    for folder in (references, predictions):
        folder.mkdir(parents=True)
    (references.parent / ("dataset.json" if swapped else "other.json")).write_text("{}")
    given = (references, predictions) if swapped else (predictions, references)
    with pytest.raises(DatasetError, match="give it with --labels") as raised:
        evaluate_predictions(*given)
    assert ("predictions first and references second" in str(raised.value)) is swapped
