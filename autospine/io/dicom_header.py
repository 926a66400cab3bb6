"""Headers of DICOM files: the places of their slices, and the meaning of their numbers.

It is read with pydicom and taken as it is written. GDCM, through which SimpleITK reads, knows the geometry of
some kinds of objects only, and fills in positions and sizes for the others.
"""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float64

from autospine.core.errors import first_line
from autospine.core.geometry import triple
from autospine.core.types import Vector3
from autospine.io.formats import has_dicom_mark
from autospine.io.library_chatter import without_warnings
from autospine.storage.file_names import is_utf8

UNIT_TOLERANCE = 1e-3
"""Largest deviation of direction cosines from unit length and from a right angle that rounding explains."""

MOST_BITS = 32
"""Most bits of a pixel."""

NO_SLICES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a radiotherapy dose",
    "1.2.840.10008.5.1.4.1.1.77.1.6": "a microscopy image",
    "1.2.840.10008.1.3.10": "a directory of files",
}
"""SOP classes (DICOM PS3.4, annex B.5) that have pixels or frames and are no images of a patient's slices."""

PLAIN = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
"""Transfer syntaxes without any compression (DICOM PS3.5, annex A)."""

DEFLATED = "1.2.840.10008.1.2.1.99"
"""Transfer syntax of which all but the file meta information is deflated."""

LARGEST_DEFLATED, MOST_TIMES = 1 << 28, 50
"""A deflated file may have this many bytes once it is inflated, and as many times its own: pydicom inflates
it as a whole, and deflate can make a thousand bytes of one, which no image needs."""

_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
"""Tags of pixels: as floating-point numbers of two sizes, and as whole numbers."""

_UNDEFINED = 0xFFFFFFFF
"""Length of an element that does not state it."""

RUN_LENGTH = "1.2.840.10008.1.2.5"

READ_BY_PYDICOM = PLAIN | {DEFLATED, RUN_LENGTH, ""}
"""Transfer syntaxes that pydicom reads by itself: the plain ones, the deflated one, and run-length encoding.

An empty one is a file that states none; pydicom tells its encoding from its elements."""

_KEYWORDS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "Modality", "ImageType"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
    *("PatientID", "FrameOfReferenceUID"),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceHeader:
    """Header of one frame of a file."""

    path: Path
    frame: int
    """Number of the frame in its file, from 0."""

    n_frames: int
    """Frames of the file."""

    series: str
    instance: str
    description: str
    modality: str
    patient: str
    frame_of_reference: str
    """UID of the space that positions are in; empty if it is not stated."""

    position_mm: Vector3
    """Position (x, y, z) of the centre of the first pixel."""

    orientation: tuple[float, ...]
    """Direction cosines along a row and along a column: six numbers."""

    size: tuple[int, int]
    """Columns and rows."""

    pixel_mm: tuple[float, float]
    """Width and height of a pixel."""

    thickness_mm: float | None
    slope: float
    intercept: float
    """Values are stored numbers times the slope, plus the intercept."""

    unit: str | None
    """Unit of the values, `HU` where the header does not say; None if it states no slope or intercept."""

    limits: tuple[int, int]
    """Smallest and largest number that can be stored."""

    least_bytes: int
    """Bytes that the file has at least: those of its voxels; 0 if they are compressed in any way."""

    inverted: bool
    """Whether small values are displayed bright (MONOCHROME1)."""

    syntax: str
    """UID of the transfer syntax; empty if it is not stated."""

    @property
    def name(self) -> str:
        """Name in messages."""
        return self.path.name if self.n_frames == 1 else f"frame {self.frame + 1} of {self.path.name}"

    @property
    def normal(self) -> Float64[np.ndarray, "3"]:
        """Unit vector perpendicular to the slice."""
        product = np.cross(np.asarray(self.orientation[:3]), np.asarray(self.orientation[3:]))
        normal: np.ndarray = product / np.linalg.norm(product)
        return normal

    @property
    def along_mm(self) -> float:
        """Position of the slice along its normal."""
        return float(self.normal @ np.asarray(self.position_mm))


