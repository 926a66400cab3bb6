"""Voxels of DICOM slices, rescaled as the header of each slice says.

GDCM, through which SimpleITK reads, rescales some kinds of objects only, by the first slice's numbers, and
inverts MONOCHROME1. Here it decompresses JPEG and its relatives, and nothing else; pydicom reads what
is not compressed by them.

The decoders behind GDCM fill what is missing from a stream, or what makes no sense in it, without an error.
JPEG has no checksum either, but its codes have to come out even: the codes of all pixels end where the stream
ends. Bytes that are zeroed, lost or changed put later codes out of step, and their number changes.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from jaxtyping import Num, UInt8

from autospine.core.errors import ImageError, first_line
from autospine.io.dicom_header import DEFLATED, READ_BY_PYDICOM, RUN_LENGTH, SliceHeader, without_warnings
from autospine.io.formats import has_dicom_mark
from autospine.io.voxel_data import empty_array
from autospine.storage.locks import scratch_folder

_WORDS = "1.2.840.10008.5.1.4.1.1.7.3"
"""Multi-frame grayscale word secondary capture: GDCM reads its voxels as they are."""

_JPEG = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)}
"""Transfer syntaxes of sequential JPEG: baseline, extended, lossless, and lossless of first order."""

_JPEG_LS = {f"1.2.840.10008.1.2.4.{number}" for number in (80, 81)}

_JPEG_2000 = {f"1.2.840.10008.1.2.4.{number}" for number in range(90, 94)}

_COMPRESSIONS = {
    **dict.fromkeys(_JPEG, "JPEG"),
    **dict.fromkeys(_JPEG_LS, "JPEG-LS"),
    **dict.fromkeys(_JPEG_2000, "JPEG 2000"),
    RUN_LENGTH: "run-length",
}
"""Compressions by transfer syntax (DICOM PS3.5, annex A) that are read; the last one by pydicom."""

END = b"\xff\xd9"
"""Last marker of a stream of JPEG, JPEG-LS (end of image) and JPEG 2000 (end of codestream)."""

ZEROED = 16
"""Zeros at the end of a stream without end marker that are no padding: files are padded to even lengths."""

SPARE_BITS = 15
"""Bits that may be left after the last code: up to seven fill the last byte, and some encoders add a byte."""

_LOSSLESS, _SEQUENTIAL = 0xC3, (0xC0, 0xC1)
"""Start of frame by process: lossless, and the cosine transform in sequence, both by Huffman codes."""


class _Codes(NamedTuple):
    """Huffman codes, looked up by the 16 bits that begin with one."""

    value: UInt8[np.ndarray, "65536"]
    length: UInt8[np.ndarray, "65536"]
    """Bits of the code; 0 where no code begins so."""


class _Scan(NamedTuple):
    """The only scan of a stream of one component."""

    process: int
    size: tuple[int, int]
    """Rows and columns."""

    codes: dict[int, _Codes]
    """By class x 16 + number; class 1 is that of the coefficients after the first."""

    chosen: tuple[int, int]
    """Keys of the codes of pixels, or of first coefficients, and of the other coefficients."""

    interval: int
    """Units between two restart markers; 0 if there are none."""

    data: bytes
    """Codes, up to the next marker."""


def values_type(slices: Sequence[SliceHeader]) -> np.dtype:
    """Return the smallest type that holds the rescaled values of every slice."""
    if any(not s.slope.is_integer() or not s.intercept.is_integer() for s in slices):
        return np.dtype(np.float32)
    ends = [int(end * s.slope + s.intercept) for s in slices for end in s.limits]
    types = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64)
    held = (t for t in types if np.iinfo(t).min <= min(ends) and max(ends) <= np.iinfo(t).max)
    return np.dtype(next(held, np.float32))


def read_slices(slices: Sequence[SliceHeader]) -> Num[np.ndarray, "k j i"]:
    """Read the voxels of slices of one size, rescaled as each of them says (HU for CT).

    Raises:
        ImageError: If a file is damaged, or compressed in a way that cannot be read.
    """
    columns, rows = slices[0].size
    by_file: dict[Path, list[int]] = {}
    for index, s in enumerate(slices):
        by_file.setdefault(s.path, []).append(index)
    for path, indices in by_file.items():
        if (found := path.stat().st_size) < (least := slices[indices[0]].least_bytes):
            raise _damaged(path, f"its header promises {least} bytes of voxels, and the file has {found}")
        _check_compression(slices[indices[0]])
    shape = (len(slices), rows, columns)
    voxels = empty_array(shape, values_type(slices), str(slices[0].path.parent))
    unpacked = any(s.syntax not in READ_BY_PYDICOM for s in slices)
    with scratch_folder(Path(tempfile.gettempdir())) if unpacked else nullcontext(Path()) as scratch:
        for path, indices in by_file.items():
            try:
                with without_warnings():
                    frames = _stored([slices[index] for index in indices], scratch)
                    for index, stored in zip(indices, frames, strict=True):
                        voxels[index] = _rescaled(stored, slices[index])
            except (MemoryError, ImageError):
                raise
            except Exception as error:  # pydicom and GDCM raise errors of any kind where bytes make no sense
                raise _damaged(path, _cause(error)) from None
    return voxels


def _check_compression(header: SliceHeader) -> None:
    """Refuse a compression that is not read."""
    import pydicom

    if header.syntax in READ_BY_PYDICOM or header.syntax in _COMPRESSIONS:
        return
    raise ImageError(
        f"expected a readable DICOM slice, found {header.path} compressed in a way that is not read "
        f"({pydicom.uid.UID(header.syntax).name}); export it uncompressed"
    )


def _cause(error: Exception) -> str:
    """Say why pixels cannot be read; NumPy's own words are about arrays."""
    if short := re.match(r"cannot reshape array of size (\d+) into shape \((\d+), ?(\d+)", str(error)):
        return f"it has {short[1]} of the {int(short[2]) * int(short[3])} pixels of a slice"
    return first_line(error)


