"""Labels that are reversed, turned or of another case are told from those that lie on the spine."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autospine.cli import main
from autospine.core.errors import DatasetError
from autospine.core.geometry import Orientation
from autospine.dataset.raw import load_dataset
from autospine.inference.predictor import Predictor
from autospine.io.images import read_labels, write_array
from autospine.phantom import PhantomSettings, generate
from autospine.phantom.generate import by_structure
from autospine.pipeline.label_placement import misplaced_labels, orientation_fits, turned_note

CPU = torch.device("cpu")
SPACING_MM = (2.5, 2.5, 2.5)


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    """The structures of a lumbar spine in a cube, the sacrum left out."""
    settings = PhantomSettings(
        region="lumbar", modality="CT", spacing_mm=(3.0, 3.0, 3.0), size_mm=(120.0, 120.0, 120.0)
    )
    labels = by_structure(generate(settings, seed=5).labels).astype(np.uint8)
    labels[labels == 4] = 0
    return labels


def noisy(labels: np.ndarray) -> np.ndarray:
    """What a poor model finds: a third of it is missing, and there are false pieces."""
    rng = np.random.default_rng(0)
    found = np.where(rng.random(labels.shape) < 0.67, labels, 0)
    found[rng.random(labels.shape) < 0.02] = 1
    return found.astype(np.uint8)


def test_labels_in_their_place_are_left_alone(cube):
    fits = orientation_fits(noisy(cube), cube)
    assert len(fits) == 48
    assert 0.6 < max(fits.values()) < 0.75
    assert turned_note(fits) is None


@pytest.mark.parametrize("flipped", [(True, False, False), (False, True, False), (True, True, False)])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_labels_that_are_reversed_or_turned_are_told_how(cube, order, flipped):
    if order == (0, 1, 2) and not any(flipped):
        return
    how = Orientation(order=order, flipped=flipped)
    note = turned_note(orientation_fits(noisy(cube), how.to_stored(cube)))
    assert note is not None
    reversed_ = " and ".join(axis for axis, against in zip("SPL", flipped, strict=True) if against)
    assert f"reversed along {reversed_}" in note
    if order != (0, 1, 2):
        assert f"with their axes in the order {', '.join('SPL'[axis] for axis in order)}" in note


def test_only_orientations_of_the_same_shape_are_compared(cube):
    flat = cube[:, :, :30]
    fits = orientation_fits(noisy(flat), flat)
    assert {how.order for how in fits} == {(0, 1, 2), (1, 0, 2)}
    assert set(orientation_fits(noisy(flat), np.zeros_like(flat)).values()) == {0.0}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """A CT and an MR of a spine, with labels by level."""
    root = tmp_path_factory.mktemp("placement")
    folder = root / "raw" / "Dataset001_Placed"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for modality in ("CT", "MR"):
        made = generate(PhantomSettings(region="lumbar", modality=modality, spacing_mm=SPACING_MM), seed=77)
        write_array(folder / "imagesTr" / f"{modality}_0000.nii.gz", made.image, made.grid)
        write_array(folder / "labelsTr" / f"{modality}.nii.gz", by_structure(made.labels), made.grid)
    described = {
        "channel_names": {"0": "image"},
        "labels": {"background": 0, "vertebra": 1, "IVD": 2, "spinal_canal": 3, "sacrum": 4},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return root


def state(root: Path, modalities: dict[str, str]) -> None:
    rows = "".join(f"{case},{modality}\n" for case, modality in modalities.items())
    (root / "raw" / "Dataset001_Placed" / "cases.csv").write_text(f"case,modality\n{rows}")


def test_the_starter_tells_misplaced_labels_and_no_others(phantoms, capsys):
    folder = phantoms / "raw" / "Dataset001_Placed"
    state(phantoms, {"CT": "CT", "MR": "MR"})
    assert main(["verify", "1", "-w", str(phantoms), "--starter"]) == 0
    assert "in all 2 cases the labels lie where the starter finds the spine" in capsys.readouterr().out

    path = folder / "labelsTr" / "MR.nii.gz"
    right = read_labels(path)
    back = np.ascontiguousarray(np.flip(right.array[0], 1))
    write_array(path, back, right.grid)
    try:
        assert main(["verify", "1", "-w", str(phantoms), "--starter"]) == 0
    finally:
        write_array(path, right.array[0], right.grid)
    said = capsys.readouterr().out
    assert "MR: its labels fit the image better reversed along P" in said
    assert "CT: " not in said
    assert main(["verify", "1", "-w", str(phantoms)]) == 0
    assert "starter" not in capsys.readouterr().out


def test_a_wrong_modality_and_labels_of_another_case_are_told(phantoms, monkeypatch):
    """By a starter that finds the spine in CT, and nothing in MR."""
    dataset = load_dataset(phantoms / "raw" / "Dataset001_Placed")
    truth = {case.name: read_labels(case.labels).array[0] for case in dataset.cases}

    def in_ct_alone(self, volume, modality, description):
        air = volume.array.min() < -500
        return truth["CT"].astype(np.uint8) * np.uint8(modality == "CT" and air)

    monkeypatch.setattr(Predictor, "predict", in_ct_alone)
    cases = tuple(replace(case, modality="MR") for case in dataset.cases)
    first, second = misplaced_labels(replace(dataset, cases=cases), CPU)
    assert first.startswith("CT: it may be CT rather than MR: the starter finds the same in 100% of the ")
    assert second.startswith("MR: the starter finds the same in no more than 0% of the labelled voxels")


def test_a_dataset_without_a_spine_cannot_be_compared(phantoms):
    dataset = load_dataset(phantoms / "raw" / "Dataset001_Placed")
    ribs = tuple(f"rib_{n}" for n in range(len(dataset.labels.names)))
    with pytest.raises(DatasetError, match="leave out --starter"):
        misplaced_labels(replace(dataset, labels=replace(dataset.labels, names=ribs)), CPU)
