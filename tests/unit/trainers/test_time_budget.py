"""The division of a time limit between training and validation, on a clock that stands still."""

import time

import pytest

from trainers.schedule import SPARE, Clock, NoTimeLeftError
from trainers.time_budget import LARGEST_SLOWDOWN, LEAST_SHARE, FairTimes, TimeBudget


class Watch:
    now = 1000.0


@pytest.fixture
def watch(monkeypatch):
    watch = Watch()
    monkeypatch.setattr(time, "monotonic", lambda: watch.now)
    return watch


def budget(**values) -> TimeBudget:
    given = {"ends": 1100.0, "least_end": 1050.0, "tiles": 10, "seconds_per_tile": 1.0, "fixed_seconds": 5.0}
    return TimeBudget(**given | values)


def test_training_gets_what_validation_leaves_but_half_of_its_fair_time_at_least(watch):
    assert budget().training_seconds() == 100 - 15
    assert budget(tiles=80).training_seconds() == 50
    assert budget(slowdown=2.0).training_seconds() == 100 - 30


def test_a_tile_that_takes_longer_now_shortens_the_training(watch):
    clock = Clock(total_steps=1000, seconds=85.0)
    clock.start()
    watch.now += 40
    clock.tick()
    before = clock.progress
    limit = budget()
    limit.learn(2.0, clock)
    # Reading and writing take twice as long, too.
    assert limit.validation_seconds == 2 * 15
    assert (clock.progress, clock.seconds) == (before, 60 - 30)
    watch.now += 15
    clock.tick()
    assert clock.progress == pytest.approx(before + (1 - before) / 2)
    watch.now += 15
    clock.tick()
    assert clock.done


def test_a_schedule_of_steps_goes_on_as_it_was_where_time_allows_it(watch):
    clock = Clock(total_steps=10, seconds=1000.0)
    clock.start()
    for _ in range(5):
        watch.now += 1
        clock.tick()
    clock.fit_into(500.0)
    for _ in range(5):
        watch.now += 1
        assert not clock.done
        clock.tick()
    assert clock.done


def test_a_limit_that_is_over_ends_the_training_with_its_next_step(watch):
    clock = Clock(total_steps=1000, seconds=100.0)
    clock.start()
    watch.now += 10
    clock.tick()
    clock.fit_into(-3.0)
    watch.now += 0.01
    clock.tick()
    assert clock.done


def test_a_fold_tells_how_much_longer_than_estimated_its_validation_took(watch):
    limit = budget()
    assert limit.measured_slowdown() is None
    limit.steps_ended = watch.now
    watch.now += 1.5 * limit.estimate
    assert limit.measured_slowdown() == pytest.approx(1.5)
    watch.now += 1e6
    assert limit.measured_slowdown() == LARGEST_SLOWDOWN


def test_later_folds_keep_their_fair_time_and_learn_from_the_validation_of_earlier_ones(watch):
    whole = 100 * (1 - SPARE)
    times = FairTimes(watch.now + 100, [0.5, 0.5])
    first = times.of(0, 0.5)
    assert (first.fair_seconds, first.slowdown) == (whole / 2, 1.0)
    watch.now += 80  # it has taken too long
    times.note(2.0)
    times.note(None)
    second = times.of(1, 1.0)
    assert second.ends == pytest.approx(watch.now + 20 * (1 - SPARE))
    assert (second.fair_seconds, second.slowdown) == (whole / 2, 2.0)
    assert LEAST_SHARE * second.fair_seconds > second.ends - watch.now
    watch.now += 20
    with pytest.raises(NoTimeLeftError, match="--max-minutes"):
        times.of(1, 1.0)


def test_without_a_limit_there_is_none_for_any_fold():
    times = FairTimes(None, [0.5, 0.5])
    assert times.of(0, 0.5) is times.of(1, 1.0) is None
