"""Streams of JPEG: sound ones of every kind pass, and damage to the codes is noticed."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate, generate_frames

from autospine.core.errors import ImageError
from autospine.io.dicom_header import read_header
from autospine.io.dicom_pixels import read_slices
from autospine.io.jpeg_streams import check_frame

LOSSLESS = "1.2.840.10008.1.2.4.70"
BASELINE = "1.2.840.10008.1.2.4.50"

SIZE = (96, 80)
"""Rows and columns of the images here."""

_ROW, _COLUMN = np.indices(SIZE)
_NOISE = np.random.default_rng(0)

IMAGES = {
    "constant": np.full(SIZE, 7),
    "zero": np.zeros(SIZE, np.int64),
    "ramp": 3 * _COLUMN,
    "body": np.where(np.hypot(_ROW - 48, _COLUMN - 40) < 30, 1000, -1000) + _NOISE.integers(-20, 20, SIZE),
    "body in padding": np.where(np.hypot(_ROW - 48, _COLUMN - 40) < 39, _NOISE.integers(0, 99, SIZE), -2000),
    "noise": _NOISE.integers(-32768, 32768, SIZE),
    "mask": (np.hypot(_ROW - 48, _COLUMN - 40) < 30).astype(np.int64),
}


def written(path: Path, image: np.ndarray, compressor: str = "JPEG") -> Path:
    """Write a slice with GDCM, which places it."""
    made = sitk.GetImageFromArray(image.astype(np.int16)[None])
    made.SetMetaData("0008|0016", "1.2.840.10008.5.1.4.1.1.4")
    made.SetMetaData("0008|0060", "MR")
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.Execute(made)
    return path


def frame_of(path: Path) -> tuple[bytes, str]:
    header = pydicom.dcmread(path)
    return next(generate_frames(header.PixelData, number_of_frames=1)), header.file_meta.TransferSyntaxUID


def zeroed(frame: bytes, at: int, count: int) -> bytes:
    return frame[:at] + bytes(count) + frame[at + count :]


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_sound_streams_pass(name: str, compressor: str, tmp_path: Path):
    frame, syntax = frame_of(written(tmp_path / "a.dcm", IMAGES[name], compressor))
    assert (syntax == LOSSLESS) is (compressor == "JPEG")
    check_frame(frame, syntax, SIZE)
    check_frame(frame + bytes(2), syntax, SIZE)


@pytest.mark.parametrize("name", ["ramp", "body", "body in padding", "mask"])
def test_stretches_of_zeros_in_lossless_jpeg_are_noticed(name: str, tmp_path: Path):
    frame, syntax = frame_of(written(tmp_path / "a.dcm", IMAGES[name]))
    start = frame.index(b"\xff\xda") + 10
    found = []
    for at in range(start, len(frame) - 260, max(1, len(frame) // 20)):
        damaged = zeroed(frame, at, 256)
        if damaged.count(0) == frame.count(0):
            continue
        try:
            check_frame(damaged, syntax, SIZE)
        except ValueError:
            found.append(True)
        else:
            found.append(False)
    assert found
    assert np.mean(found) > 0.9


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_a_stream_whose_end_is_zeroed_or_cut_is_noticed(name: str, compressor: str, tmp_path: Path):
    frame, syntax = frame_of(written(tmp_path / "a.dcm", IMAGES[name], compressor))
    for end in (20, len(frame) // 2):
        with pytest.raises(ValueError, match=r"end early|zeroed|no sense"):
            check_frame(zeroed(frame, len(frame) - end, end), syntax, SIZE)
    with pytest.raises(ValueError, match=r"end early|no sense"):
        check_frame(frame[: len(frame) // 2], syntax, SIZE)


@pytest.mark.parametrize("name", ["constant", "ramp", "body", "noise"])
@pytest.mark.parametrize("quality", [5, 75, 100])
@pytest.mark.parametrize("markers", [{}, {"restart_marker_blocks": 7}, {"restart_marker_rows": 1}])
def test_baseline_jpeg(name: str, quality: int, markers: dict[str, int], tmp_path: Path):
    pillow = pytest.importorskip("PIL.Image")
    image = pillow.fromarray((IMAGES[name] % 256).astype(np.uint8)[:91, :77])
    image.save(tmp_path / "a.jpg", quality=quality, optimize=quality == 5, **markers)
    frame = (tmp_path / "a.jpg").read_bytes()
    check_frame(frame, BASELINE, (91, 77))
    if quality > 5:
        check_frame(frame[:-2], BASELINE, (91, 77))  # without its end marker
    with pytest.raises(ValueError, match="77x91 pixels instead of 91x77"):
        check_frame(frame, BASELINE, (77, 91))
    with pytest.raises(ValueError, match=r"end early|no sense"):
        check_frame(zeroed(frame, len(frame) - 40, 40), BASELINE, (91, 77))


def test_a_damaged_file_is_named_without_the_words_of_libraries(tmp_path: Path):
    path = written(tmp_path / "a.dcm", IMAGES["body"])
    header = pydicom.dcmread(path)
    header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    header.PixelSpacing = [1, 1]
    header.save_as(path)
    assert np.array_equal(read_slices(read_header(path).slices)[0], IMAGES["body"])
    frame, _ = frame_of(path)
    header.PixelData = encapsulate([zeroed(frame, len(frame) // 2, len(frame) // 2)])
    header.save_as(path)
    with pytest.raises(ImageError, match=r"a\.dcm damaged: its JPEG data are broken: they end early.*;"):
        read_slices(read_header(path).slices)
    assert not list(tmp_path.glob(".autospine-*"))


@pytest.mark.real_data
def test_real_files_pass(real_data: Path):
    files = sorted((real_data / "odd" / "dicom_transfer_syntaxes").glob("*.dcm"))
    files += sorted((real_data / "real" / "dicom_ct").iterdir())
    checked = 0
    for path in files:
        header = pydicom.dcmread(path)
        if header.file_meta.TransferSyntaxUID.is_compressed:
            for frame in generate_frames(header.PixelData, number_of_frames=1):
                check_frame(frame, header.file_meta.TransferSyntaxUID, (header.Rows, header.Columns))
                checked += 1
    assert checked > 20
