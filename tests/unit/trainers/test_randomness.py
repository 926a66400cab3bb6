import random

import numpy as np
import pytest
import torch

from trainers.randomness import deterministic, random_state, restore_random_state, seed_everything

CPU = torch.device("cpu")


def draw() -> list[float]:
    return [float(torch.rand(())), float(np.random.normal()), random.gauss(), random.random()]


@pytest.mark.parametrize("drawn_before", [0, 1])
def test_a_restored_state_gives_the_same_numbers(drawn_before):
    seed_everything(3)
    for _ in range(drawn_before):
        draw()
    state = random_state(CPU)
    expected = draw()
    draw()
    restore_random_state(state, CPU)
    assert draw() == expected


def test_seeds_decide():
    seed_everything(3)
    first = draw()
    seed_everything(4)
    assert draw() != first
    seed_everything(3)
    assert draw() == first


def test_states_that_are_lacking_are_left():
    seed_everything(3)
    state = random_state(CPU)
    expected = draw()
    seed_everything(3)
    restore_random_state({}, CPU)
    restore_random_state({"torch": state["torch"]}, CPU)
    assert draw() == expected


def test_deterministic_algorithms_are_on_inside_alone():
    cudnn = torch.backends.cudnn
    before = (torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark)
    with deterministic():
        assert torch.are_deterministic_algorithms_enabled()
        assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert (torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark) == before
