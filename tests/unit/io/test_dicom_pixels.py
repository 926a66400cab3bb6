"""Values of voxels: stored numbers, rescaled as the header of each slice says, in any encoding."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_makers import write_frames, write_slices
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from autospine.core.errors import ImageError
from autospine.io.images import read_volume

POSITIONS = [(0, 0, 2.0 * n) for n in range(5)]
SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4000, (5, 8, 9)).astype(np.uint16)


@pytest.mark.parametrize("kind", ["CT", "MR", "PET", "secondary capture", "enhanced CT", "X-ray angiography"])
@pytest.mark.parametrize(
    "rescale", [(1, 0), (1, -1024), (2, -1000), (1, 90000), (0.5, -1024), (-1, 100), (1.2876, 0)]
)
def test_values_are_those_of_the_header_for_any_kind(
    kind: str, rescale: tuple[float, float], pixels: np.ndarray, tmp_path: Path
):
    """GDCM rescales some kinds and not others."""
    write_slices(tmp_path, pixels, POSITIONS, kind=kind, rescale=rescale)
    array = read_volume(tmp_path).array[0]
    assert np.array_equal(array, (pixels * float(rescale[0]) + rescale[1]).astype(array.dtype))
    whole = all(float(number).is_integer() for number in rescale)
    assert array.dtype.kind in ("iu" if whole else "f")


@pytest.mark.parametrize("second", [(1, -1024), (0.5, -1024), (1, 90000), (3.5, 0)])
@pytest.mark.parametrize("frames", [False, True])
def test_slices_may_be_rescaled_differently(
    second: tuple[float, float], pixels: np.ndarray, tmp_path: Path, *, frames: bool
):
    """SimpleITK alone would bring all to the type that the first one's values need, or use its numbers."""
    rescales = [(1.0, 0.0)] * 3 + [second] * 2
    if frames:
        write_frames(tmp_path / "mf.dcm", pixels, POSITIONS, rescales=rescales)
    else:

        def change(header: Any) -> None:
            header.RescaleSlope, header.RescaleIntercept = rescales[header.InstanceNumber - 1]

        write_slices(tmp_path, pixels, POSITIONS, change=change)
    factors = np.asarray(rescales)[:, :, None, None]
    assert np.array_equal(read_volume(tmp_path).array[0], pixels * factors[:, 0] + factors[:, 1])


@pytest.mark.parametrize("frames", [False, True])
def test_monochrome1_is_a_matter_of_display(pixels: np.ndarray, tmp_path: Path, *, frames: bool):
    """SimpleITK alone inverts the values, which are HU all the same."""

    def change(header: Any) -> None:
        header.PhotometricInterpretation = "MONOCHROME1"

    if frames:
        write_frames(tmp_path / "mf.dcm", pixels, POSITIONS, rescales=[(1, -1024)] * 5, change=change)
    else:
        write_slices(tmp_path, pixels, POSITIONS, rescale=(1, -1024), change=change)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], pixels.astype(np.int32) - 1024)
    assert volume.notes == ()


def test_monochrome1_of_other_modalities_is_told(pixels: np.ndarray, tmp_path: Path):
    def change(header: Any) -> None:
        header.PhotometricInterpretation = "MONOCHROME1"

    write_slices(tmp_path, pixels, POSITIONS, kind="MR", change=change)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], pixels)
    assert any("MONOCHROME1" in note for note in volume.notes)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_types_and_byte_orders(dtype: type, syntax: str, tmp_path: Path):
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(limits.min, limits.max, (5, 7, 9), endpoint=True).astype(dtype)
    write_slices(tmp_path, pixels, POSITIONS, syntax=syntax)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array[0], pixels)
    assert volume.array.dtype == dtype


@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_those_stored_are_no_part_of_a_value(tmp_path: Path, *, signed: bool):
    """Older scanners keep overlays there."""
    values = np.arange(5 * 7 * 9, dtype=np.int32).reshape(5, 7, 9) - (150 if signed else 0)
    stored = (values & 0x0FFF) | 0x5000

    def change(header: Any) -> None:
        header.BitsStored, header.HighBit, header.PixelRepresentation = 12, 11, int(signed)

    write_slices(tmp_path, stored.astype(np.uint16), POSITIONS, change=change)
    assert np.array_equal(read_volume(tmp_path).array[0], values)


@pytest.mark.parametrize("cut", [1, 40, 150])
def test_truncated_voxels_name_their_file(cut: int, pixels: np.ndarray, tmp_path: Path):
    files = write_slices(tmp_path, pixels, POSITIONS)
    files[2].write_bytes(files[2].read_bytes()[:-cut])
    with pytest.raises(ImageError, match=rf"{files[2].name} damaged: .*; export"):
        read_volume(tmp_path)


