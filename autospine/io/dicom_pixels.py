"""Voxels of DICOM slices, rescaled as the header of each slice says.

GDCM, through which SimpleITK reads, rescales some kinds of objects only, by the first slice's numbers, and
inverts MONOCHROME1. Here it decompresses JPEG and its relatives, and nothing else; pydicom reads what
is not compressed by them.
"""

import re
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Num

from autospine.core.errors import ImageError, first_line
from autospine.io.dicom_header import SliceHeader, without_warnings
from autospine.io.formats import has_dicom_mark
from autospine.io.voxel_data import want_of_memory
from autospine.system.hardware import free_memory

_WORDS = "1.2.840.10008.5.1.4.1.1.7.3"
"""Multi-frame grayscale word secondary capture: GDCM reads its voxels as they are."""


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
    voxels = _empty((len(slices), rows, columns), values_type(slices), slices[0].path.parent)
    for path, indices in by_file.items():
        try:
            with without_warnings():
                frames = _stored([slices[index] for index in indices])
                for index, stored in zip(indices, frames, strict=True):
                    voxels[index] = _rescaled(stored, slices[index])
        except MemoryError:
            raise
        except Exception as error:  # pydicom and GDCM raise errors of any kind where bytes make no sense
            raise _damaged(path, _cause(error)) from None
    return voxels


def _empty(shape: tuple[int, int, int], dtype: np.dtype, where: Path) -> Num[np.ndarray, "k j i"]:
    """Return an array for voxels.

    Raises:
        ImageError: If there is no memory for it.
    """
    needed, free = prod(shape) * dtype.itemsize, free_memory()
    if needed > free:
        raise want_of_memory(str(where), f"{needed / 1e9:.3g} GB", f"{free / 1e9:.3g} GB")
    return np.empty(shape, dtype=dtype)


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


def _stored(slices: Sequence[SliceHeader]) -> Iterator[Num[np.ndarray, "j i"]]:
    """Yield the stored numbers of frames of one file."""
    import pydicom
    from pydicom.pixels.utils import iter_pixels

    path = slices[0].path
    if slices[0].compressed:
        yield from _decompressed(path)[[s.frame for s in slices]]
        return
    source: Any = path
    if not has_dicom_mark(path):
        source = pydicom.dcmread(path, force=True)
        implicit, little = source.original_encoding
        source.file_meta.TransferSyntaxUID = pydicom.uid.UID(
            "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"
        )
    yield from iter_pixels(source, indices=[s.frame for s in slices], raw=True)


def _decompressed(path: Path) -> Num[np.ndarray, "k j i"]:
    """Return the stored numbers of all frames of a file, decompressed by GDCM.

    What would make it rescale or invert them, or arrange the frames, is left out of the header that it sees.
    """
    import pydicom

    whole = pydicom.dcmread(path, force=True)
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
    with TemporaryDirectory() as folder:
        file = Path(folder) / "frames.dcm"
        bare.save_as(file, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(file))
        voxels: np.ndarray = sitk.GetArrayFromImage(reader.Execute())
    return voxels.reshape(-1, whole.Rows, whole.Columns)
