"""The rule and its measurement; `test_fold_trainer` trains folds that stop early."""

from math import ceil

import makers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autospine.core.labels import IGNORE_INDEX
from autospine.data.patches import PatchSource
from trainers.early_stopping import (
    COOLDOWN_SHARE,
    LEAST_RISE,
    PATCHES,
    EarlyStopping,
    Plateau,
    held_out_patches,
    mean_dice,
    show_classes,
)
from trainers.learner import Learner
from trainers.metrics_log import EARLY_STOP
from trainers.schedule import Clock

CPU = torch.device("cpu")


def after(*course: float | None, warm_up: int = 0) -> Plateau:
    """The plateau after epochs of this Dice, the first ones of which are those of the warm-up."""
    made = Plateau()
    for number, dice in enumerate(course):
        made = made.after(dice, warming_up=number < warm_up)
    return made


def test_a_plateau_is_reached_after_as_many_epochs_without_a_rise_as_are_waited_for():
    course = (0.3, 0.5, 0.5, 0.49)
    assert after(*course) == Plateau(epochs=4, best=0.5, best_epoch=2)
    assert [after(*course[:n]).reached(2) for n in range(1, 5)] == [False, False, False, True]


def test_a_rise_begins_the_wait_anew():
    assert not after(0.5, 0.5, 0.51, 0.5).reached(2)
    assert after(0.5, 0.5, 0.51, 0.5, 0.5).reached(2)


def test_creeping_is_no_rise_until_it_has_added_up():
    steps = [0.5 + 0.4 * LEAST_RISE * n for n in range(4)]
    assert after(*steps[:3]).reached(2)
    assert after(*steps).best_epoch == 4


def test_the_wait_begins_after_the_warm_up():
    flat = [0.1] * 6
    assert after(*flat[:5], warm_up=4).waited == 1
    assert after(*flat, warm_up=4).reached(2)


@pytest.mark.parametrize("course", [(None,) * 9, ()])
def test_what_was_never_measured_is_no_plateau(course):
    assert not after(*course).reached(1)


def test_an_epoch_that_could_not_be_measured_is_one_without_a_rise():
    assert after(0.5, None, None) == Plateau(epochs=3, best=0.5, best_epoch=1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_best_is_never_far_below_what_was_measured(course):
    found = after(*course)
    assert max(course) - LEAST_RISE <= found.best <= max(course)
    assert course[found.best_epoch - 1] == found.best


@pytest.fixture
def case(tmp_path):
    indices = makers.column()
    noise = np.random.default_rng(0).normal(0, 0.2, indices.shape)
    return makers.store_case(tmp_path, "a", indices + noise, indices)


def test_patches_are_drawn_as_in_training_without_augmentation(case):
    configuration = makers.configuration(training={"batch_size": 3})
    patches = held_out_patches([case], configuration, seed=4)
    assert len(patches) == ceil(PATCHES / 3)
    source = PatchSource([case], configuration, seed=4, cache_bytes=0, augment=False)
    for number, batch in enumerate(patches):
        assert torch.equal(batch.images, source.batch(number).images)
        assert torch.equal(batch.labels, source.batch(number).labels)
    others = held_out_patches([case], configuration, seed=5)
    assert not torch.equal(others[0].images, patches[0].images)


def test_cases_without_any_class_show_none(case, tmp_path):
    empty = np.zeros((16, 16, 16), dtype=np.uint8)
    empty[0] = IGNORE_INDEX
    unlabelled = makers.store_case(tmp_path, "b", empty.astype(float), empty)
    assert show_classes([unlabelled, case])
    assert not show_classes([unlabelled])
    assert not show_classes([])


def stopping(case, *, patience: int = 2, epochs: int = 40, **training):
    """Early stopping of a network, and a clock that has taken the steps of one epoch."""
    configuration = makers.configuration(training={"epochs": epochs, "warmup_fraction": 0.01, **training})
    learner = Learner(makers.plan(configuration), configuration, seed=0, device=CPU)
    clock = Clock(total_steps=2 * epochs)
    clock.start()
    patches = held_out_patches([case], configuration, seed=0)
    return learner, clock, EarlyStopping(patience=patience, patches=patches, plateau=Plateau())


def finish_epoch(learner: Learner, clock: Clock, early: EarlyStopping) -> dict:
    for _ in range(2):
        clock.tick()
    return early.finish_epoch(learner, clock)


def test_the_dice_is_that_of_the_patches(case):
    learner, _, early = stopping(case)
    assert mean_dice(learner, early.patches) == pytest.approx(0.2, abs=0.2)

    class Perfect(torch.nn.Module):
        """Knows the labels of the patch that it is shown."""

        def forward(self, images):
            (labels,) = (b.labels for b in early.patches if torch.equal(b.images, images))
            return 100 * torch.nn.functional.one_hot(labels.long(), 3).movedim(-1, 1).float()

    learner.network = Perfect()
    learner._averaged = {}
    assert mean_dice(learner, early.patches) == 1.0


def test_what_is_not_finite_has_no_dice(case):
    learner, _, early = stopping(case)
    for tensor in learner._averaged.values():
        tensor.fill_(float("nan"))
    assert mean_dice(learner, early.patches) is None


def test_a_plateau_shortens_the_schedule_once(case):
    learner, clock, early = stopping(case)
    columns = [finish_epoch(learner, clock, early) for _ in range(5)]
    assert [EARLY_STOP in row for row in columns] == [False, False, True, False, False]
    dice = columns[0]["held_out_dice"]
    assert [row["held_out_dice"] for row in columns] == [dice] * 5
    assert columns[2][EARLY_STOP] == (
        f"the held-out Dice has not risen by {LEAST_RISE} above {dice:.3f} for 2 epochs; training stops "
        "early, after 1 more, in which the learning rate falls to its end"
    )
    assert early.plateau.found == 3
    assert (clock.done, clock.total_steps) == (True, 2 * (3 + ceil(3 * COOLDOWN_SHARE)))


def test_near_its_end_a_schedule_is_left_as_it_is(case):
    learner, clock, early = stopping(case, patience=3, epochs=5)
    assert not any(EARLY_STOP in finish_epoch(learner, clock, early) for _ in range(5))
    assert (early.plateau.found, clock.step, clock.progress) == (None, 10, 1.0)
