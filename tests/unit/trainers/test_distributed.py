import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import makers
import numpy as np
import pytest
import torch

from autospine.core.errors import TrainingError
from autospine.core.labels import IGNORE_INDEX
from autospine.data import PatchBatches
from trainers import distributed
from trainers.epoch_validation import prepare_validation
from trainers.learner import Learner, StepResult
from trainers.settings import TrainingSettings

CPU = torch.device("cpu")
STEPS = 20
RATE = 0.01


def store(folder: Path) -> list:
    rng = np.random.default_rng(0)
    made = []
    for name in ("a", "b"):
        indices = makers.column()
        indices[:, :2] = IGNORE_INDEX if name == "a" else 0
        made.append(makers.store_case(folder, name, indices + rng.normal(0, 0.2, indices.shape), indices))
    return made


def learn(
    cases, patches: int, *, part: int = 0, poisoned: int | None = None
) -> tuple[list[StepResult], Learner]:
    """The steps with this many patches a process, and the network behind them.

    Args:
        cases: to train on.
        patches: a step, of this process.
        part: which part of the batch is this process's.
        poisoned: step in which this process's logits are not finite.
    """
    configuration = makers.configuration(training={"batch_size": patches})
    learner = Learner(makers.plan(configuration), configuration, seed=part, device=CPU)
    steps = []
    with PatchBatches(
        cases, configuration, seed=0, start=0, stop=STEPS, workers=0, cache_bytes=10**8, part=part
    ) as batches:
        for number, batch in enumerate(batches):
            if number == poisoned:
                hook = learner.network.register_forward_hook(lambda _, __, logits: logits * float("nan"))
            steps.append(learner.step(batch.images, batch.labels, RATE))
            if number == poisoned:
                hook.remove()
    return steps, learner


def learn_together(cases, folder: Path, poisoned: int | None, rank: int) -> tuple[list[StepResult], dict]:
    """One of two processes with half of the batch."""
    torch.set_num_threads(1)
    with distributed.meeting(f"file://{folder}/meeting", CPU, rank, 2):
        steps, learner = learn(cases, 1, part=rank, poisoned=poisoned if rank == 1 else None)
        return steps, {name: tensor.numpy() for name, tensor in learner.averaged().state_dict().items()}


def dice(step: StepResult) -> list[float]:
    """The soft Dice of each foreground class."""
    return [(2 * both + 1) / (predicted + true + 1) for both, predicted, true in step.overlap]


@pytest.fixture(scope="module")
def two():
    """Calls a function in two processes at once; their number is its last argument."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:

        def call(function, *arguments) -> list:
            futures = [pool.submit(function, *arguments, rank) for rank in range(2)]
            return [future.result(timeout=120) for future in futures]

        yield call


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return store(tmp_path_factory.mktemp("stored"))


def test_two_processes_learn_what_one_does_with_the_whole_batch(two, cases, tmp_path):
    alone, _ = learn(cases, 2)
    (first, weights), (second, others) = two(learn_together, cases, tmp_path, None)
    assert first == second
    for one, many in zip(alone, first, strict=True):
        assert many.loss == pytest.approx(one.loss, abs=1e-4)
        assert many.parts["ce"] == pytest.approx(one.parts["ce"], abs=1e-4)
        assert dice(many) == pytest.approx(dice(one), abs=1e-3)
    for name, tensor in weights.items():
        np.testing.assert_array_equal(tensor, others[name])


def test_what_is_not_finite_in_one_process_is_skipped_by_all(two, cases, tmp_path):
    for steps, weights in two(learn_together, cases, tmp_path, 3):
        assert [step.finite for step in steps] == [number != 3 for number in range(STEPS)]
        assert all(np.isfinite(tensor).all() for tensor in weights.values())


def measure(cases, batch_size: int) -> tuple[dict, int]:
    """The columns of the held-out Dice of a network, and the number of tiles that this process predicts."""
    training = {"batch_size": batch_size, "iterations_per_epoch": 40}
    configuration = makers.configuration(training=training)
    learner = Learner(makers.plan(configuration), configuration, seed=0, device=CPU)
    validation = prepare_validation(cases, makers.LABELS, configuration, seed=0)
    predicted = 0
    with learner.predicting() as predict:

        def counting(images: torch.Tensor) -> torch.Tensor:
            nonlocal predicted
            predicted += len(images)
            return predict(images)

        return validation.finish_epoch(counting), predicted


def measure_together(cases, folder: Path, rank: int) -> tuple[dict, int]:
    torch.set_num_threads(1)
    with distributed.meeting(f"file://{folder}/meeting", CPU, rank, 2):
        return measure(cases, 1)


def test_two_processes_share_the_tiles_of_held_out_cases(two, cases, tmp_path):
    columns, tiles = measure(cases, 2)
    (first, half), (second, other) = two(measure_together, cases, tmp_path)
    assert first == second
    assert first["held_out_dice"] == pytest.approx(columns["held_out_dice"], abs=1e-4)
    assert first["held_out_dice_by_class"] == pytest.approx(columns["held_out_dice_by_class"], abs=1e-4)
    assert half + other == tiles
    assert abs(half - other) <= 1


def share(values: tuple[float, ...], folder: Path, rank: int) -> tuple[float, ...]:
    with distributed.meeting(f"file://{folder}/meeting", CPU, rank, 2):
        settings = TrainingSettings().applied(makers.configuration(training={"iterations_per_epoch": 5}))
        return (*distributed.largest(values[rank], -values[rank]), settings.training.iterations_per_epoch)


def test_the_largest_value_decides_and_epochs_are_shared(two, tmp_path):
    assert two(share, (0.25, 0.5), tmp_path) == [(0.5, -0.25, 3)] * 2


def count_here(machines: tuple[str, ...], folder: Path, rank: int) -> tuple[int, int]:
    with distributed.meeting(f"file://{folder}/meeting", CPU, rank, 2), pytest.MonkeyPatch.context() as patch:
        patch.setattr("platform.node", lambda: machines[rank])
        return distributed.size(), distributed.size_here()


@pytest.mark.parametrize(("machines", "here"), [(("a", "a"), 2), (("a", "b"), 1)])
def test_the_processes_of_a_machine_are_counted(two, tmp_path, machines, here):
    assert two(count_here, machines, tmp_path) == [(2, here)] * 2


def leave(reason: str, folder: Path, rank: int) -> str:
    with distributed.meeting(f"file://{folder}/meeting", CPU, rank, 2):
        if rank == 1:
            return reason
        with pytest.raises(TrainingError, match="every process of the training to go on, found one that"):
            distributed.meet()
        return "told"


def test_a_process_that_ends_ends_the_others_with_a_sentence(two, tmp_path):
    assert two(leave, "ended", tmp_path) == ["told", "ended"]


def test_one_process_alone_has_nobody_to_agree_with():
    assert (distributed.rank(), distributed.size(), distributed.leads()) == (0, 1, True)
    assert distributed.size_here() == 1
    assert distributed.largest(1.0, 2.0) == (1.0, 2.0)
    sums = torch.ones(2), torch.zeros(())
    assert all(a is b for a, b in zip(distributed.add_up(*sums), sums, strict=True))
    with distributed.joined("cpu") as device:
        assert device == CPU
