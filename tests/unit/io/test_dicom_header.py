"""What a header says of a slice counts, whatever kind it is of; what it does not say is not made up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_makers import SOP_CLASSES, Change, write_frames, write_slices
from pydicom.dataset import Dataset

from autospine.core.errors import ImageError
from autospine.io.dicom_header import read_header
from autospine.io.images import read_volume

OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])
POSITIONS = np.asarray((-10, -20, 30)) + 2.5 * np.arange(5)[:, None] * NORMAL


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4000, (5, 8, 9)).astype(np.uint16)


def check_place(volume: Any, pixels: np.ndarray) -> None:
    """Each voxel of the volume is where the header puts its pixel."""
    grid = volume.grid
    for n, j, i in ((0, 0, 0), (4, 7, 8), (2, 3, 5)):
        place = POSITIONS[n] + 0.5 * i * np.asarray(OBLIQUE[:3]) + 0.7 * j * np.asarray(OBLIQUE[3:])
        voxel = tuple(np.rint(grid.index(place)).astype(int))
        assert np.allclose(grid.physical(np.asarray(voxel)), place, atol=1e-6)
        assert volume.array[0][voxel] == pixels[n, j, i]


@pytest.mark.parametrize("kind", SOP_CLASSES)
def test_single_slices_of_any_kind_lie_where_they_say(kind: str, pixels: np.ndarray, tmp_path: Path):
    """GDCM knows the geometry of some kinds only, and gives the others 1 mm voxels at 0."""
    write_slices(tmp_path, pixels, POSITIONS, kind=kind, orientation=OBLIQUE)
    check_place(read_volume(tmp_path), pixels)


@pytest.mark.parametrize("kind", SOP_CLASSES)
def test_frames_of_any_kind_lie_where_they_say(kind: str, pixels: np.ndarray, tmp_path: Path):
    order = [3, 0, 4, 1, 2]
    file = write_frames(tmp_path / "mf.dcm", pixels[order], POSITIONS[order], kind=kind, orientation=OBLIQUE)
    check_place(read_volume(file), pixels)
    check_place(read_volume(tmp_path), pixels)


@pytest.mark.parametrize("kind", ["enhanced CT", "legacy converted MR", "X-ray 3D angiography"])
def test_single_frames_with_functional_groups_alone(kind: str, pixels: np.ndarray, tmp_path: Path):
    for index in range(5):
        file, place = tmp_path / f"{index}.dcm", POSITIONS[index : index + 1]
        write_frames(file, pixels[index : index + 1], place, kind=kind, orientation=OBLIQUE)
    check_place(read_volume(tmp_path), pixels)


def test_image_type_and_photometric_interpretation_do_not_move_pixels(pixels: np.ndarray, tmp_path: Path):
    def change(header: Any) -> None:
        header.PhotometricInterpretation = "MONOCHROME1"
        header.ImageType = ["DERIVED", "SECONDARY", "REFORMATTED"]

    write_slices(tmp_path, pixels, POSITIONS, orientation=OBLIQUE, change=change)
    check_place(read_volume(tmp_path), pixels)


def deleted(keyword: str) -> Change:
    return lambda header: delattr(header, keyword)


def entry(keyword: str, value: object) -> Change:
    return lambda header: setattr(header, keyword, value)


def with_raw(keyword: str, value: bytes) -> Change:
    """Bytes that pydicom would not write."""

    def change(header: Any) -> None:
        from pydicom.dataelem import RawDataElement
        from pydicom.tag import Tag

        tag = Tag(keyword)
        header[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)

    return change


FAULTS: dict[str, tuple[Change, str]] = {
    "no position": (deleted("ImagePositionPatient"), r"without Image Position \(Patient\)"),
    "empty position": (entry("ImagePositionPatient", None), r"without Image Position \(Patient\)"),
    "two coordinates": (entry("ImagePositionPatient", [1, 2]), r"without Image Position \(Patient\)"),
    "words for a position": (with_raw("ImagePositionPatient", b"a\\b\\c "), r"Position \(Patient\) 'a"),
    "infinite position": (with_raw("ImagePositionPatient", b"0\\0\\inf "), r"Position \(Patient\) '0"),
    "no orientation": (deleted("ImageOrientationPatient"), r"without Image Orientation \(Patient\)"),
    "zero orientation": (entry("ImageOrientationPatient", [0] * 6), r"with Image Orientation"),
    "parallel axes": (entry("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), r"with Image Orientation"),
    "long axes": (entry("ImageOrientationPatient", [2, 0, 0, 0, 2, 0]), r"with Image Orientation"),
    "no pixel spacing": (deleted("PixelSpacing"), "without Pixel Spacing"),
    "one pixel spacing": (entry("PixelSpacing", 0.5), "without Pixel Spacing"),
    "zero pixel spacing": (entry("PixelSpacing", [0, 0]), "Pixel Spacing of 0 x 0 mm"),
    "negative pixel spacing": (entry("PixelSpacing", [-0.5, 0.5]), "Pixel Spacing of -0.5 x 0.5 mm"),
    "nan pixel spacing": (with_raw("PixelSpacing", b"nan\\nan "), "Pixel Spacing 'nan"),
    "zero slope": (entry("RescaleSlope", 0), "Rescale Slope of 0"),
    "nan slope": (with_raw("RescaleSlope", b"nan "), "Rescale Slope 'nan'"),
    "colour": (entry("SamplesPerPixel", 3), "in colour"),
    "palette": (entry("PhotometricInterpretation", "PALETTE COLOR"), "in palette colours"),
    "mosaic": (entry("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "a mosaic"),
    "a table of values": (entry("ModalityLUTSequence", [Dataset()]), "Modality LUT Sequence"),
    "more bits than fit": (entry("BitsStored", 24), "with 24 bits stored of 16"),
    "no bits": (entry("BitsAllocated", 0), "with 16 bits stored of 0"),
    "bits elsewhere": (
        lambda header: (setattr(header, "BitsStored", 12), setattr(header, "HighBit", 14)),
        "12 bits stored of 16, of which bit 14 is the highest",
    ),
    "no frames": (entry("NumberOfFrames", 0), "Number of Frames of '0'"),
    "no rows": (deleted("Rows"), "without Rows and Columns"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_all_headers_lack_is_named(fault: str, pixels: np.ndarray, tmp_path: Path):
    change, says = FAULTS[fault]
    files = write_slices(tmp_path, pixels, POSITIONS, orientation=OBLIQUE, change=change)
    with pytest.raises(
        ImageError, match=rf"DICOM slices .* {min(files).name} and \d more \([^()]*(?:\(.*)?{says}.*; export"
    ):
        read_volume(tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_slice_that_lacks_what_the_others_have_is_named(fault: str, pixels: np.ndarray, tmp_path: Path):
    change, says = FAULTS[fault]

    def change_one(header: Any) -> None:
        if header.InstanceNumber == 5:
            change(header)

    files = write_slices(tmp_path, pixels, POSITIONS, orientation=OBLIQUE, change=change_one)
    with pytest.raises(
        ImageError, match=rf"sound DICOM slices .* found {files[4].name} \(.*{says}.*; export"
    ):
        read_volume(tmp_path)


def changed_group(keyword: str, value: object, sequence: str) -> Change:
    def change(header: Any) -> None:
        header.get(sequence)[0].PixelMeasuresSequence = [Dataset()]
        setattr(header.get(sequence)[0].PixelMeasuresSequence[0], keyword, value)

    return change


FRAME_FAULTS: dict[str, tuple[Change, str]] = {
    "no groups of frames": (
        deleted("PerFrameFunctionalGroupsSequence"),
        r"without Image Position \(Patient\) of each frame",
    ),
    "a position for all": (
        lambda header: (
            delattr(header, "PerFrameFunctionalGroupsSequence"),
            setattr(header, "ImagePositionPatient", [0, 0, 0]),
        ),
        r"without Image Position \(Patient\) of each frame",
    ),
    "groups for fewer": (
        lambda header: header.PerFrameFunctionalGroupsSequence.pop(),
        "with 5 frames and functional groups of 4",
    ),
    "no measures": (
        lambda header: delattr(header.SharedFunctionalGroupsSequence[0], "PixelMeasuresSequence"),
        "without Pixel Spacing",
    ),
    "two sizes of a pixel": (entry("PixelSpacing", [0.7, 0.6]), "two values of Pixel Spacing"),
    "two orientations": (
        entry("ImageOrientationPatient", [1, 0, 0, 0, 1, 0]),
        r"two values of Image Orientation \(Patient\)",
    ),
    "two sizes in groups": (
        changed_group("PixelSpacing", [1, 1], "PerFrameFunctionalGroupsSequence"),
        "two values of Pixel Spacing",
    ),
}


@pytest.mark.parametrize("fault", FRAME_FAULTS)
def test_what_frames_lack_or_contradict_is_named(fault: str, pixels: np.ndarray, tmp_path: Path):
    change, says = FRAME_FAULTS[fault]
    file = write_frames(tmp_path / "mf.dcm", pixels, POSITIONS, orientation=OBLIQUE, change=change)
    for path in (file, tmp_path):
        with pytest.raises(ImageError, match=rf"expected DICOM slices .*mf\.dcm \(.*{says}.*\); export"):
            read_volume(path)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.4", "a segmentation"),
        ("1.2.840.10008.5.1.4.1.1.66.7", "a segmentation"),
        ("1.2.840.10008.5.1.4.1.1.30", "a parametric map"),
        ("1.2.840.10008.5.1.4.1.1.481.2", "a radiotherapy dose"),
        ("1.2.840.10008.5.1.4.1.1.77.1.6", "a microscopy image"),
    ],
)
def test_what_is_no_image_of_slices_is_no_slice(
    kind: str, says: str, pixels: np.ndarray, tmp_path: Path, write_series: Callable[..., list[Path]]
):
    def change(header: Any) -> None:
        header.SOPClassUID = kind
        header.file_meta.MediaStorageSOPClassUID = kind

    other = write_frames(tmp_path / "other.dcm", pixels, POSITIONS, change=change)
    assert read_header(other).other == says
    write_slices(tmp_path, pixels, POSITIONS, orientation=OBLIQUE, kind="MR")
    volume = read_volume(tmp_path)
    check_place(volume, pixels)
    assert volume.notes == (f"1 of 6 DICOM files left out: other.dcm ({says})",)


@pytest.mark.parametrize(
    ("keyword", "value", "bytes_made"),
    [("Columns", 8, 128), ("Rows", 7, 126), ("Rows", 2, 36), ("BitsAllocated", 8, 72)],
)
def test_more_pixels_than_rows_and_columns_make_are_refused(
    keyword: str, value: int, bytes_made: int, pixels: np.ndarray, tmp_path: Path
):
    """They would be read sheared, or cut."""

    def change(header: Any) -> None:
        setattr(header, keyword, value)
        header.BitsStored = header.BitsAllocated
        header.HighBit = header.BitsStored - 1

    write_slices(tmp_path, pixels, POSITIONS, orientation=OBLIQUE, change=change)
    with pytest.raises(
        ImageError, match=rf"4 more \(with 144 bytes of pixels instead of the {bytes_made} .*; export"
    ):
        read_volume(tmp_path)


def test_more_frames_than_their_number_are_refused(pixels: np.ndarray, tmp_path: Path):
    def change(header: Any) -> None:
        header.NumberOfFrames = 4
        del header.PerFrameFunctionalGroupsSequence[4]

    file = write_frames(tmp_path / "mf.dcm", pixels, POSITIONS, orientation=OBLIQUE, change=change)
    with pytest.raises(ImageError, match=r"with 720 bytes of pixels instead of the 576 .*; export"):
        read_volume(file)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_padding_by_zeros_is_sound(syntax: str, pixels: np.ndarray, tmp_path: Path):
    """Old writers pad to more than an even length; what is shorter than a row or column is no pixel."""

    def padded(header: Any) -> None:
        header.PixelData += bytes(10)

    def private(header: Any) -> None:
        header.PixelData += b"private---"

    write_slices(tmp_path / "a", pixels, POSITIONS, orientation=OBLIQUE, change=padded, syntax=syntax)
    check_place(read_volume(tmp_path / "a"), pixels)
    write_slices(tmp_path / "b", pixels, POSITIONS, orientation=OBLIQUE, change=private, syntax=syntax)
    with pytest.raises(ImageError, match=r"with 154 bytes of pixels instead of the 144"):
        read_volume(tmp_path / "b")