def _damaged(path: Path, reason: str) -> ImageError:
    return ImageError(
        f"expected a readable DICOM slice, found {path} damaged: {reason}; export or copy it again"
    )


def _rescaled(stored: Num[np.ndarray, "j i"], header: SliceHeader) -> Num[np.ndarray, "j i"]:
    low, high = header.limits
    if stored.dtype.kind not in "iu" or stored.ndim != 2:
        raise ValueError(f"expected whole numbers in one plane, found {stored.dtype} in {stored.ndim} axes")
    if not low <= int(stored.min()) <= int(stored.max()) <= high:
        raise ValueError(
            f"expected stored numbers of {low} to {high}, found {stored.min()} to {stored.max()}"
        )
    if header.slope == 1 and header.intercept == 0:
        return stored
    if header.slope.is_integer() and header.intercept.is_integer():
        largest = max(abs(low), high) * abs(header.slope) + abs(header.intercept)
        whole = np.int32 if largest <= np.iinfo(np.int32).max else np.int64
        return stored.astype(whole) * int(header.slope) + int(header.intercept)
    return stored.astype(np.float64) * header.slope + header.intercept


def _stored(slices: Sequence[SliceHeader], scratch: Path) -> Iterator[Num[np.ndarray, "j i"]]:
    """Yield the stored numbers of frames of one file.

    Raises:
        ValueError: If its data are compressed and broken.
    """
    import pydicom
    from pydicom.pixels.utils import iter_pixels

    path, syntax = slices[0].path, slices[0].syntax
    indices = [s.frame for s in slices]
    if syntax not in READ_BY_PYDICOM:
        yield from _decompressed(path, slices[0].size, scratch)[indices]
        return
    source: Any = path
    if syntax == DEFLATED:  # pydicom finds pixels in a dataset of it, but not in a file
        source = pydicom.dcmread(path)
    elif not has_dicom_mark(path):
        source = pydicom.dcmread(path, force=True)
        implicit, little = source.original_encoding
        source.file_meta.TransferSyntaxUID = pydicom.uid.UID(
            "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"
        )
    frames = iter_pixels(source, indices=indices, raw=True)
    try:
        yield from frames
    except Exception:
        if syntax == RUN_LENGTH:  # pydicom's words are about its plug-ins
            raise ValueError(f"its {_COMPRESSIONS[syntax]} data are broken") from None
        raise


