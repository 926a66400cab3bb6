import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import makers
import numpy as np
import pytest
import torch
from checkpoints import save_import
from filelock import FileLock

from autospine.core.errors import FormatError, TrainingError
from autospine.core.labels import parse_labels
from autospine.dataset.splits import Fold
from autospine.evaluation.held_out import SCORING_LOCK, VALIDATION, HeldOut, score_held_out
from autospine.evaluation.naming import CONFUSION_CSV
from autospine.evaluation.stored_scores import CROSS_VALIDATION, read_cross_validation
from autospine.io.images import read_labels, write_labels
from autospine.models.model_folder import TRAINED_ON, open_model, weights_digest
from autospine.plan import Plan
from autospine.preprocessing.preprocess import preprocess_dataset
from autospine.storage.locks import heartbeat_lock
from autospine.storage.serialization import read_json
from autospine.storage.tensors import load_facts, load_tensors, save_tensors
from autospine.storage.trained_models import WEIGHTS
from trainers import cross_validation
from trainers.checkpoints import CHECKPOINT, Checkpoints
from trainers.cross_validation import train_folds
from trainers.fold_run import TRAINING_LOCK
from trainers.fold_trainer import FoldTrainer
from trainers.initial_weights import load_initial_weights
from trainers.monitors.failures import SAMPLE_EVERY, SAMPLES
from trainers.schedule import NoTimeLeftError, share_of_time
from trainers.settings import TrainingSettings
from trainers.side_by_side import deal_rounds
from trainers.trained_on import planned_otherwise
from trainers.training_run import TrainingRun

NAMES = ("a", "b", "c")
FOLDS = tuple(
    Fold(name=str(i), training=tuple(n for n in NAMES if n != name), validation=(name,))
    for i, name in enumerate(NAMES)
)
SETTINGS = TrainingSettings(epochs=1, iterations=1)


