import pytest

from autospine.core.errors import ModelError
from autospine.storage.trained_models import (
    PLAN,
    WEIGHTS,
    DatasetModels,
    check_folds,
    describe_unfinished,
    find_folds,
    fold_names,
    fold_weights,
    unfinished_folds,
)


@pytest.fixture
def results(tmp_path):
    """Two models, one of which is complete in two folds, and a folder without any."""
    for model, folds in {"fullres": ("1", "full"), "fast": ("0",), "begun": ()}.items():
        (tmp_path / model / "fold_3").mkdir(parents=True)
        (tmp_path / model / PLAN).write_text("{}")
        for fold in folds:
            (tmp_path / model / f"fold_{fold}").mkdir()
            (tmp_path / model / f"fold_{fold}" / WEIGHTS).touch()
    return tmp_path


def test_models_are_those_with_a_complete_fold(results):
    models = DatasetModels(folder=results)
    assert models.names == ("fast", "fullres")
    assert models.folders == (results / "fast", results / "fullres")
    assert [path.relative_to(results).parts for path in models.weights] == [
        ("fast", "fold_0", WEIGHTS),
        ("fullres", "fold_1", WEIGHTS),
        ("fullres", "fold_full", WEIGHTS),
    ]


def test_a_model_under_a_temporary_name_is_none(results):
    """An import that was killed before the folder took its name leaves a whole model behind."""
    for name in (".abcd1234.tmp", ".autospine-abcd1234.tmp", ".fullres"):
        (results / name / "fold_0").mkdir(parents=True)
        (results / name / PLAN).write_text("{}")
        (results / name / "fold_0" / WEIGHTS).touch()
    assert DatasetModels(folder=results).names == ("fast", "fullres")


def test_a_dataset_without_results_has_no_models(tmp_path):
    assert DatasetModels(folder=tmp_path / "absent").folders == ()


def test_folds_are_those_with_weights(results):
    assert fold_names(results / "fullres") == find_folds(results / "fullres") == ("1", "full")
    assert fold_weights(results / "fast") == (results / "fast" / "fold_0" / WEIGHTS,)
    assert fold_names(results / "begun") == ()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("begun", "trained fold.*autospine train begun"),
        ("absent", "model folder.*nothing at all"),
        ("fast/fold_3", "model folder.*a folder without it"),
        ("fast/fold_0", "found fold 0 of one.*name .*fast instead"),
    ],
)
def test_what_is_no_trained_model_is_refused(results, name, says):
    with pytest.raises(ModelError, match=says):
        find_folds(results / name)


def test_missing_folds_are_named(results):
    check_folds(results / "fullres", ("1", "full"), ("1",))
    with pytest.raises(ModelError, match=r"among 1, full.*found 0, 2;.*autospine train"):
        check_folds(results / "fullres", ("1", "full"), ("2", "1", "0"))


def test_folds_in_training_are_told_from_complete_ones(results):
    model = results / "fullres"
    assert unfinished_folds(model) == (), "an empty folder is no training"
    (model / "fold_3" / "training.lock").touch()
    assert unfinished_folds(model) == ("3",)
    said = describe_unfinished("M", ("3",), ("1", "full"))
    assert said == "M is incomplete: folds 1, full are complete, fold 3 is not trained to the end"
    said = describe_unfinished("M", ("0", "3"), ("1",), ("3",))
    assert said.endswith("fold 1 is complete, fold 3 is in training, fold 0 is not trained to the end")
    (model / "fold_1" / "checkpoint_previous.safetensors").touch()
    assert unfinished_folds(model) == ("1", "3")
    said = describe_unfinished("M", ("1", "3"), ("1", "full"))
    assert said.endswith(
        "fold 3 is not trained to the end, fold 1 is trained further, with the weights from before"
    )
