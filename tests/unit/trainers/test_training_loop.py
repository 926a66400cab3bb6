"""The loop alone, without files; `test_fold_trainer` trains whole folds."""

import time
from contextlib import nullcontext
from dataclasses import replace

import makers
import numpy as np
import pytest
import torch

from autospine.data import DataWorkerError, PatchBatches
from trainers.fold_state import PartialEpoch
from trainers.interruption import Interruption
from trainers.learner import Learner, StepResult
from trainers.metrics_log import HELD_OUT
from trainers.run_identity import RunIdentity
from trainers.schedule import Clock
from trainers.time_budget import TimeBudget
from trainers.training_loop import TrainingLoop

STEPS = 4


class Display:
    """Stands for a progress display, and sums what it is told."""

    percent = 0.0

    def advance(self, amount: float = 1) -> None:
        self.percent += amount

    def update(self, text: str) -> None:
        raise AssertionError("a process without a metrics log shows no text")


class Silent(Display):
    """Stands for a display whose text nobody reads."""

    def update(self, text: str) -> None:
        pass


class Log:
    """Stands for a metrics log, and keeps the step of each row."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def add(self, steps, network, **facts) -> dict:
        self.rows.append({"epoch": len(self.rows) + 1, "loss": None, **facts})
        return self.rows[-1]


class Saver:
    """Stands for a saver that takes some seconds, and keeps the steps of its checkpoints."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.steps = seconds, []

    def save_checkpoint(self, learner, clock, *others) -> None:
        self.steps.append(clock.step)
        time.sleep(self.seconds)


@pytest.fixture
def loop(tmp_path):
    """A loop of two epochs of two steps in a process that does not write."""
    configuration = makers.configuration(training={"iterations_per_epoch": 2, "epochs": 2})
    plan, indices = makers.plan(configuration), makers.column()
    noise = np.random.default_rng(0).normal(0, 0.2, indices.shape)
    case = makers.store_case(tmp_path / "stored", "a", indices + noise, indices)
    identity = RunIdentity(
        fold="0",
        folder=tmp_path / "fold_0",
        identity="",
        plan="",
        weights=None,
        seed=0,
        deep_supervision=False,
        extensions=0,
    )
    clock = Clock(total_steps=STEPS)
    clock.start()
    batches = PatchBatches([case], configuration, seed=0, start=0, stop=STEPS, workers=0, cache_bytes=0)
    with batches:
        yield TrainingLoop(
            run_identity=identity,
            learner=Learner(plan, configuration, seed=0, device=torch.device("cpu")),
            clock=clock,
            batches=batches,
            learning_rate=lambda progress: 0.01,
            partial_epoch=PartialEpoch(),
            metrics_log=None,
            saver=None,
            interruption=Interruption(),
        )


def test_a_process_that_does_not_write_takes_every_step_and_leaves_no_file(loop):
    display = Display()
    loop.run(display)
    assert (loop.clock.step, loop.clock.done) == (STEPS, True)
    assert display.percent == pytest.approx(100)
    assert not loop.run_identity.folder.exists()


def test_a_signal_to_stop_is_answered_after_the_step(loop):
    take = loop.learner.step

    def step(*arguments):
        loop.interruption.signal = 2
        return take(*arguments)

    loop.learner.step = step
    loop.run(Display())
    assert loop.clock.step == 1


@pytest.mark.parametrize("told", [True, False])
def test_workers_that_end_are_a_fault_unless_the_training_is_told_to_stop(loop, told):
    def step(*_):
        loop.interruption.signal = 2 if told else None
        raise DataWorkerError("a worker was killed")

    loop.learner.step = step
    with nullcontext() if told else pytest.raises(DataWorkerError):
        loop.run(Display())
    assert loop.clock.step == 0


@pytest.mark.parametrize("device, expected", [("cpu", [1, 2, 3, 4]), ("meta", [1, 4])])
def test_on_a_gpu_checkpoints_take_a_small_share_of_the_time(loop, device, expected):
    """The first and the last epoch end with one in any case; the meta device stands for a GPU."""
    loop.learner.recipe = replace(loop.learner.recipe, iterations_per_epoch=1, epochs=STEPS)
    loop.metrics_log, loop.saver = Log(), Saver(0.1)
    loop.learner.device = torch.device(device)
    loop.learner.step = lambda *_: StepResult(loss=1.0, parts={}, finite=True)
    loop.learner._updates = STEPS
    loop.run(Silent())
    assert [row["step"] for row in loop.metrics_log.rows] == [1, 2, 3, 4]
    assert loop.saver.steps == expected


def test_an_interruption_between_two_epochs_is_saved_too(loop):
    loop.learner.recipe = replace(loop.learner.recipe, iterations_per_epoch=1, epochs=STEPS)
    loop.metrics_log, loop.saver = Log(), Saver(0.1)
    loop.learner.device = torch.device("meta")

    def step(*_) -> StepResult:
        if loop.clock.step == 2:
            loop.interruption.signal = 2
        return StepResult(loss=1.0, parts={}, finite=True)

    loop.learner.step = step
    loop.run(Silent())
    assert loop.saver.steps == [1, 3]


class HeldOut:
    """Stands for the validation of an epoch, whose tiles take two seconds now."""

    predicted = 4

    def __init__(self) -> None:
        self.timed = 0

    def time_tile(self, predict) -> float:
        self.timed += 1
        return 2.0

    def finish_epoch(self, predict) -> dict:
        return {HELD_OUT: 0.5}


@pytest.mark.parametrize("epoch_steps, timed", [(2, 0), (4, 1), (1, 0)])
def test_the_time_limit_learns_from_held_out_tiles(loop, epoch_steps, timed):
    """Those of the first epoch, or of one that is predicted for it at half of the progress."""
    loop.learner.recipe = replace(loop.learner.recipe, iterations_per_epoch=epoch_steps)
    loop.learner._updates = STEPS
    loop.epoch_validation = held_out = HeldOut()
    now = time.monotonic()
    loop.time_budget = budget = TimeBudget(
        ends=now + 3600, least_end=now, tiles=100, seconds_per_tile=0.1, fixed_seconds=1.0
    )
    loop.run(Display())
    assert (held_out.timed, budget.learnt, loop.clock.step) == (timed, True, STEPS)
    expected = 2.0 if timed else pytest.approx(0, abs=1)
    assert budget.measured_seconds_per_tile == expected
    assert loop.clock.seconds == pytest.approx(3600 - budget.validation_seconds, abs=60)
    assert budget.steps_ended >= now
