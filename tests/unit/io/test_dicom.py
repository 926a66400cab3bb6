"""Series of slices: sorted by place, and refused where SimpleITK would guess."""

import gzip
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_makers import write_slices

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
    assert volume.notes[0] == "3 of 9 DICOM files left out: copies of others"


def test_a_double_slice_is_refused(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    """Two images at one position: which of them is meant is not for us to say."""
    write_series(tmp_path, pixels, range(6))
    other = write_series(tmp_path / "other", pixels[:1] + 1, [2.0])
    shutil.copy(other[0], tmp_path / "other.dcm")
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(
        ImageError, match=r"one slice per position in .*found 1 at the position of another \(.*\); remove"
    ):
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
    with pytest.raises(ImageError, match=r"found 1 at the position of another \(.*\); remove the copies"):
        read_volume(tmp_path)


def test_rounded_positions_are_accepted(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    write_series(tmp_path, pixels, [0, 0.31, 0.63, 0.94, 1.25, 1.56])
    assert read_volume(tmp_path).grid.spacing_mm[0] == pytest.approx(0.312, abs=2e-3)


def test_two_acquisitions_at_the_same_positions_are_refused(
    pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    write_series(tmp_path, pixels, [0, 0, 1, 1, 2, 2])
    with pytest.raises(ImageError, match=r"found 3 at the position of another"):
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


def test_of_many_series_the_first_are_listed(pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path):
    for number in range(12):
        write_series(tmp_path / str(number), pixels[:1], range(1), uid=f"1.2.{number}", description="bone")
        (file,) = (tmp_path / str(number)).iterdir()
        file.rename(tmp_path / f"{number}.dcm")
        file.parent.rmdir()
    with pytest.raises(ImageError, match=r"bone \(1 slice\) and 2 more; give each its own"):
        read_volume(tmp_path)


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


def moved_below(file: Path) -> None:
    (file.parent / "more").mkdir()
    file.rename(file.parent / "more" / file.name)


def moved_far_below(file: Path) -> None:
    (file.parent / "more" / "a" / "b").mkdir(parents=True)
    file.rename(file.parent / "more" / "a" / "b" / file.name)


def packed(file: Path) -> None:
    Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()


def half_loaded(file: Path) -> None:
    Path(f"{file}.crdownload").write_bytes(file.read_bytes()[:90])
    file.unlink()


def linked_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to("/mnt/pacs/slice")


def turned_into_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


HOLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda file: file.write_bytes(b""), "an empty file"),
    "zeros": (
        lambda file: file.write_bytes(bytes(file.stat().st_size)),
        "(named as DICOM, and none|no DICOM) by its content",
    ),
    "a page of a proxy": (
        lambda file: file.write_text("<html>error</html>"),
        "(named as DICOM, and none|no DICOM) by its content",
    ),
    "packed": (packed, "packed; unpack it"),
    "half loaded": (half_loaded, "an unfinished download"),
    "a link to nothing": (linked_to_nothing, "a link to /mnt/pacs/slice, where there is none"),
    "a pipe": (turned_into_pipe, "a named pipe instead of a file"),
}


@pytest.mark.parametrize("names", ["s{:03d}.dcm", "IM{:04d}", "1.2.840.{}", "X.CT.{:03d}.IMA"])
@pytest.mark.parametrize("hole", HOLES)
def test_what_may_have_been_the_last_slice_is_a_fault_that_names_it(
    hole: str, names: str, pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    """No gap in the positions tells of it."""
    files = write_series(tmp_path / "raw", pixels, range(6))
    (tmp_path / "s").mkdir()
    for number, file in enumerate(files):
        file.rename(tmp_path / "s" / names.format(number))
    last = tmp_path / "s" / names.format(5)
    make, says = HOLES[hole]
    make(last)
    with pytest.raises(
        ImageError, match=rf"sound DICOM slices in .*/s, found {re.escape(last.name)}.* \({says}\); export"
    ):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize("move", [moved_below, moved_far_below])
def test_slices_in_a_folder_below_are_refused(
    move: Callable[[Path], None], pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    move(write_series(tmp_path / "s", pixels, range(6))[5])
    with pytest.raises(ImageError, match=r"found both: .* and 2 more beside more; give the slices"):
        read_volume(tmp_path / "s")


def test_what_lies_beside_slices_otherwise_is_passed_over_or_named(
    pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    files = write_series(tmp_path, pixels, range(6))
    for name in ("VERSION", "README", "LOCKFILE", "notes.txt", "a.json", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).touch()
    for name in (".DS_Store", f"._{files[0].name}", ".s9.dcm.Xy12aB", "viewer.exe"):
        (tmp_path / name).touch()
    for ending in (".part", ".gz"):
        shutil.copy(files[0], f"{files[0]}{ending}")
        Path(f"{files[0]}{ending}").write_bytes(b"half of it")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "L1.nii.gz").touch()
    assert read_volume(tmp_path).notes[:2] == (
        "files beside the slices that are no images AutoSpine reads are left out: "
        f"{files[0].name}.gz, {files[0].name}.part, viewer.exe",
        "images in folders beside the slices are not looked at: masks",
    )


def test_another_image_beside_slices_is_refused(
    pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    files = write_series(tmp_path, pixels, range(6))
    (tmp_path / "ct.nii.gz").touch()
    with pytest.raises(ImageError, match=rf"found both: {files[0].name}.* beside ct\.nii\.gz; give"):
        read_volume(tmp_path)


def test_a_folder_of_other_images_says_that_a_folder_means_slices(tmp_path: Path):
    (tmp_path / "ct.nii.gz").touch()
    with pytest.raises(ImageError, match=r"as a folder means here, found ct\.nii\.gz; name an image file"):
        read_volume(tmp_path)


def test_a_folder_of_nothing_but_packed_slices_is_a_series_with_faults(
    pixels: np.ndarray, write_series: WriteSeries, tmp_path: Path
):
    for number, file in enumerate(write_series(tmp_path / "raw", pixels, range(6))):
        file.rename(tmp_path / f"{number}.dcm")
        packed(tmp_path / f"{number}.dcm")
    assert is_series(tmp_path)
    with pytest.raises(ImageError, match=r"found 0\.dcm\.gz and 5 more \(packed; unpack it\); export"):
        read_volume(tmp_path)


def write_stated(folder: Path, stated: str) -> None:
    positions = [(0, 0, number) for number in range(3)]
    pixels = np.zeros((3, 8, 9), np.int16)
    write_slices(folder, pixels, positions, change=lambda header: setattr(header, "Modality", stated))


@pytest.mark.parametrize("stated", ["PT", "US", "NM", "CR", "MG"])
def test_images_that_are_neither_ct_nor_mr_are_refused(stated: str, tmp_path: Path):
    write_stated(tmp_path, stated)
    with pytest.raises(ImageError, match=rf"expected CT or MR in .*Modality {stated} \(.*; leave them out"):
        dicom_modality(tmp_path, ["CT"])
    channel = "pet" if stated == "PT" else stated.lower()
    assert dicom_modality(tmp_path, [channel]) is None


@pytest.mark.parametrize("stated", ["", "OT", "XA", "DX", "MRI"])
def test_a_header_that_leaves_the_modality_open_states_none(stated: str, tmp_path: Path):
    write_stated(tmp_path, stated)
    assert dicom_modality(tmp_path) is None


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
    with pytest.raises(
        ImageError, match=r"one slice per position .* found 1 at the position of another \(.*\); remove"
    ):
        read_volume(shuffled)

    (shuffled / "copy").unlink()
    (shuffled / f"IM{7 * 7 % len(files):04d}").unlink()
    with pytest.raises(ImageError, match=r"slices 2 mm apart .* a step of 4 mm"):
        read_volume(shuffled)


POSITIONS = [(0, 0, 2.0 * n) for n in range(5)]


@pytest.mark.parametrize(
    ("keyword", "value", "what"),
    [
        ("Modality", "MR", r"modality in .*IM003 \(CT\) and .* \(MR\) of another"),
        ("PatientID", "somebody", r"patient in .*IM003 and IM\d+ of another"),
        (
            "FrameOfReferenceUID",
            "1.2.99",
            r"frame of reference in .*\(1\.2\.9\) and .*\(1\.2\.99\) of another",
        ),
    ],
)
def test_slices_of_two_sources_under_one_series_are_refused(
    keyword: str, value: str, what: str, tmp_path: Path
):
    def change(header: Any) -> None:
        if header.InstanceNumber > 3:
            setattr(header, keyword, value)

    write_slices(tmp_path, np.zeros((5, 4, 4), np.uint16), POSITIONS, rescale=(1, -1024), change=change)
    with pytest.raises(ImageError, match=rf"slices of one {what}; give each its own folder") as caught:
        read_volume(tmp_path)
    assert "somebody" not in str(caught.value)


@pytest.mark.parametrize("keyword", ["PatientID", "FrameOfReferenceUID"])
def test_an_empty_entry_contradicts_nothing(keyword: str, tmp_path: Path):
    def change(header: Any) -> None:
        if header.InstanceNumber > 3:
            setattr(header, keyword, "")

    write_slices(tmp_path, np.zeros((5, 4, 4), np.uint16), POSITIONS, rescale=(1, -1024), change=change)
    assert read_volume(tmp_path).notes == ()


def test_ct_without_slope_and_intercept_is_noted(tmp_path: Path):
    def change(header: Any) -> None:
        if header.InstanceNumber == 2:
            del header.RescaleIntercept

    write_slices(tmp_path / "one", np.zeros((5, 4, 4), np.uint16), POSITIONS, rescale=(1, 0), change=change)
    write_slices(tmp_path / "MR", np.zeros((5, 4, 4), np.uint16), POSITIONS, kind="MR")
    (note,) = read_volume(tmp_path / "one").notes
    assert note.startswith("1 of 5 CT slices state no rescale slope and intercept (IM010): their values may")
    assert read_volume(tmp_path / "MR").notes == ()


@pytest.mark.parametrize(("kind", "noted"), [("MGML", True), ("US", False), ("HU", False), ("", False)])
def test_ct_whose_values_are_not_called_hu_is_noted(kind: str, tmp_path: Path, *, noted: bool):
    def change(header: Any) -> None:
        header.RescaleType = kind

    write_slices(tmp_path, np.zeros((5, 4, 4), np.uint16), POSITIONS, rescale=(1, -1024), change=change)
    notes = read_volume(tmp_path).notes
    assert notes == (
        (f"its Rescale Type is {kind} instead of HU: its values may not be HU",) if noted else ()
    )