def make_task(folder, **changes) -> TrainingRun:
    integers = np.choose(makers.column((18, 16, 20)), [0, 3, 7]).astype(np.uint8)
    dataset = makers.dataset_of(
        folder / "raw" / "Dataset007_Small", {name: np.roll(integers, i, 2) for i, name in enumerate(NAMES)}
    )
    configuration = makers.configuration(**changes)
    plan = makers.plan(configuration, makers.configuration(name="other"))
    stored = preprocess_dataset(dataset, plan, configuration, folder / "stored", 1)
    return TrainingRun(
        dataset=dataset,
        plan=plan,
        configuration=configuration,
        stored={case.name: case for case in stored},
        folder=folder / "results" / "fullres",
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The task after two of its three folds."""
    task = make_task(tmp_path_factory.mktemp("task"))
    return task, train_folds(task, FOLDS[:2], SETTINGS)


def times(task: TrainingRun) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in task.folder.glob(f"fold_*/{WEIGHTS}")}


def test_each_fold_is_validated_on_its_own_cases(trained):
    task, evaluation = trained
    assert [case.case for case in evaluation.cases] == ["a", "b"]
    assert {case.modality for case in evaluation.cases} == {"CT"}
    for fold in FOLDS[:2]:
        predictions = sorted(path.name for path in (task.folder / f"fold_{fold.name}" / VALIDATION).iterdir())
        assert predictions == [f"{name}.nii.gz" for name in fold.validation]
    predicted = read_labels(task.folder / "fold_0" / VALIDATION / "a.nii.gz")
    assert predicted.grid == read_labels(task.dataset.cases[0].labels).grid
    assert set(np.unique(predicted.array)) <= {0, 3, 7}


def test_the_summary_tells_cases_and_folds(trained):
    task, evaluation = trained
    summary = json.loads((task.folder / CROSS_VALIDATION).read_text(encoding="utf-8"))
    assert set(summary["cases"]) == {"a", "b"}
    assert set(summary["folds"]) == {"0", "1"}
    assert summary["mean_dice"] == pytest.approx(evaluation.mean_dice, abs=1e-6)
    assert summary["foreground"]["recall"] == pytest.approx(evaluation.foreground.recall, abs=1e-6)
    assert set(summary["postprocessed"]["foreground"]) == {"dice", "iou", "recall"}


def test_the_summary_counts_the_cases_of_a_class_in_each_fold(trained, caplog):
    task, _ = trained
    labels = parse_labels({"background": 0, "bone": 3, "canal": 7, "rib": 8})
    held_out = [
        HeldOut(fold=fold.name, cases=fold.validation, folder=task.folder / f"fold_{fold.name}" / VALIDATION)
        for fold in FOLDS[:2]
    ]
    caplog.set_level("INFO", logger="autospine")
    score_held_out(task.folder / "scored", held_out, task.dataset, labels)
    assert "fold 0: no held-out case has rib" in caplog.text
    folds = json.loads((task.folder / "scored" / CROSS_VALIDATION).read_text(encoding="utf-8"))["folds"]
    assert folds["0"]["cases"] == ["a"]
    assert {name: scores["n_cases"] for name, scores in folds["0"]["classes"].items()} == {
        "bone": 1,
        "canal": 1,
        "rib": 0,
    }
    assert folds["0"]["classes"]["rib"] == {"dice": None, "iou": None, "recall": None, "n_cases": 0}


def test_what_is_read_back_is_what_was_written(trained):
    task, evaluation = trained
    found = read_cross_validation(task.folder)
    assert found.folds == {"0": ("a",), "1": ("b",)}
    assert found.weights == {fold: weights_digest(task.folder / f"fold_{fold}" / WEIGHTS) for fold in "01"}
    assert found.dice == pytest.approx(evaluation.mean_dice, abs=1e-6)
    assert found.by_modality == {"CT": found.dice}
    assert found.cleaned_dice is not None


def test_scores_of_another_version_are_refused(trained, tmp_path):
    task, _ = trained
    text = (task.folder / CROSS_VALIDATION).read_text(encoding="utf-8")
    for spoilt, says in (
        (text.replace('"format_version": 4', '"format_version": 1'), "format_version 2 or 3 or 4 .* found 1"),
        (text.replace('"postprocessed"', '"processed"'), "expected complete scores"),
    ):
        (tmp_path / CROSS_VALIDATION).write_text(spoilt, encoding="utf-8")
        with pytest.raises(FormatError, match=says):
            read_cross_validation(tmp_path)


def test_scores_of_the_version_before_are_read(trained, tmp_path):
    task, _ = trained
    described = json.loads((task.folder / CROSS_VALIDATION).read_text(encoding="utf-8"))
    described["format_version"] = 2
    for fold in described["folds"].values():
        del fold["weights"]
    (tmp_path / CROSS_VALIDATION).write_text(json.dumps(described), encoding="utf-8")
    found = read_cross_validation(tmp_path)
    assert found.weights == {"0": None, "1": None}
    assert replace(found, weights={}) == replace(read_cross_validation(task.folder), weights={})


def test_regions_are_not_cleaned(trained):
    task, _ = trained
    regions = parse_labels({"whole": [3, 7], "canal": [7]}, regions_class_order=(3, 7))
    held_out = [HeldOut(fold="0", cases=("a",), folder=task.folder / "fold_0" / VALIDATION)]
    score_held_out(task.folder / "regions", held_out, task.dataset, regions)
    assert {path.name for path in (task.folder / "regions").iterdir()} == {CROSS_VALIDATION, CONFUSION_CSV}


def test_the_folder_is_all_that_prediction_needs(trained):
    task, _ = trained
    model = open_model(task.folder)
    assert model.folds == ("0", "1")
    assert model.configuration == task.configuration
    assert read_json(task.folder / "plan.json", Plan).configurations == (task.configuration,)
    assert (task.folder / "dataset.json").is_file()


def test_complete_folds_are_kept(trained):
    task, evaluation = trained
    before = times(task)
    again = train_folds(task, FOLDS[:2], SETTINGS)
    assert times(task) == before
    assert again == evaluation


def test_the_summary_keeps_the_folds_that_are_not_asked_for(trained):
    task, evaluation = trained
    assert train_folds(replace(task, split=FOLDS), FOLDS[:1], SETTINGS) == evaluation
    summary = json.loads((task.folder / CROSS_VALIDATION).read_text(encoding="utf-8"))
    assert set(summary["folds"]) == {"0", "1"}


def test_folds_are_scored_by_one_process_at_a_time(trained, caplog):
    """The second one counts what the first has finished in the meantime."""
    task, evaluation = trained
    caplog.set_level("INFO")
    with ThreadPoolExecutor(1) as other:
        with FileLock(task.folder / SCORING_LOCK):
            scoring = other.submit(cross_validation.cross_validation, task, FOLDS, torch.device("cpu"))
            while "waiting for it" not in caplog.text and not scoring.done():
                time.sleep(0.01)
            assert f"another process scores the folds of {task.folder}; waiting for it" in caplog.text
            (task.folder / CROSS_VALIDATION).unlink()
        assert scoring.result(60) == evaluation
    assert set(read_cross_validation(task.folder).folds) == {"0", "1"}


def test_a_fold_without_its_predictions_is_validated_but_not_trained(trained):
    task, evaluation = trained
    before = times(task)
    (task.folder / "fold_0" / VALIDATION / "a.nii.gz").unlink()
    assert train_folds(task, FOLDS[:2], SETTINGS) == evaluation
    assert times(task) == before


@pytest.mark.parametrize("fault", ["damaged", "not on the grid of its image"])
def test_a_prediction_that_cannot_be_scored_is_made_again(trained, caplog, fault):
    task, evaluation = trained
    before, path = times(task), task.prediction(FOLDS[0], "a")
    if fault == "damaged":
        path.write_bytes(b"")
    else:
        volume = read_labels(path)
        write_labels(path, volume.array[0, 1:], replace(volume.stored, shape=(17, 16, 20)))
    assert train_folds(task, FOLDS[:2], SETTINGS) == evaluation
    assert f"{path} is {fault} and is removed" in caplog.text
    assert times(task) == before


def test_a_held_out_image_that_has_changed_is_predicted_again(tmp_path, caplog):
    task = make_task(tmp_path)
    fold = Fold(name="0", training=("c",), validation=("a", "b"))
    train_folds(task, [fold], SETTINGS)
    outdated = {name: mark_outdated(task.prediction(fold, name)) for name in fold.validation}
    case = task.stored["a"]
    changed = replace(case, record=replace(case.record, content="another"))
    for _ in range(2):
        train_folds(replace(task, stored={**task.stored, "a": changed}), [fold], SETTINGS)
        assert caplog.text.count("of an image that has changed since") == 1
    assert task.prediction(fold, "a").read_bytes() != outdated["a"]
    assert task.prediction(fold, "b").read_bytes() == outdated["b"]


def test_folds_of_another_plan_are_refused(trained):
    task, _ = trained
    other = replace(task.configuration, network=makers.network_plan(feature_size=16))
    changed = replace(task, configuration=other, plan=makers.plan(other))
    with pytest.raises(
        TrainingError,
        match=r"found others: fold_0 \(changed: network of the plan\), fold_1 \(changed: network"
        r".*restore what was there \(their plan is .*fullres/plan\.json\)",
    ):
        train_folds(changed, FOLDS, SETTINGS)
    assert open_model(task.folder).configuration == task.configuration


def test_the_plan_of_folds_that_have_begun_is_kept(trained, tmp_path):
    task, _ = trained
    other = replace(task.configuration, network=makers.network_plan(feature_size=16))
    changed = replace(task, configuration=other, plan=makers.plan(other), folder=tmp_path)
    for name in ("plan.json", "dataset.json"):
        shutil.copy(task.folder / name, tmp_path)
    with pytest.raises(TrainingError, match="time"):
        train_folds(changed, FOLDS[:1], SETTINGS, deadline=0.0)
    assert planned_otherwise(tmp_path, changed.plan, other) == []
    assert (tmp_path / "plan.json.old").read_bytes() == (task.folder / "plan.json").read_bytes()


def test_folds_of_another_recipe_or_of_changed_images_are_refused(trained):
    task, _ = trained
    training = replace(task.configuration.training, lambda_ce=0.3)
    other = replace(task.configuration, training=training)
    case = task.stored["c"]
    changed = replace(case, record=replace(case.record, content="another"))
    for now, what in (
        (replace(task, configuration=other, plan=makers.plan(other)), "training or augmentation of the plan"),
        (replace(task, stored={**task.stored, "c": changed}), "image or labels of c"),
    ):
        with pytest.raises(TrainingError, match=rf"fold_0 \(changed: {what}\), fold_1 .*train them anew"):
            train_folds(now, FOLDS[:2], SETTINGS)
    longer = replace(task.configuration, training=replace(task.configuration.training, epochs=7))
    assert train_folds(replace(task, configuration=longer, plan=makers.plan(longer)), FOLDS[:2], SETTINGS)


def test_what_an_edited_split_changes_is_said(trained):
    task, _ = trained
    edited = Fold(name="0", training=("a", "b"), validation=("c",))
    with pytest.raises(TrainingError, match=r"fold_0 \(changed: \w is new in it, \w has left it\); move"):
        train_folds(task, [edited], SETTINGS)
    # Folds of earlier versions lack the file.
    before = (task.folder / "fold_0" / TRAINED_ON).read_bytes()
    (task.folder / "fold_0" / TRAINED_ON).unlink()
    try:
        with pytest.raises(TrainingError, match=r"found others: fold_0; move"):
            train_folds(task, [edited], SETTINGS)
    finally:
        (task.folder / "fold_0" / TRAINED_ON).write_bytes(before)


def test_a_model_of_the_same_cases_is_no_fair_start(trained, tmp_path, caplog):
    task, _ = trained
    initial = load_initial_weights(task.folder, task.plan, task.configuration)
    again = replace(task, folder=tmp_path / "again", initial_weights=initial)
    train_folds(again, FOLDS[:1], SETTINGS)
    assert "trained on Dataset007_Small as well: held-out cases may be among those" in caplog.text


def test_damaged_weights_of_a_finished_fold_say_what_to_move(tmp_path):
    task = make_task(tmp_path)
    train_folds(task, FOLDS[:1], SETTINGS)
    weights = task.folder / "fold_0" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"finished fold .* damaged; move .*fold_0 away"):
        train_folds(task, FOLDS[:1], SETTINGS)


def test_an_interrupted_validation_goes_on(tmp_path):
    task = make_task(tmp_path)
    fold = Fold(name="0", training=("c",), validation=("a", "b"))
    train_folds(task, [fold], SETTINGS)
    kept, lost = (task.prediction(fold, name) for name in fold.validation)
    before = kept.stat().st_mtime_ns
    lost.unlink()
    train_folds(task, [fold], SETTINGS)
    assert lost.is_file()
    assert kept.stat().st_mtime_ns == before


def test_folds_that_began_from_other_weights_are_refused(trained, tmp_path):
    task, _ = trained
    path = save_import(tmp_path / "imported.safetensors", seed=0)
    other = replace(task, initial_weights=load_initial_weights(path, task.plan, task.configuration))
    with pytest.raises(
        TrainingError, match=r"present --pretrained .* found fold_0, fold_1 begun from others"
    ):
        train_folds(other, FOLDS, SETTINGS)
    assert len(list(task.folder.glob("fold_*"))) == 2


def test_folds_of_another_split_are_refused(trained):
    """They would be validated on cases that they have seen."""
    task, _ = trained
    turned = [replace(FOLDS[0], name="1"), replace(FOLDS[1], name="0")]
    with pytest.raises(TrainingError, match=r"found others: fold_0 .*is new in it.*, fold_1 "):
        train_folds(task, turned, SETTINGS)


def test_what_is_trained_on_the_same_cases_but_not_asked_for_may_stay(trained):
    task, _ = trained
    assert len(train_folds(task, FOLDS[1:2], SETTINGS).cases) == 1
    assert len(train_folds(task, FOLDS[:2], SETTINGS).cases) == 2


def test_predictions_of_cases_that_were_moved_do_not_count(trained):
    task, evaluation = trained
    stale = task.folder / "fold_0" / VALIDATION / "b.nii.gz"
    stale.write_bytes((task.folder / "fold_0" / VALIDATION / "a.nii.gz").read_bytes())
    try:
        assert train_folds(task, FOLDS[:2], SETTINGS).cases == evaluation.cases
    finally:
        stale.unlink()


def test_without_time_the_rest_is_refused_and_complete_folds_stay(trained):
    task, _ = trained
    for parallel in (1, 2):
        with pytest.raises(NoTimeLeftError, match="no time is left for fold 2, which stays incomplete"):
            train_folds(task, FOLDS, replace(SETTINGS, parallel=parallel), deadline=time.monotonic() - 1)
    assert set(times(task)) == {"fold_0", "fold_1"}


@pytest.mark.parametrize("parallel", [1, 2])
def test_folds_for_which_no_time_is_left_are_named_and_the_others_scored(tmp_path, monkeypatch, parallel):
    """Two folds need all the time: the schedule of the third would be run through in a step."""
    task = make_task(tmp_path)
    train_folds(task, FOLDS[:1], SETTINGS)
    (task.folder / CROSS_VALIDATION).unlink()
    ended = iter([60.0, -1.0])
    monkeypatch.setattr(
        "trainers.time_budget.share_of_time",
        lambda _, part: share_of_time(time.monotonic() + next(ended), part),
    )
    with pytest.raises(NoTimeLeftError, match=r"no time is left for fold 2, .*--max-minutes"):
        train_folds(task, FOLDS, replace(SETTINGS, parallel=parallel), deadline=time.monotonic() + 60)
    assert set(times(task)) == {"fold_0", "fold_1"}
    assert set(read_cross_validation(task.folder).folds) == {"0", "1"}


def test_one_model_on_every_case_has_no_validation(tmp_path):
    task = make_task(tmp_path)
    full = Fold(name="full", training=NAMES, validation=())
    assert train_folds(task, [full], SETTINGS, deadline=time.monotonic() + 60) is None
    assert open_model(task.folder).folds == ("full",)
    assert not (task.folder / CROSS_VALIDATION).exists()


def test_a_fault_in_one_of_two_folds_side_by_side_reaches_the_user(tmp_path):
    task = make_task(tmp_path)
    # The first and the second fold train on it; the third only validates, from the raw files.
    (tmp_path / "stored" / "c_image.b2nd").write_bytes(b"damaged")
    with pytest.raises(FormatError, match="case c"):
        train_folds(task, (FOLDS[0], FOLDS[2]), replace(SETTINGS, parallel=2))
    assert "fold_0" not in times(task)


def test_warnings_of_folds_side_by_side_reach_the_user_once(tmp_path, caplog):
    # As many steps as the monitors look at before they judge, of the smallest patches.
    windows = ((2, 2, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1))
    network = makers.network_plan(window_sizes=windows)
    task = make_task(tmp_path, patch_size=(8, 8, 8), network=network)
    train_folds(task, FOLDS[:2], replace(SETTINGS, parallel=2, iterations=SAMPLES * SAMPLE_EVERY))
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    # One message for both folds, if it comes from both within a moment.
    heads = [
        text.partition(": the adaptive attention")[0] for text in said if "the adaptive attention" in text
    ]
    assert sorted(name for head in heads for name in head.removeprefix("fold ").split(", ")) == ["0", "1"]


def extensions(task: TrainingRun) -> list[int]:
    return [load_facts(path)["extensions"] for path in sorted(task.folder.glob(f"fold_*/{WEIGHTS}"))]


def test_an_interrupted_extension_of_several_folds_goes_on_where_it_was(tmp_path, monkeypatch):
    """Each fold is extended once, whatever happens on the way; the next command extends all once more."""
    task, further = make_task(tmp_path), replace(SETTINGS, epochs=None, extend=1)
    train_folds(task, FOLDS[:2], SETTINGS)
    predictions = [task.folder / f"fold_{i}" / VALIDATION / f"{'ab'[i]}.nii.gz" for i in range(2)]
    outdated = [mark_outdated(path) for path in predictions]
    with monkeypatch.context() as patched:
        stop_in(patched, "1")
        with pytest.raises(KeyboardInterrupt):
            train_folds(task, FOLDS[:2], further)
    assert extensions(task) == [1, 0]
    assert predictions[0].read_bytes() != outdated[0]
    assert predictions[1].read_bytes() == outdated[1]
    assert len(train_folds(task, FOLDS[:2], further).cases) == 2
    assert extensions(task) == [1, 1]
    assert predictions[1].read_bytes() != outdated[1]
    predictions[1].unlink()
    train_folds(task, FOLDS[:2], further)
    assert extensions(task) == [1, 1]
    assert predictions[1].is_file()
    with monkeypatch.context() as patched:
        patched.setattr(cross_validation, "score_held_out", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_folds(task, FOLDS[:2], further)
    assert extensions(task) == [2, 2]
    train_folds(task, FOLDS[:2], further)
    assert extensions(task) == [2, 2], "only the scores were lacking"
    train_folds(task, FOLDS[:2], further)
    assert extensions(task) == [3, 3]


def mark_outdated(path) -> bytes:
    """Make a prediction one that no network would, and return the file."""
    volume = read_labels(path)
    write_labels(path, np.full_like(volume.array[0], 7), volume.stored)
    return path.read_bytes()


def interrupt(*_):
    raise KeyboardInterrupt


def stop_in(patched, name: str) -> None:
    run = FoldTrainer.run

    def stopping(self, seconds, budget=None):
        if self.state.run.fold == name:
            raise KeyboardInterrupt
        return run(self, seconds, budget)

    patched.setattr(FoldTrainer, "run", stopping)


def test_folds_that_are_not_trained_cannot_be_extended(trained):
    task, _ = trained
    with pytest.raises(
        TrainingError, match=r"complete folds in .* to extend, found 2 not trained to the end"
    ):
        train_folds(task, FOLDS, replace(SETTINGS, epochs=None, extend=1))
    assert set(extensions(task)) == {0}


def test_a_fold_that_is_being_trained_is_left_to_who_trains_it(tmp_path):
    task = make_task(tmp_path)
    lock = heartbeat_lock(task.folder / "fold_0" / TRAINING_LOCK, "one training", TrainingError)
    with lock, pytest.raises(TrainingError, match=r"one training of .*fold_0 at a"):
        train_folds(task, FOLDS[:1], SETTINGS)
    assert not times(task)


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    task = make_task(tmp_path)
    leftovers = [
        task.folder / "fold_0" / name for name in (".abc.tmp.safetensors", f"{VALIDATION}/.abc.tmp.nii.gz")
    ]
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    half = task.folder / "fold_0" / VALIDATION / ".def.tmp" / "a.nii.gz"
    half.parent.mkdir()
    half.touch()
    train_folds(task, FOLDS[:1], SETTINGS)
    assert not [path for path in (*leftovers, half.parent) if path.exists()]


def test_a_checkpoint_that_a_finished_fold_has_left_behind_is_removed(tmp_path):
    """By a process that was killed between the two."""
    task = make_task(tmp_path)
    full = Fold(name="full", training=NAMES, validation=())
    train_folds(task, [full], SETTINGS)
    folder, before = task.fold_folder(full), times(task)
    Checkpoints(folder).save(*load_tensors(folder / WEIGHTS))
    train_folds(task, [full], SETTINGS)
    assert not (folder / CHECKPOINT).exists()
    weights, facts = load_tensors(folder / WEIGHTS)
    Checkpoints(folder).save(weights, {**facts, "extensions": 1})
    train_folds(task, [full], SETTINGS)
    assert (folder / CHECKPOINT).exists(), "of an extension that was interrupted"
    assert times(task) == before


def test_a_complete_fold_says_how_long_it_was_trained_and_how_it_is_trained_further(trained, caplog):
    task, _ = trained
    caplog.set_level("INFO")
    for epochs in (1, 4):
        train_folds(task, FOLDS[:1], replace(SETTINGS, epochs=epochs))
    same, more = [text for text in caplog.messages if "complete already" in text]
    assert re.fullmatch(r"fold 0 is complete already: it was trained for 1 epoch( in \S+ minutes)?", same)
    assert more == f"{same}; --extend 3 instead of --epochs trains it for 3 more"


def test_a_complete_fold_says_that_it_stopped_early(trained, caplog, tmp_path):
    task, _ = trained
    folder = shutil.copytree(task.folder, tmp_path / "fullres")
    weights, facts = load_tensors(folder / "fold_0" / WEIGHTS)
    save_tensors(folder / "fold_0" / WEIGHTS, weights, {**facts, "epochs": 7, "stopped_early": 5})
    caplog.set_level("INFO")
    for waited in (None, 3):
        stopped = replace(SETTINGS, epochs=20, stop_early=waited)
        train_folds(replace(task, folder=folder), FOLDS[:1], stopped)
    other, same = [text for text in caplog.messages if "complete already" in text]
    assert same.endswith(" and stopped early, by a plateau that was found after epoch 5")
    assert other == f"{same}; --extend 13 instead of --epochs trains it for 13 more"


def test_before_any_fold_is_trained_one_without_held_out_cases_is_refused(trained):
    task, _ = trained
    folds = (*FOLDS[:2], Fold(name="full", training=NAMES, validation=()))
    with pytest.raises(TrainingError, match="for --stop-early, found none of fold full; leave"):
        train_folds(task, folds, replace(SETTINGS, stop_early=3))


@pytest.mark.parametrize(
    ("n", "cores", "most", "sizes"),
    [
        (5, 2, 5, [3, 2]),
        (5, 2, 2, [2, 2, 1]),
        (5, 4, 5, [5]),
        (5, 8, 5, [5]),
        (2, 2, 5, [2]),
        (5, 3, 1, [1] * 5),
    ],
)
def test_rounds_keep_the_cores_busy_and_hold_every_fold_once(n, cores, most, sizes):
    rounds = deal_rounds(range(n), cores, most)
    assert [len(together) for together in rounds] == sizes
    assert [fold for together in rounds for fold in together] == list(range(n))


def test_each_process_of_folds_side_by_side_keeps_a_device(tmp_path):
    task, places = make_task(tmp_path), (torch.device("cpu"), torch.device("cpu", 0))
    train_folds(task, FOLDS, replace(SETTINGS, parallel=2, devices=places))
    assert set(times(task)) == {"fold_0", "fold_1", "fold_2"}


def test_every_device_is_used(tmp_path):
    places = (torch.device("cpu"), torch.device("cuda", 99))
    with pytest.raises(Exception, match=r"(?i)cuda"):
        train_folds(make_task(tmp_path), FOLDS[:2], replace(SETTINGS, parallel=2, devices=places))
