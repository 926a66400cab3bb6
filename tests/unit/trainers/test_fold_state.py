import logging
from dataclasses import replace

import pytest
import torch

from autospine.core.errors import TrainingError
from autospine.storage.tensors import save_tensors
from autospine.storage.trained_models import WEIGHTS
from trainers.checkpoints import CHECKPOINT, Checkpoints
from trainers.early_stopping import Plateau
from trainers.fold_state import PartialEpoch, resume
from trainers.learner import StepResult
from trainers.run_identity import RunIdentity
from trainers.schedule import Cooldown
from trainers.settings import TrainingSettings

TENSORS = {"a": torch.ones(2)}
STEP = StepResult(loss=0.5, parts={"ce": 0.5}, finite=True)


@pytest.fixture
def asked(tmp_path) -> RunIdentity:
    return RunIdentity(
        fold="0",
        folder=tmp_path,
        identity="plan and cases",
        plan="plan",
        weights=None,
        seed=0,
        deep_supervision=False,
        extensions=0,
    )


def interrupt(asked: RunIdentity, **facts: object) -> None:
    """Leave a checkpoint after one step of the third epoch."""
    known = {
        "step": 5,
        "progress": 0.5,
        "processes": 1,
        "epochs": 2,
        "begun": [STEP.plain()],
        "begun_seconds": 1.5,
        "seen": [[1, 2]],
    }
    Checkpoints(asked.folder).save(TENSORS, {**asked.facts(), **known, **facts})


def finish(asked: RunIdentity, **facts: object) -> None:
    save_tensors(asked.folder / WEIGHTS, TENSORS, {**asked.facts(), "steps": 8, "epochs": 4, **facts})


def test_a_new_fold_starts_from_nothing(asked, tmp_path):
    state, tensors = resume(asked, TrainingSettings())
    assert (state.run, state.resumed, state.step, state.epochs, tensors) == (asked, False, 0, 0, {})
    assert not list(tmp_path.iterdir())


def test_an_interrupted_fold_resumes_with_its_partial_epoch_and_its_seed(asked, caplog):
    caplog.set_level(logging.INFO)
    interrupt(replace(asked, seed=3))
    state, tensors = resume(asked, TrainingSettings())
    assert (state.resumed, state.step, state.progress, state.epochs) == (True, 5, 0.5, 2)
    assert state.partial_epoch == PartialEpoch(steps=(STEP,), seconds=1.5)
    assert state.monitor_counts == [[1, 2]]
    assert state.run == replace(asked, seed=3)
    assert torch.equal(tensors["a"], TENSORS["a"])
    assert caplog.messages == ["fold 0 resumes after epoch 2, step 5"]


def test_another_seed_than_the_recorded_one_is_refused_if_the_user_chose_it(asked):
    interrupt(replace(asked, seed=3))
    with pytest.raises(TrainingError, match="--seed 3"):
        resume(asked, TrainingSettings(seed=0))


def test_a_checkpoint_of_earlier_versions_has_no_partial_epoch_and_one_process(asked):
    facts = {"identity": asked.identity, "step": 4, "progress": 0.4, "epochs": 2}
    Checkpoints(asked.folder).save(TENSORS, facts)
    state, _ = resume(asked, TrainingSettings())
    assert (state.step, state.processes, state.partial_epoch) == (4, 1, PartialEpoch())
    assert state.run == asked


KEPT = {
    "best": 0.5,
    "best_epoch": 1,
    "found": 2,
    "cooldown": {"step": 4, "progress": 0.4, "steps": 6},
}
"""Early stopping in a checkpoint that was written in the cooldown."""


def test_a_plateau_that_was_found_is_kept(asked, caplog):
    caplog.set_level(logging.INFO)
    interrupt(asked, early_stopping=KEPT)
    state, _ = resume(asked, TrainingSettings(stop_early=1))
    assert state.plateau == Plateau(epochs=2, best=0.5, best_epoch=1, found=2)
    assert state.cooldown == Cooldown(step=4, progress=0.4, steps=6)
    assert caplog.messages == ["fold 0 resumes after epoch 2, step 5; it stops early (plateau after epoch 2)"]


def test_what_is_resumed_without_stopping_early_completes_its_schedule(asked):
    interrupt(asked, early_stopping=KEPT)
    state, _ = resume(asked, TrainingSettings())
    assert (state.plateau, state.cooldown) == (Plateau(), None)


@pytest.mark.parametrize("facts", [{}, {"early_stopping": None}])
def test_early_stopping_may_begin_with_a_resumed_training(asked, facts):
    interrupt(asked, **facts)
    state, _ = resume(asked, TrainingSettings(stop_early=3))
    assert (state.plateau, state.cooldown) == (Plateau(epochs=2, best_epoch=2), None)


def test_an_extension_starts_from_the_finished_weights(asked, caplog):
    caplog.set_level(logging.INFO)
    finish(replace(asked, seed=3, extensions=1))
    state, tensors = resume(asked, TrainingSettings(extend=2))
    assert (state.resumed, state.step, state.steps_before, state.epochs) == (False, 0, 8, 4)
    assert state.run == replace(asked, seed=3, extensions=2)
    assert tensors.keys() == TENSORS.keys()
    assert caplog.messages == ["fold 0 has finished 4 epochs and is trained for 2 more"]


def test_an_interrupted_extension_resumes_and_knows_the_steps_before_it(asked):
    finish(asked)
    interrupt(replace(asked, extensions=1), epochs=6)
    state, _ = resume(asked, TrainingSettings(extend=2))
    assert (state.resumed, state.step, state.steps_before, state.epochs) == (True, 5, 8, 6)


def test_a_checkpoint_that_the_finished_training_left_behind_is_removed(asked):
    finish(asked)
    interrupt(asked)
    state, _ = resume(asked, TrainingSettings(extend=2))
    assert not state.resumed
    assert not (asked.folder / CHECKPOINT).exists()
