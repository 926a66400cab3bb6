"""Hours and voxels, measured on a small dataset with a small network."""

import json
import time
from dataclasses import replace
from pathlib import Path

import makers
import numpy as np
import pytest
import torch
from makers import LABELS

from autospine.cli.plan_tables import explain_plan, show_plan
from autospine.core.errors import PlanError
from autospine.data.loader import PatchBatches
from autospine.io.images import read_labels
from autospine.pipeline import costs
from autospine.pipeline.configuration_cost import COSTS, ConfigurationCost, known_costs
from autospine.pipeline.costs import labels_dice, measure_costs
from autospine.pipeline.measuring import fingerprint
from autospine.plan import build_network
from autospine.storage.workspace import DatasetLocation, Workspace
from trainers.learner import Learner

CPU = torch.device("cpu")
NAME = "Dataset007_Small"


def dataset(folder: Path):
    """Columns of bone and canal, as a raw dataset with its description."""
    labels = np.asarray([0, 3, 7], dtype=np.uint8)[makers.column((24, 22, 24))]
    made = makers.dataset_of(folder / "raw" / NAME, {"a": labels, "b": labels})
    described = {
        "channel_names": {"0": "image"},
        "labels": {"background": 0, "bone": 3, "canal": 7},
        "file_ending": ".nii.gz",
    }
    (folder / "raw" / NAME / "dataset.json").write_text(json.dumps(described))
    return made


@pytest.fixture
def location(tmp_path) -> DatasetLocation:
    """A measured dataset."""
    dataset(tmp_path)
    found = Workspace(root=tmp_path).find_dataset(NAME)
    fingerprint(found, workers=1)
    return found


def test_labels_lose_more_the_coarser_the_voxels(tmp_path):
    made = dataset(tmp_path)
    finest, coarse, coarser = (labels_dice(made, LABELS, (mm,) * 3) for mm in (1.0, 2.0, 4.0))
    assert finest == 1.0
    assert finest > coarse > coarser > 0


def test_what_lies_far_from_the_labels_is_left_out(tmp_path):
    """A wide field of view costs no time and changes nothing."""
    column = np.asarray([0, 3, 7], dtype=np.uint8)[makers.column((24, 22, 24))]
    close, wide = (np.pad(column, ((0, 0), (0, 0), (0, room))) for room in (16, 40))
    one, other = (
        labels_dice(makers.dataset_of(tmp_path / str(room), {"a": labels}), LABELS, (2.0,) * 3)
        for room, labels in ((16, close), (40, wide))
    )
    assert one == other


def test_labels_that_are_nowhere_have_no_dice(tmp_path):
    made = dataset(tmp_path)
    nothing = replace(LABELS, names=("disc",), members=((9,),), painted=(9,))
    cases = tuple(replace(case, labels=None) for case in made.cases)
    assert labels_dice(replace(made, cases=cases), nothing, (2.0,) * 3) is None


def test_hours_and_voxels_of_each_configuration_are_measured_once(location, monkeypatch):
    recipe = {"epochs": 10, "iterations_per_epoch": 36}
    fine = makers.configuration(spacing_mm=(1.0,) * 3, training=recipe)
    coarse = makers.configuration(name="fast", spacing_mm=(2.0,) * 3, training=recipe)
    planned = makers.plan(fine, coarse)
    paces = {(1.0,) * 3: (10.0, 2.0), (2.0,) * 3: (5.0, 1.0)}
    timed = []

    def pace(case, planned, configuration, device):
        timed.append(configuration.name)
        return paces[configuration.spacing_mm]

    monkeypatch.setattr(costs, "_timed", pace)
    found = measure_costs(location, planned, CPU)
    assert timed == ["fullres", "fast"]
    # 360 steps of 10 s, 15 % of as many tiles of 2 s, and little for the two cases.
    assert found["fullres"].hours == pytest.approx((3600 + 54 * 2) / 3600, rel=0.02)
    assert found["fast"].hours == pytest.approx((1800 + 54) / 3600, rel=0.02)
    assert found["fullres"].labels_dice == 1.0 > found["fast"].labels_dice
    assert measure_costs(location, planned, CPU) == found
    assert len(timed) == 2
    longer = replace(fine, training=replace(fine.training, epochs=20))
    assert measure_costs(location, makers.plan(longer, coarse), CPU)["fullres"].hours > 2
    assert timed == ["fullres", "fast", "fullres"]
    assert known_costs(location, planned)["fullres"].hours > 2, "what was measured last is kept alone"


def test_real_steps_are_timed(location):
    training = {"epochs": 1, "iterations_per_epoch": 1}
    planned = makers.plan(makers.configuration(spacing_mm=(1.5,) * 3, training=training))
    (found,) = measure_costs(location, planned, CPU).values()
    assert 0 < found.hours < 0.1
    assert known_costs(location, planned) == {"fullres": found}


