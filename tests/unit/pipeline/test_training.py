import makers
import pytest

from autospine.evaluation.held_out import CROSS_VALIDATION, FORMAT_VERSION
from autospine.pipeline.training import comparable, sharers_of_cores
from autospine.storage.serialization import write_json
from autospine.storage.trained_models import WEIGHTS
from autospine.storage.workspace import DatasetLocation


@pytest.mark.parametrize(
    ("fold", "at_once", "processes", "sharers"),
    [
        ("all", 1, 1, 1),
        ("all", 2, 1, 2),
        ("all", 8, 1, 5),  # eight GPUs, five folds
        ("0", 8, 1, 1),
        ("full", 8, 1, 1),
        ("all", 1, 4, 4),
        ("0", 1, 4, 4),
    ],
)
def test_cores_are_shared_by_what_trains_at_the_same_time(fold, at_once, processes, sharers):
    assert sharers_of_cores(fold, at_once, processes) == sharers


def test_models_that_were_validated_on_every_case_can_be_compared(tmp_path):
    dataset = makers.dataset_of(tmp_path / "raw", {name: makers.column() for name in "ab"})
    results = tmp_path / "results"
    location = DatasetLocation(
        name=dataset.name, raw=dataset.folder, preprocessed=tmp_path / "preprocessed", results=results
    )
    assert comparable(location, dataset) == ()
    folds = {"whole": ("a", "b"), "more": ("a", "b", "c"), "part": ("a",), "scores": None, "none": ("a", "b")}
    for name, cases in folds.items():
        for fold in ("0", "1"):
            (results / name / f"fold_{fold}").mkdir(parents=True)
            if name != "none":
                (results / name / f"fold_{fold}" / WEIGHTS).touch()
        if cases is not None:
            scores = {str(fold): {"cases": [case]} for fold, case in enumerate(cases)}
            found = {"mean_dice": 0.5, "postprocessed": None, "modalities": {}, "folds": scores}
            write_json(results / name / CROSS_VALIDATION, {"format_version": FORMAT_VERSION, **found})
    assert comparable(location, dataset) == ("more", "whole")
