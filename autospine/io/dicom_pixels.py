"""Voxels of DICOM slices, rescaled as the header of each slice says.

GDCM, through which SimpleITK reads, rescales some kinds of objects only, by the first slice's numbers, and
inverts MONOCHROME1. Here it decompresses JPEG and its relatives, and nothing else; pydicom reads what
is not compressed by them.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Num

from autospine.core.errors import ImageError, first_line
from autospine.io.dicom_header import DEFLATED, READ_BY_PYDICOM, RUN_LENGTH, SliceHeader
from autospine.io.formats import has_dicom_mark
from autospine.io.jpeg_streams import JPEG, JPEG_2000, JPEG_LS, check_frame
from autospine.io.library_chatter import without_warnings
from autospine.io.voxel_data import empty_array
from autospine.storage.locks import scratch_folder

_WORDS = "1.2.840.10008.5.1.4.1.1.7.3"
"""Multi-frame grayscale word secondary capture: GDCM reads its voxels as they are."""

_COMPRESSIONS = {
    **dict.fromkeys(JPEG, "JPEG"),
    **dict.fromkeys(JPEG_LS, "JPEG-LS"),
    **dict.fromkeys(JPEG_2000, "JPEG 2000"),
    RUN_LENGTH: "run-length",
}
"""Compressions by transfer syntax (DICOM PS3.5, annex A) that are read; the last one by pydicom."""


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