def _decompressed(path: Path, size: tuple[int, int], scratch: Path) -> Num[np.ndarray, "k j i"]:
    """Return the stored numbers of all frames of a file, decompressed by GDCM.

    What would make it rescale or invert them, or arrange the frames, is left out of the header that it sees.

    Args:
        path: The file.
        size: Columns and rows.
        scratch: Folder for a copy of the file, which GDCM reads.

    Raises:
        ImageError: If the copy cannot be written.
        ValueError: If the data are broken.
    """
    import pydicom

    whole = pydicom.dcmread(path, force=True)
    compression = _COMPRESSIONS[whole.file_meta.TransferSyntaxUID]
    _check_frames(whole, size, compression)
    bare = pydicom.Dataset()
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(bare, keyword, whole[keyword].value)
    bare.SamplesPerPixel, bare.PhotometricInterpretation = 1, "MONOCHROME2"
    bare.NumberOfFrames = whole.get("NumberOfFrames") or 1
    bare.SOPClassUID, bare.SOPInstanceUID = _WORDS, "1.2.3"
    bare.add(whole["PixelData"])
    bare.file_meta = pydicom.dataset.FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = whole.file_meta.TransferSyntaxUID
    bare.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(_WORDS)
    bare.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
    file = scratch / "frames.dcm"
    try:
        bare.save_as(file, enforce_file_format=True)
    except OSError as error:
        raise ImageError(
            f"expected to unpack {path} in the temporary folder {scratch.parent.parent}, found "
            f"{error.strerror or error}; free some space there"
        ) from None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        voxels: np.ndarray = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError:  # its words are about source code
        raise ValueError(f"its {compression} data are broken") from None
    return voxels.reshape(-1, size[1], size[0])


def _check_frames(whole: Any, size: tuple[int, int], compression: str) -> None:
    """Check the stream of each frame.

    Raises:
        ValueError: If one is damaged.
    """
    from pydicom.encaps import generate_frames

    count = int(whole.get("NumberOfFrames") or 1)
    frames = generate_frames(whole.PixelData, number_of_frames=count)
    for number in range(1, count + 1):
        try:
            frame = next(frames)
        except (ValueError, StopIteration):  # GDCM knows other ways to tell which parts belong to which
            return
        try:
            check_frame(frame, whole.file_meta.TransferSyntaxUID, size[::-1])
        except ValueError as error:
            where = f" of frame {number}" if count > 1 else ""
            raise ValueError(f"its {compression} data{where} are broken: {error}") from None


def check_frame(frame: bytes, syntax: str, size: tuple[int, int]) -> None:
    """Check the stream of one frame.

    Args:
        frame: Its bytes.
        syntax: UID of the transfer syntax.
        size: Rows and columns of the frame.

    Raises:
        ValueError: If it is damaged; in JPEG, bits that are changed without any code getting out of step are
            not noticed, in the other formats only an end that is zeroed.
    """
    whole = frame.rstrip(b"\0")
    if syntax not in _JPEG:
        lost = not whole.endswith(END) and len(frame) - len(whole) >= ZEROED
        if lost and syntax in _JPEG_LS | _JPEG_2000:
            raise ValueError("their end is zeroed")
        if syntax in _JPEG_2000 and not 0 < _tiles_end(frame) <= len(frame):
            raise ValueError("they end early")
        return
    try:
        scan = _scan(whole)
    except (IndexError, ValueError):
        raise ValueError("their markers make no sense") from None
    if scan is None:
        return
    if scan.size != size:
        found, stated = (f"{columns}x{rows}" for rows, columns in (scan.size, size))
        raise ValueError(f"they are of {found} pixels instead of {stated}")
    units = size[0] * size[1] if scan.process == _LOSSLESS else ceil(size[0] / 8) * ceil(size[1] / 8)
    parts = re.split(rb"\xff+[\xd0-\xd7]", scan.data)
    each = scan.interval or units
    if len(parts) != ceil(units / each):
        raise ValueError("they end early, or some are lost")
    for index, part in enumerate(parts):
        packed = np.frombuffer(part.replace(b"\xff\x00", b"\xff"), np.uint8)
        left = 8 * len(packed) - _bits(scan, packed, min(each, units - index * each))
        if not 0 <= left <= SPARE_BITS:
            raise ValueError("they end early, or some are lost")


def _tiles_end(stream: bytes) -> int:
    """Return where the last tile-part of JPEG 2000 ends that states its length (ITU-T T.800, A.4.2).

    Returns:
        -1 if there is none.
    """
    end = stream.find(b"\xff\x90\x00\x0a")
    while end >= 0 and stream[end : end + 4] == b"\xff\x90\x00\x0a":
        length = int.from_bytes(stream[end + 6 : end + 10])
        if length < 12:  # 0: it is the last one, up to the end
            break
        end += length
    return end


