"""Series of slices: sorted by place, and refused where SimpleITK would guess."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autospine.core.errors import ImageError
from autospine.core.geometry import difference
from autospine.io.dicom import dicom_modality, find_series, is_series
from autospine.io.images import read_volume

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


def test_files_are_listed_in_the_order_of_the_volume(
    pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    files = write_series(tmp_path, pixels, range(5, -1, -1))
    assert find_series(tmp_path).files == tuple(reversed(files))


def test_copies_of_slices_are_left_out_with_a_word(
    pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    files = write_series(tmp_path, pixels, range(6))
    for index in (0, 2, 2):
        shutil.copy(files[index], tmp_path / f"{len(list(tmp_path.iterdir()))}.dcm")
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], pixels)
    assert volume.notes == ("3 of 9 DICOM files left out: copies of others",)


def test_a_double_slice_is_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    """Two images at one position: which of them is meant is not for us to say."""
    write_series(tmp_path, pixels, range(6))
    other = write_series(tmp_path / "other", pixels[:1] + 1, [2.0])
    shutil.copy(other[0], tmp_path / "other.dcm")
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(ImageError, match=r"one slice per position in .*found 1 double ones \(.*\); remove"):
        read_volume(tmp_path)


def test_a_truncated_slice_is_named(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    """Also the first or last one, of which no gap tells."""
    files = write_series(tmp_path, pixels, range(6))
    files[5].write_bytes(files[5].read_bytes()[:-40])
    with pytest.raises(ImageError, match=rf"found .*{files[5].name} damaged: .*export or copy it again"):
        read_volume(tmp_path)


def test_a_slice_whose_header_is_damaged_is_named(
    pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    files = write_series(tmp_path, pixels, range(6))
    files[5].write_bytes(files[5].read_bytes()[:200])
    with pytest.raises(ImageError, match=rf"sound DICOM slices in .*found {files[5].name} \(without Rows"):
        read_volume(tmp_path)


def test_a_copy_with_other_voxels_is_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    files = write_series(tmp_path, pixels, range(6))
    (tmp_path / "copy.dcm").write_bytes(files[2].read_bytes()[:-2] + b"\x11\x11")
    with pytest.raises(ImageError, match=r"found 1 double ones \(.*\); remove the copies"):
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


def test_slices_of_another_size_are_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    write_series(tmp_path, pixels[:3], range(3))
    for file in write_series(tmp_path / "small", pixels[:3, :7], range(3, 6)):
        file.rename(tmp_path / f"small_{file.name}")
    with pytest.raises(
        ImageError, match=r"of one size in .*found 9x8 pixels in 1.* and 9x7 in small_.*; give each stack"
    ):
        read_volume(tmp_path)


def test_pixels_of_another_size_are_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    """SimpleITK would take the first slice's for those of all."""
    files = write_series(tmp_path, pixels, range(6))
    content = files[4].read_bytes()
    assert content.count(b".7\\.5 ") == 1
    files[4].write_bytes(content.replace(b".7\\.5 ", b".7\\.6 "))
    found = rf"found 0\.5 x 0\.7 mm in .* and 0\.6 x 0\.7 mm in {files[4].name}; give"
    with pytest.raises(ImageError, match=rf"pixels of one size in .*{found}"):
        read_volume(tmp_path)


