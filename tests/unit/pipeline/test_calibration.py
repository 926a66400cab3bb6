import json
from math import prod

import makers
import pytest
import torch

from autospine.pipeline import calibration
from autospine.pipeline.calibration import CALIBRATION, measure_calibration, patches_to_measure
from autospine.storage.workspace import DatasetLocation
from autospine.system.devices import describe
from planners.calibration_factor import StepTooLargeError

CPU = torch.device("cpu")


@pytest.fixture
def location(tmp_path):
    folders = {name: tmp_path / name for name in ("raw", "preprocessed", "results")}
    return DatasetLocation(name="Dataset001_Test", **folders)


def test_on_a_gpu_the_planned_patch_is_halved_first():
    configuration = makers.configuration(patch_size=(64, 64, 32))
    plan = makers.plan(configuration)
    tried = patches_to_measure(plan, configuration, gpu=True)
    voxels = [prod(each.patch_size) for each in tried]
    assert voxels == [2**16, 2**15, 2**14, 2**13]
    assert patches_to_measure(plan, configuration, gpu=False) == [configuration, *tried]


def test_steps_are_measured_and_kept(location):
    plan = makers.plan(makers.configuration(patch_size=(16, 16, 16)))
    factor = measure_calibration(location, plan, CPU)
    kept = json.loads((location.preprocessed / CALIBRATION).read_text(encoding="utf-8"))
    assert kept == {"format_version": 1, "device": describe(CPU), "factor": factor}


class Full:
    """A device that has room for so many voxels, in place of the process that measures."""

    def __init__(self, room):
        self.room, self.tried = room, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def submit(self, _measure, _plan, configuration, _device):
        self.tried.append(prod(configuration.patch_size))
        return self

    def result(self):
        if self.tried[-1] > self.room:
            raise StepTooLargeError("too much")
        return 1.25


@pytest.mark.parametrize(("room", "tried"), [(10**6, [2**16]), (2**14, [2**16, 2**15, 2**14])])
def test_smaller_patches_are_tried_until_one_fits(location, monkeypatch, room, tried):
    full = Full(room)
    monkeypatch.setattr(calibration, "WorkerPool", lambda _: full)
    monkeypatch.setattr(calibration, "describe", str)
    plan = makers.plan(makers.configuration(patch_size=(64, 64, 32)))
    assert measure_calibration(location, plan, torch.device("cuda")) == 1.25
    assert full.tried == tried


def test_a_device_that_holds_no_step_is_an_error(location, monkeypatch):
    monkeypatch.setattr(calibration, "WorkerPool", lambda _: Full(1))
    plan = makers.plan(makers.configuration(patch_size=(64, 64, 32)))
    with pytest.raises(StepTooLargeError, match="too much"):
        measure_calibration(location, plan, torch.device("cuda"))


class Here(Full):
    """Measures in this process."""

    def submit(self, measure, plan, configuration, device):
        self.factor = measure(plan, configuration, device)
        return self

    def result(self):
        return self.factor


def test_a_gpu_is_measured_with_the_convolutions_that_it_trains_with(location, monkeypatch):
    timed = []

    def calibrate(*_):
        timed.append(torch.backends.cudnn.benchmark)
        return 1.0

    monkeypatch.setattr(calibration, "WorkerPool", lambda _: Here(0))
    monkeypatch.setattr(calibration, "describe", str)
    monkeypatch.setattr(calibration, "calibrate", calibrate)
    before = torch.backends.cudnn.benchmark
    plan = makers.plan(makers.configuration(patch_size=(64, 64, 32)))
    measure_calibration(location, plan, torch.device("cuda"))
    assert timed == [True]
    assert torch.backends.cudnn.benchmark == before
