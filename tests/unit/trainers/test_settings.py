import makers
import pytest
import torch

from autospine.core.errors import TrainingError
from trainers.randomness import seed_everything
from trainers.settings import SEEDS, TrainingSettings


def test_without_choices_the_plan_stands():
    configuration = makers.configuration()
    assert TrainingSettings().applied(configuration) == configuration


def test_choices_replace_the_plans_numbers_and_nothing_else():
    configuration = makers.configuration()
    changed = TrainingSettings(epochs=7, iterations=3).applied(configuration)
    assert (changed.training.epochs, changed.training.iterations_per_epoch) == (7, 3)
    assert changed == makers.configuration(training={"epochs": 7, "iterations_per_epoch": 3})


def test_an_extension_has_its_own_number_of_epochs():
    assert TrainingSettings(extend=5).applied(makers.configuration()) == makers.configuration(
        training={"epochs": 5}
    )
    with pytest.raises(TrainingError, match="--epochs or --extend, found both"):
        TrainingSettings(extend=5, epochs=5)


def test_an_extension_does_not_stop_early():
    with pytest.raises(TrainingError, match="--stop-early or --extend, found both; leave --stop-early out"):
        TrainingSettings(extend=5, stop_early=5)


@pytest.mark.parametrize("choice", [{"epochs": 0}, {"iterations": -1}, {"extend": 0}, {"stop_early": 0}])
def test_no_steps_are_refused(choice):
    with pytest.raises(TrainingError, match=f"--{next(iter(choice)).replace('_', '-')} of at least 1"):
        TrainingSettings(**choice)


@pytest.mark.parametrize("seed", [-1, SEEDS])
def test_seeds_that_no_generator_takes_are_refused(seed):
    with pytest.raises(TrainingError, match=f"--seed of 0 to {SEEDS - 1}, found {seed}"):
        TrainingSettings(seed=seed)


@pytest.mark.parametrize("seed", [0, SEEDS - 1])
def test_every_other_seed_is_taken(seed):
    assert TrainingSettings(seed=seed).seed == seed
    seed_everything(seed)


@pytest.mark.parametrize(
    "choice, device, epochs, expected",
    [
        ({}, "cuda", 10, True),
        ({}, "cuda", 1, False),
        ({}, "cpu", 10, False),
        ({"deterministic": True}, "cuda", 10, False),
        ({"compiled": False}, "cuda", 10, False),
        ({"compiled": True}, "cpu", 1, True),
    ],
)
def test_long_trainings_on_a_gpu_are_compiled_unless_said_otherwise(choice, device, epochs, expected):
    training = makers.configuration(training={"epochs": epochs, "iterations_per_epoch": 250}).training
    assert TrainingSettings(**choice).compiles(training, torch.device(device)) == expected
