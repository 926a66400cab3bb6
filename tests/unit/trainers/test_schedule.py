import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers import schedule
from trainers.schedule import ENDLESS, FINAL, Clock, Cooldown, learning_rate

SHARES = st.floats(0, 1)
PEAKS = st.floats(1e-6, 1.0)
WARMUPS = st.floats(0.01, 0.9)


class Watch:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 50.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(schedule, "time", watch)
    return watch


@given(SHARES, PEAKS, st.floats(0, 0.9))
def test_the_rate_stays_between_its_end_and_its_peak(progress, peak, warmup):
    rate = learning_rate(progress, peak, warmup)
    assert FINAL * peak * (1 - 1e-9) <= rate <= peak * (1 + 1e-9)


@given(PEAKS, WARMUPS)
def test_the_rate_warms_up_peaks_and_ends(peak, warmup):
    assert learning_rate(0, peak, warmup) == pytest.approx(FINAL * peak)
    assert learning_rate(warmup / 2, peak, warmup) == pytest.approx(peak / 2)
    assert learning_rate(warmup, peak, warmup) == pytest.approx(peak)
    assert learning_rate((1 + warmup) / 2, peak, warmup) == pytest.approx(peak * (1 + FINAL) / 2)
    assert learning_rate(1, peak, warmup) == pytest.approx(FINAL * peak)


@given(SHARES, SHARES, WARMUPS)
def test_the_rate_rises_and_then_falls(a, b, warmup):
    a, b = sorted((a, b))
    first, second = learning_rate(a, 1.0, warmup), learning_rate(b, 1.0, warmup)
    if b <= warmup:
        assert first <= second * (1 + 1e-9)
    elif a >= warmup:
        assert second <= first * (1 + 1e-9)


def test_without_warm_up_the_peak_comes_first():
    assert learning_rate(0, 0.1, 0) == pytest.approx(0.1)


@given(st.integers(1, 50))
def test_a_clock_of_steps_ends_after_them(total):
    clock = Clock(total_steps=total)
    clock.start()
    for done in range(1, total + 1):
        assert not clock.done
        clock.tick()
        assert clock.progress == pytest.approx(done / total)
    assert clock.done
    assert clock.step == total


def test_a_clock_of_time_ends_with_it(watch):
    clock = Clock(total_steps=10**9, seconds=20.0)
    clock.start()
    for passed in (5, 10, 15):
        watch.now = 50.0 + passed
        clock.tick()
        assert clock.progress == pytest.approx(passed / 20)
        assert not clock.done
    watch.now = 70.5
    clock.tick()
    assert clock.progress == 1.0
    assert clock.done


def test_whichever_ends_first_ends_training(watch):
    clock = Clock(total_steps=2, seconds=100.0)
    clock.start()
    clock.tick()
    assert clock.progress == pytest.approx(0.5)
    watch.now += 80
    clock.tick()
    assert clock.done


def test_a_resumed_clock_spends_the_time_given_now_on_what_is_left(watch):
    clock = Clock(total_steps=10**9, seconds=10.0, step=30, progress=0.6)
    watch.now = 1000.0
    clock.start()
    clock.tick()
    assert clock.progress == pytest.approx(0.6)
    watch.now += 5
    clock.tick()
    assert clock.progress == pytest.approx(0.8)
    watch.now += 5
    clock.tick()
    assert clock.done


def test_what_is_left_of_a_schedule_spreads_over_the_steps_that_are_left():
    """Half of the time was used up in 10 steps; then the command was given without a time."""
    clock = Clock(total_steps=1010, step=10, progress=0.5)
    clock.start()
    for _ in range(500):
        clock.tick()
    assert clock.progress == pytest.approx(0.75)
    for _ in range(500):
        assert not clock.done
        clock.tick()
    assert clock.done


def test_a_resumed_clock_of_the_same_steps_ticks_as_if_it_had_not_stopped():
    whole, parts = Clock(total_steps=7), Clock(total_steps=7)
    whole.start()
    for _ in range(7):
        parts = Clock(total_steps=7, step=parts.step, progress=parts.progress)
        parts.start()
        whole.tick()
        parts.tick()
        assert parts.progress == whole.progress
    assert whole.done


def test_no_time_at_all_ends_after_one_step():
    clock = Clock(total_steps=10**9, seconds=0.0)
    clock.start()
    clock.tick()
    assert clock.done


def test_fewer_steps_than_were_taken_already_are_the_end():
    clock = Clock(total_steps=5, step=8, progress=0.4)
    clock.start()
    assert clock.done


# Cooldowns.


def ticked(steps: int, **settings) -> Clock:
    """A clock after this many steps."""
    clock = Clock(**settings)
    clock.start()
    for _ in range(steps):
        clock.tick()
    return clock


def test_a_cooldown_runs_through_the_rest_of_the_schedule_in_fewer_steps():
    clock = ticked(30, total_steps=100)
    assert clock.cool_down(7)
    assert (clock.progress, clock.total_steps) == (0.3, 37)
    for done in range(1, 8):
        assert not clock.done
        clock.tick()
        assert clock.progress == pytest.approx(0.3 + 0.7 * done / 7)
    assert clock.done


@given(st.integers(1, 99), st.integers(1, 30))
def test_every_cooldown_ends_at_1(before, steps):
    clock = ticked(before, total_steps=100)
    shortened = clock.cool_down(steps)
    for _ in range(steps if shortened else 100 - before):
        clock.tick()
    assert clock.progress == 1.0


@pytest.mark.parametrize(("before", "steps"), [(93, 7), (93, 8), (100, 1)])
def test_a_cooldown_never_prolongs_a_training(before, steps):
    clock = ticked(before, total_steps=100)
    assert not clock.cool_down(steps)
    assert (clock.cooldown, clock.total_steps) == (None, 100)


@given(st.integers(1, 60), st.integers(1, 39), st.integers(0, 38))
def test_an_interrupted_cooldown_ticks_as_if_it_had_not_been(before, steps, interrupted_after):
    """Bit for bit, or a deterministic training would not be the same."""
    whole = ticked(before, total_steps=100)
    whole.cool_down(steps)
    parts = None
    for number in range(steps):
        if number == interrupted_after:
            parts = Clock(total_steps=100, step=whole.step, progress=whole.progress, cooldown=whole.cooldown)
            parts.start()
        whole.tick()
        if parts is not None:
            parts.tick()
            assert (parts.progress, parts.total_steps) == (whole.progress, whole.total_steps)
    assert whole.done


def test_a_cooldown_that_time_has_outrun_goes_on_with_the_share_that_is_left():
    cooldown = Cooldown(step=10, progress=0.5, steps=20)
    assert cooldown.resumed(20, 0.75) == cooldown
    assert cooldown.resumed(12, 0.75) == Cooldown(step=12, progress=0.75, steps=10)
    assert cooldown.resumed(12, 0.999) == Cooldown(step=12, progress=0.999, steps=1)


def test_time_may_end_a_cooldown_and_a_cooldown_what_only_time_would_end(watch):
    clock = ticked(0, total_steps=ENDLESS, seconds=100.0)
    for _ in range(10):
        watch.now += 2
        clock.tick()
    # At this pace 40 steps are left.
    assert not clock.cool_down(40)
    assert clock.cool_down(20)
    for _ in range(10):
        watch.now += 2
        clock.tick()
    assert clock.progress == pytest.approx(0.6)
    watch.now += 60
    clock.tick()
    assert clock.done
