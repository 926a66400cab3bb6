"""Tilted slices and steps that change: every voxel stays in its place, there and back."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_makers import AXIAL, write_frames, write_slices

from autospine.core.errors import ImageError
from autospine.core.geometry import orientation
from autospine.io.dicom import find_series
from autospine.io.images import Volume, read_volume, write_labels
from autospine.io.slice_stack import StraightenedGrid

TILT = np.deg2rad(18.5)
TILTED = (1.0, 0.0, 0.0, 0.0, float(np.cos(TILT)), -float(np.sin(TILT)))
SHAPE = (12, 40, 30)


def brightness(points_mm: np.ndarray) -> np.ndarray:
    """A value that grows evenly in space: linear interpolation leaves it as it is."""
    return 1000 + points_mm @ np.asarray((3.0, -5.0, 7.0))


def pixel_places(positions_mm: np.ndarray, row_column: tuple[float, ...]) -> np.ndarray:
    """Position of every pixel of slices (n, rows, columns, 3)."""
    _, rows, columns = SHAPE
    i = np.arange(columns)[:, None] * 0.5 * np.asarray(row_column[:3])
    j = np.arange(rows)[:, None] * 0.7 * np.asarray(row_column[3:])
    return positions_mm[:, None, None] + j[None, :, None] + i[None, None, :]


def on_line(steps_mm: np.ndarray) -> np.ndarray:
    """Positions of slices that follow one another along z."""
    return np.asarray((-10.0, -20.0, 5.0)) + np.concatenate([[0], np.cumsum(steps_mm)])[:, None] * (0, 0, 1)


REGULAR = np.full(SHAPE[0] - 1, 3.0)
CHANGING = np.asarray([4.0] * 5 + [2.0] + [7.0] * 5)
"""4 mm, then 7 mm, and a narrow step between: as a scanner does below and above the skull base."""


def by_thickness(header: Any) -> None:
    header.SliceThickness = "4" if header.InstanceNumber <= 6 else "7"


CASES = {
    "tilted": (TILTED, REGULAR),
    "tilted the other way": ((1.0, 0.0, 0.0, 0.0, float(np.cos(TILT)), float(np.sin(TILT))), REGULAR),
    "turned within": ((float(np.cos(TILT)), 0.0, -float(np.sin(TILT)), 0.0, 1.0, 0.0), REGULAR),
    "steps that change": (AXIAL, CHANGING),
    "tilted, with steps that change": (TILTED, CHANGING),
}


@pytest.fixture(params=CASES)
def stack(request: Any, tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder of slices, the positions of their pixels, and their values."""
    row_column, steps = CASES[request.param]
    places = pixel_places(on_line(steps), row_column)
    values = np.rint(brightness(places) * 10).astype(np.int16)
    write_slices(tmp_path / "in", values, on_line(steps), orientation=row_column, change=by_thickness)
    return tmp_path / "in", places, values