@dataclass(frozen=True, kw_only=True, slots=True)
class DicomFile:
    """The slices of a file, or the reason why it has none."""

    path: Path
    series: str = ""
    slices: tuple[SliceHeader, ...] = ()
    other: str | None = None
    """Kind of the file in words, if it is no image of slices."""

    fault: str | None = None
    """Fault of an image or of the file, in words."""


class _HeaderError(Exception):
    """The header lacks something or contradicts itself; the message says in what."""


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its content."""
    if not path.is_file():
        return False
    try:
        if has_dicom_mark(path):
            return True
    except OSError:  # what it is, nobody can tell
        return False
    # GDCM also recognises old files without the mark, but not damaged ones.
    return is_utf8(path) and sitk.ImageFileReader.GetImageIOFromFileName(str(path)) == "GDCMImageIO"


def read_header(path: Path) -> DicomFile:
    """Read what a DICOM file says of its slices, without the voxels."""
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    pixels: list[tuple[str | None, int]] = []

    def at_pixels(tag: Any, vr: str | None, length: int) -> bool:
        if int(tag) in _PIXELS:
            pixels.append((vr, length))
        return bool(pixels)

    try:
        with without_warnings(), path.open("rb") as file:
            most = LARGEST_DEFLATED + MOST_TIMES * path.stat().st_size
            if _inflated_bytes(file, most) > most:
                return DicomFile(path=path, fault=f"of more than {most >> 20} MiB once it is inflated")
            # Old files have no mark at their beginning, so that pydicom needs `force`.
            tags: list[Any] = [Tag(keyword) for keyword in _KEYWORDS]
            header = read_partial(file, at_pixels, force=True, specific_tags=tags)
            found = _described(path, header)
            fault = _excess(file, header, found, *pixels[0]) if pixels and found.slices else None
    except Exception as error:  # pydicom raises errors of any kind where bytes make no sense
        return DicomFile(path=path, fault=f"damaged ({first_line(error)})")
    return replace(found, slices=(), fault=fault) if fault else found


def _inflated_bytes(file: BinaryIO, most: int) -> int:
    """Count the bytes that a deflated file has once it is inflated; 0 for others.

    Args:
        file: The file, which is at its beginning afterwards, too.
        most: Number of bytes after which counting ends.

    Raises:
        Exception: If its header is damaged, of any kind.
    """
    from pydicom.filereader import read_file_meta_info

    first = file.read(4096)
    file.seek(0)
    if DEFLATED.encode() not in first:
        return 0
    meta = read_file_meta_info(file.name)
    if meta.get("TransferSyntaxUID") != DEFLATED:
        return 0
    file.seek(144 + meta.FileMetaInformationGroupLength)  # preamble, mark, and the length itself
    decoder, count = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while count <= most and (packed := decoder.unconsumed_tail or file.read(1 << 18)):
        count += len(decoder.decompress(packed, 1 << 22))
    file.seek(0)
    return count


def _excess(file: BinaryIO, header: Any, found: DicomFile, vr: str | None, length: int) -> str | None:
    """Say that a file has more pixels than its header describes; None if it has not.

    Old writers pad pixels by more than one byte (DICOM PS3.5, 8.1.1); zeros shorter than any row or column
    are no pixels.

    Args:
        file: The file, at the element of its pixels unless it is deflated.
        header: Its dataset.
        found: Its slices.
        vr: Value representation of the element; None where it is implicit.
        length: Bytes of the element.
    """
    syntax = header.file_meta.get("TransferSyntaxUID")
    if (syntax and syntax not in PLAIN | {DEFLATED}) or length == _UNDEFINED:
        return None
    columns, rows = found.slices[0].size
    bits = int(header.BitsAllocated)
    wanted = -(-len(found.slices) * columns * rows * bits // 8)
    excess = length - wanted
    if excess <= wanted % 2:
        return None
    if syntax != DEFLATED and excess < min(columns, rows) * bits // 8:
        file.seek((8 if vr is None else 12) + wanted, os.SEEK_CUR)
        if not any(file.read(excess)):
            return None
    return f"with {length} bytes of pixels instead of the {wanted} that its Rows and Columns make"


def _described(path: Path, header: Any) -> DicomFile:
    import pydicom

    series, kind = _text(header, "SeriesInstanceUID"), _text(header, "SOPClassUID")
    kind = kind or str(header.file_meta.get("MediaStorageSOPClassUID", ""))
    if kind in NO_SLICES:
        return DicomFile(path=path, series=series, other=NO_SLICES[kind])
    if not header.get("Rows") or not header.get("Columns"):
        name = pydicom.uid.UID(kind).name
        if not kind or "Image" in name:
            return DicomFile(path=path, series=series, fault="without Rows and Columns")
        return DicomFile(path=path, series=series, other=f"no image ({name})")
    try:
        count = _frame_count(header)
        _check_values(header)
        slices = tuple(_slice_header(path, header, frame, count) for frame in range(count))
    except _HeaderError as fault:
        return DicomFile(path=path, series=series, fault=str(fault))
    return DicomFile(path=path, series=series, slices=slices)


def _frame_count(header: Any) -> int:
    text = _text(header, "NumberOfFrames") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise _HeaderError(f"with a Number of Frames of {text[:40]!r}")
    return int(text)


def _check_values(header: Any) -> None:
    samples = header.get("SamplesPerPixel") or 1
    if _text(header, "PhotometricInterpretation") == "PALETTE COLOR":
        raise _HeaderError("in palette colours")
    if samples != 1:
        raise _HeaderError(f"in colour ({samples} values in each pixel)")
    if "MOSAIC" in _text(header, "ImageType").split("\\"):
        raise _HeaderError("a mosaic of slices side by side in one image")
    if header.get("ModalityLUTSequence"):
        raise _HeaderError("stored by a table of values (Modality LUT Sequence)")
    allocated, bits = header.get("BitsAllocated") or 0, header.get("BitsStored") or 0
    if not 0 < bits <= allocated <= MOST_BITS:
        raise _HeaderError(f"with {bits} bits stored of {allocated}")
    high = header.get("HighBit")
    if bits < allocated and high is not None and high != bits - 1:
        raise _HeaderError(f"with {bits} bits stored of {allocated}, of which bit {high} is the highest")


def _slice_header(path: Path, header: Any, frame: int, count: int) -> SliceHeader:
    read = _FrameReader(header, frame, count)
    position = read.numbers("PlanePositionSequence", "ImagePositionPatient", 3, alone=count == 1)
    orientation = read.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    height, width = read.numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    _check_directions(orientation)
    if not (height > 0 and width > 0):
        raise _HeaderError(f"with a Pixel Spacing of {height:g} x {width:g} mm")
    thickness = read.number("PixelMeasuresSequence", "SliceThickness")
    slope = read.number("PixelValueTransformationSequence", "RescaleSlope")
    intercept = read.number("PixelValueTransformationSequence", "RescaleIntercept")
    if slope == 0:
        raise _HeaderError("with a Rescale Slope of 0")
    unit = read.text("PixelValueTransformationSequence", "RescaleType") or "HU"
    columns, rows, bits = int(header.Columns), int(header.Rows), int(header.BitsStored)
    signed = header.get("PixelRepresentation") == 1
    syntax = header.file_meta.get("TransferSyntaxUID")
    plain = not syntax or syntax in PLAIN
    return SliceHeader(
        path=path,
        frame=frame,
        n_frames=count,
        series=_text(header, "SeriesInstanceUID"),
        instance=_text(header, "SOPInstanceUID"),
        description=_text(header, "SeriesDescription"),
        modality=_text(header, "Modality"),
        patient=_text(header, "PatientID"),
        frame_of_reference=_text(header, "FrameOfReferenceUID"),
        position_mm=triple(position),
        orientation=orientation,
        size=(columns, rows),
        pixel_mm=(width, height),
        thickness_mm=thickness,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        unit=None if slope is None or intercept is None else unit,
        least_bytes=plain * count * columns * rows * int(header.BitsAllocated) // 8,
        limits=(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1),
        inverted=_text(header, "PhotometricInterpretation") == "MONOCHROME1",
        syntax=str(syntax or ""),
    )


class _FrameReader:
    """Reads the numbers of one frame: from its functional groups, those of all frames, or the header.

    Args:
        header: Dataset of the file.
        frame: Number of the frame.
        count: Frames of the file.
    """

    def __init__(self, header: Any, frame: int, count: int) -> None:
        each = header.get("PerFrameFunctionalGroupsSequence") or ()
        if each and len(each) != count:
            raise _HeaderError(f"with {count} frames and functional groups of {len(each)}")
        self._header = header
        self._groups = [
            *([each[frame]] if each else []),
            *(header.get("SharedFunctionalGroupsSequence") or ())[:1],
        ]

    def numbers(self, sequence: str, keyword: str, n: int, *, alone: bool = True) -> tuple[float, ...]:
        """Return the `n` numbers of an entry; `alone` tells whether one without groups is for this frame."""
        stated = [_text(group[sequence][0], keyword) for group in self._groups if group.get(sequence)]
        if alone:
            stated.append(_text(self._header, keyword))
        found = [_parsed(text, keyword) for text in stated if text]
        if not found or len(found[0]) != n:
            each = "" if alone else " of each frame"
            raise _HeaderError(f"without {_title(keyword)}{each}")
        for other in found[1:]:
            if not np.allclose(found[0], other, rtol=UNIT_TOLERANCE, atol=UNIT_TOLERANCE):
                raise _HeaderError(
                    f"with two values of {_title(keyword)}: {_listed(found[0])} and {_listed(other)}"
                )
        return found[0]

    def number(self, sequence: str, keyword: str) -> float | None:
        """Return a single number; None if it is not stated."""
        text = self.text(sequence, keyword)
        return _parsed(text, keyword)[0] if text else None

    def text(self, sequence: str, keyword: str) -> str:
        """Return an entry as it is written; empty if it is not stated."""
        for group in self._groups:
            if group.get(sequence) and (text := _text(group[sequence][0], keyword)):
                return text
        return _text(self._header, keyword)


def _text(dataset: Any, keyword: str) -> str:
    """Return a header entry as it is written; empty if it is missing."""
    found = dataset.get_item(keyword) if keyword in dataset else None
    if found is None or found.value is None:
        return ""
    value = found.value
    if isinstance(value, bytes):
        # Headers have letters of many encodings.
        value = value.decode(errors="replace")
    elif not isinstance(value, str) and isinstance(value, Sequence):
        value = "\\".join(str(part) for part in value)
    # DICOM pads to even length, with NUL where older software does.
    return str(value).strip(" \0")


def _parsed(text: str, keyword: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        numbers = ()
    if not numbers or not all(isfinite(number) for number in numbers):
        raise _HeaderError(f"with {_title(keyword)} {text[:40]!r}")
    return numbers


def _check_directions(orientation: Sequence[float]) -> None:
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    off = max(abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1), abs(row @ column))
    if off > UNIT_TOLERANCE:
        raise _HeaderError(f"with Image Orientation (Patient) {_listed(orientation)}")


def _title(keyword: str) -> str:
    """Return the name of an entry in the standard."""
    names = {"ImagePositionPatient": "Image Position (Patient)"}
    names["ImageOrientationPatient"] = "Image Orientation (Patient)"
    return names.get(keyword) or "".join(f" {c}" if c.isupper() else c for c in keyword).strip()


def _listed(numbers: Sequence[float]) -> str:
    return "\\".join(f"{number:g}" for number in numbers)