def test_pixels_of_rounded_size_are_accepted(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    files = write_series(tmp_path, pixels, range(6))
    files[4].write_bytes(files[4].read_bytes().replace(b"\x06\0\0\0.7\\.5 ", b"\x08\0\0\0.7\\.4999"))
    assert read_volume(tmp_path).grid.spacing_mm == pytest.approx((1, 0.7, 0.5), abs=1e-3)


def test_several_series_are_listed(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    write_series(tmp_path, pixels, range(6), uid="1.2.3", description="bone")
    write_series(tmp_path, pixels[:4], range(4), uid="1.2.4", description="soft tissue")
    with pytest.raises(ImageError, match=r"bone \(6 slices\), soft tissue \(4 slices\); give each its own"):
        read_volume(tmp_path)


def test_colours_are_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    """As they come of secondary captures."""
    for file, slice_ in zip(write_series(tmp_path, pixels, range(6)), pixels, strict=True):
        image = sitk.ReadImage(str(file))
        colour = sitk.GetImageFromArray(np.stack([slice_.astype(np.uint8)[None]] * 3, -1), isVector=True)
        colour.CopyInformation(image)
        for key in ("0008|0060", "0020|000e", "0020|000d", "0008|0018", "0020|0032", "0020|0037"):
            colour.SetMetaData(key, image.GetMetaData(key))
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(file))
        writer.Execute(colour)
    with pytest.raises(ImageError, match=r"found .*\(in colour \(3 values in each pixel\)\).*; export"):
        read_volume(tmp_path)


def test_descriptions_of_any_encoding_can_be_written(
    pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    """Latin-1, as headers without the words on their encoding have it."""
    for uid in ("1.2.3", "1.2.4"):
        for file in write_series(tmp_path, pixels, range(6), uid=uid, description="Wirbels_ule"):
            file.write_bytes(file.read_bytes().replace(b"Wirbels_ule", b"Wirbels\xe4ule"))
    with pytest.raises(ImageError, match=r"found Wirbels.+ule \(6 slices\)") as caught:
        read_volume(tmp_path)
    assert "Wirbels\N{REPLACEMENT CHARACTER}ule" in str(caught.value)


def test_names_that_are_not_utf8_are_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    """SimpleITK would end the process."""
    for file in write_series(tmp_path / "s", pixels, range(6)):
        file.rename(tmp_path / "s" / f"{file.stem}{os.fsdecode(bytes([0xFC]))}.dcm")
    assert is_series(tmp_path / "s")
    with pytest.raises(ImageError, match=r"a name in UTF-8, found .*\\udcfc\.dcm; rename it"):
        read_volume(tmp_path / "s")


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
    assert dicom_modality(tmp_path) is None
    write_series(tmp_path, pixels, range(6), modality="MR")
    assert is_series(tmp_path)
    assert dicom_modality(tmp_path) == "MR"


@pytest.mark.real_data
def test_the_real_series(real_data: Path, tmp_path: Path):
    folder = real_data / "real" / "dicom_ct"
    volume = read_volume(folder)
    assert volume.array.shape == (1, 20, 512, 512)
    assert np.allclose(volume.grid.spacing_mm, (2, 0.9765625, 0.9765625))
    assert volume.array.min() == -1024
    assert dicom_modality(folder) == "CT"
    converted = tmp_path / "ct.nii.gz"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    sitk.WriteImage(reader.Execute(), str(converted))
    nifti = read_volume(converted)
    assert np.array_equal(nifti.array, volume.array)
    assert difference(nifti.grid, volume.grid) is None


@pytest.mark.real_data
def test_the_real_series_with_other_names_copies_and_gaps(real_data: Path, tmp_path: Path):
    folder = real_data / "real" / "dicom_ct"
    volume = read_volume(folder)
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    files = find_series(folder).files
    for index, file in enumerate(files):
        shutil.copyfile(file, shuffled / f"IM{index * 7 % len(files):04d}")
    again = read_volume(shuffled)
    assert np.array_equal(again.array, volume.array)
    assert difference(again.grid, volume.grid) is None
    assert again.notes == ()

    shutil.copyfile(shuffled / "IM0003", shuffled / "copy")
    again = read_volume(shuffled)
    assert np.array_equal(again.array, volume.array)
    assert again.notes == ("1 of 21 DICOM files left out: copies of others",)

    # Another image at the same place.
    here, there = (sitk.ReadImage(str(file)).GetMetaData("0020|0032").encode() for file in files[3:5])
    assert len(here) == len(there)
    (shuffled / "copy").write_bytes(files[4].read_bytes().replace(there, here))
    with pytest.raises(ImageError, match=r"one slice per position .* found 1 double ones \(.*\); remove"):
        read_volume(shuffled)

    (shuffled / "copy").unlink()
    (shuffled / f"IM{7 * 7 % len(files):04d}").unlink()
    with pytest.raises(ImageError, match=r"slices 2 mm apart .* a step of 4 mm"):
        read_volume(shuffled)