def test_truncated_frames_name_their_file(pixels: np.ndarray, tmp_path: Path):
    file = write_frames(tmp_path / "mf.dcm", pixels, POSITIONS)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ImageError, match=r"mf\.dcm damaged: .*; export"):
        read_volume(tmp_path)


@pytest.mark.parametrize("codec", [RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("cut", [0, 30])
def test_compressed_slices(codec: str, cut: int, pixels: np.ndarray, tmp_path: Path, *, frames: bool):
    """GDCM decompresses; what it says of geometry and values is not taken over."""

    def change(header: Any) -> None:
        header.PhotometricInterpretation = "MONOCHROME1"
        header.compress(codec)

    if frames:
        last = write_frames(tmp_path / "mf.dcm", pixels, POSITIONS, rescales=[(1, -1024)] * 5, change=change)
    else:
        last = write_slices(tmp_path, pixels, POSITIONS, rescale=(1, -1024), change=change)[-1]
    if cut:
        last.write_bytes(last.read_bytes()[:-cut])
        with pytest.raises(ImageError, match=rf"{last.name} damaged: .*; export"):
            read_volume(tmp_path)
    else:
        volume = read_volume(tmp_path)
        assert np.array_equal(volume.array[0], pixels.astype(np.int32) - 1024)
        assert np.allclose(volume.grid.spacing_mm, (2, 0.7, 0.5))


@pytest.mark.parametrize("frames", [False, True])
def test_a_compression_that_cannot_be_read_is_named(pixels: np.ndarray, tmp_path: Path, *, frames: bool):
    def change(header: Any) -> None:
        header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"  # High-throughput JPEG 2000
        header.PixelData = pydicom_encapsulated([bytes(100)] * (5 if frames else 1))

    from pydicom.encaps import encapsulate as pydicom_encapsulated

    if frames:
        write_frames(tmp_path / "mf.dcm", pixels, POSITIONS, change=change)
    else:
        write_slices(tmp_path, pixels, POSITIONS, change=change)
    with pytest.raises(
        ImageError, match=r"(IM003|mf\.dcm) compressed .* JPEG 2000 .*; export it uncompressed"
    ):
        read_volume(tmp_path)


def test_a_size_that_the_file_cannot_hold_takes_no_memory(pixels: np.ndarray, tmp_path: Path):
    def change(header: Any) -> None:
        header.Rows = header.Columns = 65535

    files = write_slices(tmp_path, pixels, POSITIONS, change=change)
    with pytest.raises(ImageError, match=rf"{files[0].name} damaged: .*8589672450 bytes .*; export"):
        read_volume(tmp_path)


def test_floating_point_pixels_are_not_cut_to_integers(pixels: np.ndarray, tmp_path: Path):
    def change(header: Any) -> None:
        header.BitsAllocated = header.BitsStored = 32
        header.HighBit = 31
        header.FloatPixelData = pixels[0].astype(np.float32).tobytes()
        del header.PixelData

    write_slices(tmp_path, pixels, POSITIONS, change=change)
    with pytest.raises(ImageError, match=r"damaged: expected whole numbers .*; export"):
        read_volume(tmp_path)


def test_bytes_that_make_no_sense_are_refused_in_a_sentence(pixels: np.ndarray, tmp_path: Path):
    """Bits and lengths changed at random: the file is read, or named, and nothing else is raised."""
    random = np.random.default_rng(0)
    file = write_frames(tmp_path / "mf.dcm", pixels, POSITIONS, rescales=[(1, -1024)] * 5)
    whole, refused = file.read_bytes(), 0
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(random.integers(1, 6)):
            at = int(random.integers(132, len(whole) - 8 * 9 * 2 * 5))
            kept = random.integers(0, 2) * int(random.integers(1, 9))
            content[at : at + kept] = random.bytes(int(random.integers(0, 9)))
        file.write_bytes(content)
        try:
            read_volume(file)
        except ImageError as error:
            refused += 1
            assert "mf.dcm" in str(error)
    assert refused > 50


def test_a_deflated_file_that_grows_without_bounds_is_refused(pixels: np.ndarray, tmp_path: Path):
    """Deflate makes a thousand bytes of one, and pydicom inflates a file as a whole."""
    files = write_slices(tmp_path, pixels, POSITIONS, syntax=DeflatedExplicitVRLittleEndian)
    whole = files[2].read_bytes()
    begin = 144 + int.from_bytes(whole[140:144], "little")
    inflated = zlib.decompress(whole[begin:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(inflated) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(350))
    files[2].write_bytes(whole[:begin] + packed + packer.flush())
    assert files[2].stat().st_size < 2 << 20
    with pytest.raises(ImageError, match=rf"{files[2].name} \(of more than \d+ MiB once .*\); export them"):
        read_volume(tmp_path)
