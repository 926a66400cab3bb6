"""The rule of early stopping; `test_fold_trainer` trains folds that stop early."""

from collections.abc import Callable
from math import ceil

import makers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.early_stopping import COOLDOWN_SHARE, LEAST_RISE, EarlyStopping, Plateau
from trainers.schedule import Clock


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


def stopping(*, patience: int = 2, epochs: int = 40) -> tuple[Clock, Callable[[], str | None]]:
    """A clock, and the end of an epoch of two steps whose held-out Dice is that of all the others."""
    training = {"epochs": epochs, "warmup_fraction": 0.01, "iterations_per_epoch": 2}
    recipe = makers.configuration(training=training).training
    clock = Clock(total_steps=2 * epochs)
    clock.start()
    early = EarlyStopping(patience=patience, plateau=Plateau())

    def finish_epoch() -> str | None:
        for _ in range(2):
            clock.tick()
        told = early.finish_epoch(0.5, recipe, clock)
        assert early.plateau.found == (None if not clock.cooldown else clock.cooldown.step // 2)
        return told

    return clock, finish_epoch


def test_a_plateau_shortens_the_schedule_once():
    clock, finish_epoch = stopping()
    told = [finish_epoch() for _ in range(5)]
    assert told == [
        None,
        None,
        f"the held-out Dice has not risen by {LEAST_RISE} above 0.500 for 2 epochs; training stops early, "
        "after 1 more, in which the learning rate falls to its end",
        None,
        None,
    ]
    assert (clock.done, clock.total_steps) == (True, 2 * (3 + ceil(3 * COOLDOWN_SHARE)))


def test_near_its_end_a_schedule_is_left_as_it_is():
    clock, finish_epoch = stopping(patience=3, epochs=5)
    assert not any(finish_epoch() for _ in range(5))
    assert (clock.cooldown, clock.step, clock.progress) == (None, 10, 1.0)