def _scan(stream: bytes) -> _Scan | None:
    """Read the markers; None if the stream is of a kind that is not checked.

    Raises:
        ValueError, IndexError: If they make no sense.
    """
    if not stream.startswith(b"\xff\xd8"):
        raise ValueError("no start of image")
    codes: dict[int, _Codes] = {}
    process, size, interval = 0, (0, 0), 0
    for marker, content, end in _segments(stream):
        if marker == 0xC4:
            codes |= _tables(content)
        elif marker == 0xDD:
            interval = int.from_bytes(content[:2])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC8, 0xCC):
            process, size = marker, (int.from_bytes(content[1:3]), int.from_bytes(content[3:5]))
            if process not in (_LOSSLESS, *_SEQUENTIAL) or content[5] != 1 or not size[0]:
                return None
        elif marker == 0xDA:
            after = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]").search(stream, end)
            data = stream[end : after.start() if after else len(stream)]
            first, second = content[2] >> 4, 16 + (content[2] & 15)
            return _Scan(process, size, codes, (first, second), interval, data)
    raise ValueError("no scan")


def _segments(stream: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the marker of each segment, its content, and where it ends."""
    at = 2
    while True:
        if stream[at] != 0xFF:
            raise ValueError("no marker")
        while stream[at] == 0xFF:  # as many as an encoder likes
            at += 1
        end = at + 1 + int.from_bytes(stream[at + 1 : at + 3])
        if not at + 3 <= end <= len(stream):
            raise ValueError("a segment without end")
        yield stream[at], stream[at + 3 : end], end
        at = end


def _tables(content: bytes) -> dict[int, _Codes]:
    """Read Huffman tables: codes of one length count up, longer ones go on (ITU-T T.81, annex C)."""
    found = {}
    while content:
        key, counts = content[0], content[1:17]
        values = np.frombuffer(content[17 : 17 + sum(counts)], np.uint8)
        lengths = np.repeat(np.arange(1, 17, dtype=np.uint8), np.frombuffer(counts, np.uint8))
        room = 1 << (16 - lengths.astype(np.int64))
        if len(values) != len(lengths) or room.sum() > 1 << 16:
            raise ValueError("a table that makes no sense")
        rest = (1 << 16) - int(room.sum())
        found[key] = _Codes(
            value=np.append(np.repeat(values, room), np.zeros(rest, np.uint8)),
            length=np.append(np.repeat(lengths, room), np.zeros(rest, np.uint8)),
        )
        content = content[17 + len(values) :]
    return found


def _bits(scan: _Scan, packed: UInt8[np.ndarray, "n"], units: int) -> int:
    """Return the bits that the codes of so many pixels, or of blocks of 8x8, take.

    Returns:
        More than there are if they end early, or if there is none where one should begin.
    """
    at, step, missing = 0, 1, 8 * len(packed) + 1
    windows = _windows(packed)
    try:
        first = scan.codes[scan.chosen[0]]
        # Behind each code are as many bits of the difference as it says, but none for 16.
        steps = _steps(first)[windows].tobytes()
        if scan.process == _LOSSLESS:
            for _ in range(units):
                step = steps[at]
                at += step
            return at if step else missing  # without a code there it stays where it is
        second = scan.codes[scan.chosen[1]]
        others, values = _steps(second)[windows].tobytes(), second.value[windows].tobytes()
        for _ in range(units):
            at += steps[at] or missing
            place = 1
            while place < 64:
                value = values[at]
                at += others[at] or missing
                if value == 0:  # the rest of the block is zero
                    break
                place += (value >> 4) + 1
    except (IndexError, KeyError):
        return missing
    return at


def _steps(codes: _Codes) -> UInt8[np.ndarray, "65536"]:
    """Return the bits of each code and of the number behind it, 0 where no code begins so."""
    steps: np.ndarray = np.where(codes.length > 0, codes.length + codes.value % 16, 0).astype(np.uint8)
    return steps


def _windows(packed: UInt8[np.ndarray, "n"]) -> np.ndarray:
    """Return the 16 bits that follow each bit, with ones behind the end."""
    padded = np.append(packed, np.full(2, 0xFF, np.uint8)).astype(np.uint32)
    three = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
    windows = np.empty((len(packed), 8), np.uint16)
    for shift in range(8):
        windows[:, shift] = three >> (8 - shift) & 0xFFFF
    return windows.ravel()
