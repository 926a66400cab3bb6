import re

import makers
import numpy as np
import pytest
import torch

from autospine.inference import predictor as inference
from autospine.inference.predictor import Predictor
from autospine.io.images import Volume
from autospine.plan import build_network
from autospine.prediction import announcement as estimate
from autospine.prediction.announcement import Estimates
from autospine.system.hardware import held_memory

CPU = torch.device("cpu")
# What the process of the tests holds already is part of the number.
MEMORY = r"[\d.]+ [MG]B of memory"


def of_body(shape=(40, 30, 30)):
    """A predictor of two networks, and what it has to do for a body that fills the image."""
    plan = makers.plan()
    networks = [build_network(plan, plan.configurations[0]) for _ in range(2)]
    predictor = Predictor(plan=plan, configuration=plan.configurations[0], networks=networks, device=CPU)
    array = np.random.default_rng(0).integers(-50, 300, (1, *shape)).astype(np.int16)
    grid = makers.grid(shape, (1.5, 1.5, 1.5))
    return predictor, predictor.prepare(Volume(array=array, grid=grid, stored=grid), "CT")


def test_a_line_says_what_there_is_to_do():
    predictor, work = of_body()
    said = Estimates(held_memory()).announcement(predictor, work, 0, save_probabilities=False)
    assert said.startswith("40x30x30 voxels; 36 of 36 tiles by 2 networks; ")
    assert said.endswith("of memory")
    said = Estimates(held_memory()).announcement(predictor, work, 0, save_probabilities=True)
    assert "; probabilities of up to 1 MB on disk" in said


def test_memory_is_that_of_the_process_a_tile_and_the_case():
    estimates = Estimates(held_memory())
    predictor, small = of_body()
    _, large = of_body((80, 30, 30))
    assert estimates.memory(predictor, small) > small.memory.total + 200e6
    grown = estimates.memory(predictor, large) - estimates.memory(predictor, small)
    assert grown == large.memory.total - small.memory.total > 0


def test_too_little_memory_is_said(monkeypatch):
    predictor, work = of_body()
    assert Estimates(held_memory()).shortage(predictor, work, 0) is None
    monkeypatch.setattr(estimate, "free_memory", lambda: 1_000_000)
    assert "found 1 MB; should the system stop it" in str(
        Estimates(held_memory()).shortage(predictor, work, 0)
    )


def test_the_time_of_the_next_case_is_that_of_the_last_one(monkeypatch):
    """One tile that was timed on a busy machine would say less than the tiles of a whole case."""
    monkeypatch.setattr(
        inference, "measure_tile_batch", lambda *_: pytest.fail("a tile was run for its time")
    )
    predictor, work = of_body()
    estimates = Estimates(held_memory())
    said = estimates.announcement(predictor, work, 0, save_probabilities=False)
    assert re.search(rf"networks; {MEMORY}", said)
    array = np.arange(20**3, dtype=np.int16).reshape(1, 20, 20, 20) % 9
    grid = makers.grid((20, 20, 20), (1.5, 1.5, 1.5))
    predictor.predict(Volume(array=array + 100, grid=grid, stored=grid), "CT")
    assert predictor.seconds_per_tile < 100
    assert re.search(
        rf"networks; (less than|about) \d+ s, {MEMORY}",
        estimates.announcement(predictor, work, 0, save_probabilities=False),
    )
