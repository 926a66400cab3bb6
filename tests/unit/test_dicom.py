"""Series of slices: sorted by place, and refused where SimpleITK would guess."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autospine.dicom import is_series, series_modality
from autospine.errors import ImageError
from autospine.images import read_volume

WriteSeries = Callable[..., list[Path]]


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 2000, (6, 8, 9)).astype(np.int16)


@pytest.mark.parametrize("descending", [False, True])
def test_slices_are_stacked_by_position(
    descending: bool, pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    z = [10.0 + 2.5 * index for index in range(6)]
    write_series(tmp_path / "s", pixels, z[::-1] if descending else z)
    volume = read_volume(tmp_path / "s")
    assert np.array_equal(volume.array[0], pixels[::-1] if descending else pixels)
    assert np.allclose(volume.grid.spacing_mm, (2.5, 0.7, 0.5))
    assert np.allclose(volume.grid.origin_mm, (-10, -20, 10))
    assert np.issubdtype(volume.array.dtype, np.integer)


def test_other_files_in_the_folder_do_not_matter(
    pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    write_series(tmp_path, pixels, range(6))
    (tmp_path / "README.txt").write_text("acquired in spring")
    assert read_volume(tmp_path).array.shape == (1, 6, 8, 9)


def test_a_missing_slice_is_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    files = write_series(tmp_path, pixels, range(6))
    files[3].unlink()
    with pytest.raises(
        ImageError, match=rf"slices 1 mm apart in .*a step of 2 mm after {files[2].name}; add"
    ):
        read_volume(tmp_path)


def test_a_double_slice_is_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    files = write_series(tmp_path, pixels, range(6))
    shutil.copy(files[2], tmp_path / "copy.dcm")
    with pytest.raises(ImageError, match=r"one slice per position in .*found 1 double ones \(.*\); remove"):
        read_volume(tmp_path)


def test_rounded_positions_are_accepted(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    write_series(tmp_path, pixels, [0, 0.31, 0.63, 0.94, 1.25, 1.56])
    assert read_volume(tmp_path).grid.spacing_mm[0] == pytest.approx(0.312, abs=2e-3)


def test_two_acquisitions_at_the_same_positions_are_refused(
    pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    write_series(tmp_path, pixels, [0, 0, 1, 1, 2, 2])
    with pytest.raises(ImageError, match=r"found 3 double ones"):
        read_volume(tmp_path)


def test_a_tilted_gantry_is_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    write_series(tmp_path, pixels, range(6), tilt=0.3)
    with pytest.raises(ImageError, match=r"stacked along their normal in .* \(a tilted gantry\); resample"):
        read_volume(tmp_path)


def test_several_series_are_listed(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    write_series(tmp_path, pixels, range(6), uid="1.2.3", description="bone")
    write_series(tmp_path, pixels[:4], range(4), uid="1.2.4", description="soft tissue")
    with pytest.raises(ImageError, match=r"bone \(6 slices\), soft tissue \(4 slices\); give each its own"):
        read_volume(tmp_path)


def test_folders_without_a_stack_are_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    with pytest.raises(ImageError, match=r"expected DICOM slices .* found none"):
        read_volume(tmp_path)
    write_series(tmp_path, pixels[:1], [0.0])
    with pytest.raises(ImageError, match=r"at least two slices .* found 1"):
        read_volume(tmp_path)


def test_truncated_slices_are_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    files = write_series(tmp_path, pixels, range(6))
    files[4].write_bytes(files[4].read_bytes()[:-40])
    with pytest.raises(ImageError):
        read_volume(tmp_path)


def test_series_are_recognised_by_content(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    assert not is_series(tmp_path)
    assert series_modality(tmp_path) is None
    write_series(tmp_path, pixels, range(6), modality="MR")
    assert is_series(tmp_path)
    assert series_modality(tmp_path) == "MR"


@pytest.mark.real_data
def test_the_real_series(real_data: Path, tmp_path: Path):
    folder = real_data / "real" / "dicom_ct"
    volume = read_volume(folder)
    assert volume.array.shape == (1, 20, 512, 512)
    assert np.allclose(volume.grid.spacing_mm, (2, 0.9765625, 0.9765625))
    assert volume.array.min() == -1024
    assert series_modality(folder) == "CT"
    shutil.copytree(folder, tmp_path / "gap")
    sorted((tmp_path / "gap").iterdir())[7].unlink()
    with pytest.raises(ImageError, match=r"slices 2 mm apart .* a step of 4 mm"):
        read_volume(tmp_path / "gap")