def test_voxels_of_the_straight_grid_show_what_is_at_their_place(stack: tuple[Path, np.ndarray, np.ndarray]):
    folder, places, _ = stack
    volume = read_volume(folder)
    grid = volume.grid
    axes = np.asarray(grid.direction).reshape(3, 3)
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    found, expected = volume.array[0] / 10, brightness(grid.physical(index))
    inside = volume.array[0] != volume.array.min()
    # The image is linear, so what lies between slices and pixels is known; borders mix with what is around.
    close = np.abs(found - expected) < 0.2
    assert close[inside].mean() > 0.8
    middle = tuple(slice(n // 2 - 2, n // 2 + 3) for n in grid.shape)
    assert close[middle].all()
    # Nothing of the slices lies outside.
    corners = grid.index(places[:, [0, 0, -1, -1], [0, -1, 0, -1]])
    assert (corners > -0.51).all()
    assert (corners < np.asarray(grid.shape) - 0.49).all()


def test_labels_come_back_to_the_slices(stack: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path):
    """A label of each half of space, cut where no slice is near enough to fall on the wrong side."""
    folder, places, _ = stack
    volume = read_volume(folder)
    stored = volume.stored
    assert isinstance(stored, StraightenedGrid)
    index = np.moveaxis(np.indices(stored.shape), 0, -1)
    labels = (brightness(stored.physical(index)) > brightness(places.mean(axis=(0, 1, 2)))).astype(np.uint8)
    on_slices = stored.on_slices(labels)
    off = brightness(places) - brightness(places.mean(axis=(0, 1, 2)))
    # Half a voxel along each axis.
    tolerance = 0.5 * (3 * 0.5 + 5 * 0.7 + 7 * stored.spacing_mm[0]) + 0.1
    clear = np.abs(off) > tolerance
    assert on_slices.shape == SHAPE
    assert np.array_equal(on_slices[clear], (off > 0)[clear])


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha"])
def test_files_hold_the_slices_where_they_are(
    stack: tuple[Path, np.ndarray, np.ndarray], ending: str, tmp_path: Path
):
    """Tilted slices on an oblique grid; steps that change have no place in a file but the straight grid."""
    folder, places, _ = stack
    volume = read_volume(folder)
    stored = volume.stored
    assert isinstance(stored, StraightenedGrid)
    labels = np.random.default_rng(0).integers(0, 3, volume.grid.shape).astype(np.uint8)
    file = tmp_path / f"out{ending}"
    write_labels(file, labels, stored)
    if ending.startswith(".nii"):
        image: Any = nibabel.load(file)
        array = np.asarray(image.dataobj).transpose(2, 1, 0)
        affine = np.diag([-1, -1, 1, 1]) @ image.affine
    else:
        itk = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(itk)
        affine = np.eye(4)
        affine[:3, :3] = np.asarray(itk.GetDirection()).reshape(3, 3) * itk.GetSpacing()
        affine[:3, 3] = itk.GetOrigin()
    straight = orientation(stored).to_stored(labels)
    k, j, i = np.indices(array.shape)
    physical = np.stack([i, j, k], axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    if find_series(folder).stack.regular:
        assert np.array_equal(array, stored.on_slices(straight))
        assert np.allclose(physical, places, atol=1e-3)
    else:
        assert np.array_equal(array, straight)
        assert np.allclose(physical, stored.physical(np.stack([k, j, i], axis=-1)), atol=1e-3)


def test_the_change_is_told(stack: tuple[Path, np.ndarray, np.ndarray]):
    folder, _, _ = stack
    series = find_series(folder)
    says = " ".join(series.notes)
    assert ("tilted by 18.5 degrees" in says) == series.stack.tilted
    assert ("steps between slices" in says) == (not series.stack.regular)
    assert ("label maps lie, but for DICOM seg" in says) == (not series.stack.regular)


def test_frames_of_one_file_may_be_tilted(tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16)
    write_slices(tmp_path / "in", values, on_line(REGULAR), orientation=TILTED)
    file = write_frames(tmp_path / "mf.dcm", values, on_line(REGULAR), orientation=TILTED)
    single, frames = read_volume(tmp_path / "in"), read_volume(file)
    assert np.array_equal(single.array, frames.array)
    assert single.stored == frames.stored


@pytest.mark.parametrize(
    ("steps", "thickness"),
    [
        ([3.0] * 5 + [6.0] + [3.0] * 5, None),
        ([3.0] * 5 + [6.0] + [3.0] * 5, lambda number: 3),
        ([4.0] * 5 + [7.0] * 6, lambda number: 4),  # gaps that nothing explains
        ([4.0] * 2 + [8.0] + [4.0] * 2 + [4.0] + [7.0] * 5, lambda number: 4 if number <= 6 else 7),
        ([4.0] * 5 + [14.0] + [7.0] * 5, lambda number: 4 if number <= 6 else 7),  # lost at the change
        ([4.0] * 5 + [7.0] * 6, lambda number: 4 if number <= 6 else None),
        ([4.0] * 5 + [7.0] * 6, lambda number: number),  # each its own
    ],
)
@pytest.mark.parametrize("row_column", [AXIAL, TILTED])
def test_missing_slices_are_refused(
    steps: list[float], thickness: Any, row_column: tuple[float, ...], tmp_path: Path
):
    def change(header: Any) -> None:
        if thickness is not None:
            header.SliceThickness = thickness(header.InstanceNumber)

    values = np.zeros(SHAPE, np.int16)
    write_slices(tmp_path, values, on_line(np.asarray(steps)), orientation=row_column, change=change)
    with pytest.raises(ImageError, match=r"mm apart in .*, found a step of .* after IM\d+; add the missing"):
        read_volume(tmp_path)


def test_slices_beside_one_line_are_refused(tmp_path: Path):
    positions = on_line(REGULAR)
    positions[4, 0] += 3
    write_slices(tmp_path, np.zeros(SHAPE, np.int16), positions, orientation=TILTED)
    with pytest.raises(ImageError, match=r"on one line in .*, found IM\d+ .* mm beside it; give each"):
        read_volume(tmp_path)


def test_no_gantry_tilts_so_far(tmp_path: Path):
    positions = on_line(REGULAR)
    positions[:, 1] += 5 * np.arange(SHAPE[0])
    write_slices(tmp_path, np.zeros(SHAPE, np.int16), positions)
    with pytest.raises(ImageError, match=r"tilted by up to 45 degrees .*, found 59; export"):
        read_volume(tmp_path)


def test_slices_that_rounding_moves_stay_as_they_are(tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16)
    positions = on_line(REGULAR)
    positions[3:, 0] += 0.05
    write_slices(tmp_path, values, positions, kind="MR")
    volume: Volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], values)
    assert not isinstance(volume.stored, StraightenedGrid)
    assert volume.notes == ()


def test_slices_that_no_scanner_makes_are_refused_before_they_are_straightened(tmp_path: Path):
    """Tilted by 40 degrees and 200 m apart, 14 slices of 12 rows would need 1.9 million rows each."""
    positions = [(0.0, 1.8e5 * n, 2e5 * n) for n in range(14)]
    write_slices(tmp_path, np.zeros((14, 12, 16), np.uint16), positions)
    with pytest.raises(ImageError, match=r"expected voxels of 0.05 to 20 mm, found .*; mend the header"):
        read_volume(tmp_path)