def test_what_takes_long_is_measured_once(location, monkeypatch):
    """The measurement of hours has an end, however many labels there are."""
    taken = []
    step = Learner.step

    def slow(*given):
        taken.append(1)
        time.sleep(0.2)
        return step(*given)

    monkeypatch.setattr(Learner, "step", slow)
    training = {"epochs": 1, "iterations_per_epoch": 1000}
    planned = makers.plan(makers.configuration(spacing_mm=(1.5,) * 3, training=training))
    monkeypatch.setattr(costs, "ENOUGH_SECONDS", 0.1)
    (found,) = measure_costs(location, planned, CPU).values()
    assert len(taken) == 1
    assert found.hours > 1000 * 0.2 / 3600


def test_the_second_patch_is_left_out_where_it_would_take_too_long(location, monkeypatch):
    sizes = []

    def pace(case, planned, configuration, device):
        sizes.append(int(np.prod(configuration.patch_size)))
        return next(seconds), 0.1

    monkeypatch.setattr(costs, "_timed", pace)
    large = makers.plan(makers.configuration(patch_size=(256, 128, 64)))
    seconds = iter((costs.ENOUGH_SECONDS / 8, costs.ENOUGH_SECONDS / 2, costs.ENOUGH_SECONDS / 2))
    for patches in (2, 1):
        sizes.clear()
        (location.preprocessed / COSTS).unlink(missing_ok=True)
        measure_costs(location, large, CPU)
        assert len(sizes) == patches


def test_no_case_is_resampled_after_enough_seconds(tmp_path, monkeypatch):
    made = dataset(tmp_path)
    read = []
    monkeypatch.setattr(costs, "read_labels", lambda *given: read.append(1) or read_labels(*given))
    for enough, cases in ((60.0, 2), (0.0, 1)):
        read.clear()
        monkeypatch.setattr(costs, "ENOUGH_SECONDS", enough)
        assert labels_dice(made, LABELS, (2.0,) * 3) > 0
        assert len(read) == cases


def test_a_step_takes_as_long_as_its_patches(location, monkeypatch):
    """On a GPU that waits for them, or where storage is slow."""
    training = {"epochs": 1, "iterations_per_epoch": 100}
    planned = makers.plan(makers.configuration(spacing_mm=(1.5,) * 3, training=training))

    class Slow(PatchBatches):
        def __next__(self):
            time.sleep(0.5)
            return super().__next__()

    monkeypatch.setattr(costs, "PatchBatches", Slow)
    (found,) = measure_costs(location, planned, CPU).values()
    assert found.hours > 100 * 0.5 / 3600


@pytest.mark.parametrize("kind", [PlanError, OSError, ValueError])
def test_a_step_that_fails_has_no_hours(location, monkeypatch, caplog, kind):
    caplog.set_level("INFO")

    def fail(*_):
        raise kind("the windows do not fit")

    monkeypatch.setattr(Learner, "step", fail)
    planned = makers.plan(makers.configuration(spacing_mm=(1.5,) * 3))
    (found,) = measure_costs(location, planned, CPU).values()
    assert found.hours is None
    assert found.labels_dice is not None
    assert any("fullres cannot be measured: the windows do not fit" in text for text in caplog.messages)


def test_damaged_costs_are_measured_anew(location, monkeypatch):
    monkeypatch.setattr(costs, "_timed", lambda *_: (1.0, 1.0))
    planned = makers.plan(makers.configuration(spacing_mm=(1.5,) * 3))
    found = measure_costs(location, planned, CPU)
    (location.preprocessed / COSTS).write_text("{")
    assert known_costs(location, planned) == {}
    assert measure_costs(location, planned, CPU) == found == known_costs(location, planned)


@pytest.mark.parametrize(
    ("voxels", "seconds", "expected"), [((10,), (2.0,), 20.0), ((10, 20), (2.0, 3.0), 11.0)]
)
def test_the_time_of_a_large_patch_follows_from_smaller_ones(voxels, seconds, expected):
    assert costs._extrapolated(voxels, seconds, 100) == expected


def test_patches_that_are_timed_are_small_and_fit_the_network():
    chosen = makers.configuration(patch_size=(256, 128, 64))
    planned = makers.plan(chosen)
    small = costs._reduced(planned, chosen, CPU, 2**15)
    assert np.prod(small.patch_size) <= 2**15
    build_network(planned, small)(torch.zeros(1, 1, *small.patch_size))
    assert costs._reduced(planned, chosen, torch.device("cuda"), 2**15) == chosen


def test_tables_have_units_and_what_was_measured(capsys):
    planned = makers.plan(makers.configuration(), makers.configuration(name="fast"))
    cost = ConfigurationCost(key="", name="fullres", hours=12.345, labels_dice=0.98765)
    show_plan(planned, {"fullres": cost})
    shown = capsys.readouterr().out
    heading = next(line for line in shown.splitlines() if "configuration" in line)
    assert heading.split()[-8:] == ["mm", "patch", "voxels", "hours", "Dice", "batch", "features", "GiB"]
    assert max(map(len, shown.splitlines())) <= 80
    rows = {line.split()[1]: line.split()[-5:-3] for line in shown.splitlines() if "1.5 1.5 1.5" in line}
    assert rows == {"fullres": ["12", "0.988"], "fast": ["–", "–"]}
    explain_plan(planned, {"fullres": cost})
    explained = capsys.readouterr().out
    assert "hours a fold" in explained
    show_plan(planned, {})
    assert "hours" not in capsys.readouterr().out
