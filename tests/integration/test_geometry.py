"""The identity check: labels read, resampled and written back agree with themselves."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from autospine.core.geometry import Box, difference
from autospine.core.labels import LabelSpace, parse_labels
from autospine.dataset.raw import load_dataset
from autospine.inference.slab import Piece
from autospine.inference.to_native import NativeGrid
from autospine.io.images import read_labels, write_array, write_labels
from autospine.phantom import STRUCTURES, PhantomSettings, by_structure, generate
from autospine.phantom.scan import ORIENTATIONS, reoriented
from autospine.preprocessing.resample import resample_labels, target_shape

SPACING_MM = (1.5, 1.5, 1.5)


def there_and_back(source: Path, target: Path, space: LabelSpace) -> None:
    """The way of a prediction that is right at every voxel of the plan's grid."""
    volume = read_labels(source)
    indices = space.encode(volume.array[0])
    coarse = resample_labels(indices, target_shape(indices.shape, volume.grid.spacing_mm, SPACING_MM))
    classes = torch.from_numpy(coarse).long()
    scores = torch.nn.functional.one_hot(classes, space.n_channels).movedim(-1, 0).float()
    everything = Box(start=(0, 0, 0), stop=coarse.shape)
    grid = NativeGrid(coarse.shape, indices.shape, everything)
    fine = grid.resample(Piece(box=everything, scores=scores)).argmax()
    write_labels(target, space.decode(fine.numpy()), volume.stored)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def in_file(path: Path) -> np.ndarray:
    """The labels of all classes side by side, as they lie in the file: (class, k, j, i)."""
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert np.issubdtype(array.dtype, np.integer)
    return np.stack([array == value for value in STRUCTURES.values()])


def assert_same_header(a: Path, b: Path) -> None:
    first, second = sitk.ReadImage(str(a)), sitk.ReadImage(str(b))
    assert first.GetSize() == second.GetSize()
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        expected, found = (getattr(image, get)() for image in (first, second))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=get)


@pytest.fixture(scope="module")
def phantom():
    """A crooked spine on anisotropic voxels whose axes are near the patient's, in LPS."""
    settings = PhantomSettings(
        modality="CT",
        spacing_mm=(1.2, 1.0, 1.1),
        size_mm=(90.0, 80.0, 70.0),
        orientation="LPS",
        oblique_deg=8.0,
        metal=False,
    )
    made = generate(settings, seed=3)
    return made.grid, made.image, by_structure(made.labels)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_labels_agree_with_themselves_in_every_orientation(tmp_path, phantom, orientation):
    canonical, image, labels = phantom
    grid, (_, turned, _) = reoriented(canonical, (image, labels, labels.astype(np.int32)), orientation)
    source, target = tmp_path / "true.nii.gz", tmp_path / "back.nii.gz"
    write_array(source, turned, grid)
    there_and_back(source, target, parse_labels(STRUCTURES))
    assert_same_header(source, target)
    true, back = in_file(source), in_file(target)
    assert dice(true, back) >= 0.97
    # Structures as thin as a voxel of the plan lose the most.
    assert min(dice(a, b) for a, b in zip(true, back, strict=True)) >= 0.93


@pytest.mark.parametrize("ending", [".nii", ".mha", ".nrrd", ".mhd", ".nhdr"])
def test_labels_agree_with_themselves_in_every_format(tmp_path, phantom, ending):
    canonical, image, labels = phantom
    grid, (_, turned, _) = reoriented(canonical, (image, labels, labels.astype(np.int32)), "PIR")
    source, target = tmp_path / f"true{ending}", tmp_path / f"back{ending}"
    write_array(source, turned, grid)
    there_and_back(source, target, parse_labels(STRUCTURES))
    assert_same_header(source, target)
    assert dice(in_file(source), in_file(target)) >= 0.97


@pytest.mark.real_data
def test_real_labels_agree_with_themselves(tmp_path, real_data):
    dataset = load_dataset(real_data / "Dataset001_SpineReal")
    assert len(dataset.cases) == 6
    for case in dataset.cases:
        target = tmp_path / case.labels.name
        there_and_back(case.labels, target, dataset.labels)
        before, after = read_labels(case.labels), read_labels(target)
        assert difference(after.grid, before.grid) is None
        for value in np.unique(before.array[before.array != 0]):
            same = dice(before.array == value, after.array == value)
            assert same >= 0.97, f"{case.name}, label {value}"
