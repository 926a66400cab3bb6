"""Headers of text: MetaImage, and what it shares with NRRD. Voxels lie behind them or in files of their own.

They are read here rather than by ITK, which fills in what a header does not state (voxels of 1 mm, axes
along L, P and S), leaves memory as it was where compressed data are damaged, and opens any file that a
header names.
"""

import re
from collections.abc import Iterator, Sequence
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from autospine.core.errors import ImageError
from autospine.core.geometry import grid_of_axes, triple
from autospine.io.voxel_data import DataEncoding, ImageFile, VoxelData, damaged, unsupported
from autospine.storage.file_names import named_beside

MOST_HEADER = 1 << 22
"""Bytes of the longest header that is read; those of 3D Slicer's segmentations take some 100 per segment."""

MOST_FILES = 100_000
"""Most files that the voxels of an image may be spread over."""

META_TYPES = {
    "CHAR": "i1",
    "UCHAR": "u1",
    "SHORT": "i2",
    "USHORT": "u2",
    "INT": "i4",
    "UINT": "u4",
    "LONG": "i4",
    "ULONG": "u4",
    "LONG_LONG": "i8",
    "ULONG_LONG": "u8",
    "FLOAT": "f4",
    "DOUBLE": "f8",
}
"""Voxel types of MetaImage; `LONG` has four bytes on every machine (MetaIO's metaTypes.h)."""

SAME_SIZE = 0.01
"""Voxel sizes that a header states twice may differ by this share: some round them to two decimals."""


def read_metaimage(path: Path) -> ImageFile:
    """Read and check the header of a MetaImage.

    Raises:
        ImageError: If it is damaged, no 3D volume of single values, states no spacing or orientation, or
            names data that are not in its folder.
    """
    entries, end = _meta_entries(path)
    shape = integers_of(entries.get("dimsize", ""), "DimSize", path)
    n = len(shape)
    if (stated := whole_number(entries, "NDims", path, otherwise=n)) != n:
        raise damaged(path, f"NDims is {stated}, and DimSize has {n} numbers")
    check_volume(path, shape, whole_number(entries, "ElementNumberOfChannels", path, otherwise=1))
    spacing = numbers_of(entries.get("elementspacing") or entries.get("elementsize", ""), path)
    if len(spacing) not in (0, n):
        raise damaged(path, f"ElementSpacing has {len(spacing)} numbers instead of {n}")
    if not spacing:
        raise unstated(path, "spacing", "ElementSpacing")
    matrix = numbers_of(_one_of(entries, _META_MATRIX, path), path)
    if len(matrix) not in (0, n * n):
        raise damaged(path, f"TransformMatrix has {len(matrix)} numbers instead of {n * n}")
    if not matrix:
        raise unstated(path, "orientation", "TransformMatrix")
    origin = numbers_of(_one_of(entries, _META_ORIGIN, path), path)
    if len(origin) not in (0, n):
        raise damaged(path, f"Offset has {len(origin)} numbers instead of {n}")
    _check_meta_units(entries, path)
    # Row a of the matrix is the direction of axis a.
    directions = np.reshape(matrix, (n, n))[:3, :3].T
    grid, notes = grid_of_axes(
        triple(shape[2::-1]),
        directions,
        np.asarray(spacing[:3]),
        np.asarray([*origin, 0.0, 0.0, 0.0][:3]),
        str(path),
    )
    files, begin = _meta_files(path, entries, end)
    voxels = VoxelData(
        name=str(path),
        files=evenly_filled(path, files, shape),
        shape=grid.shape,
        dtype=_meta_type(path, entries),
        encoding=_meta_encoding(path, entries, files, begin),
        start=begin,
        padded=files == [path] or "headersize" in entries,
    )
    return ImageFile(voxels=voxels, grid=grid, notes=(*origin_note(origin), *notes))


_META_MATRIX = ("transformmatrix", "rotation", "orientation")
_META_ORIGIN = ("offset", "position", "origin")


def _meta_entries(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's entries by name in small letters, and where the header ends."""
    entries: dict[str, str] = {}
    with path.open("rb") as file:
        for line in header_lines(file, path):
            key, mark, value = line.partition("=")
            if not mark:
                raise damaged(path, "it does not start with the header of a MetaImage")
            name = key.strip().lower()
            if name != "comment":
                check_once(key.strip(), entries.get(name), value.strip(), path)
            entries[name] = value.strip()
            if name == "elementdatafile":
                if entries.get("objecttype", "Image").lower() != "image":
                    raise damaged(
                        path, f"it holds an object of type {entries['objecttype']} instead of an image"
                    )
                if value.strip().upper().startswith("LIST"):
                    entries["list"] = "\n".join(header_lines(file, path))
                return entries, file.tell()
    raise damaged(path, "its header ends without ElementDataFile" if entries else "it is empty")


def _one_of(entries: dict[str, str], names: Sequence[str], path: Path) -> str:
    """Return the entry that has several names; empty if it has none of them.

    Raises:
        ImageError: If two of them contradict each other.
    """
    stated = [(name, entries[name]) for name in names if name in entries]
    for name, value in stated[1:]:
        check_once(name, stated[0][1], value, path)
    return stated[0][1] if stated else ""


def _meta_files(path: Path, entries: dict[str, str], end: int) -> tuple[list[Path], int | None]:
    """Return the files that hold the voxels, and where in each of them they begin."""
    named = entries["elementdatafile"]
    header = whole_number(entries, "HeaderSize", path, least=-1)
    if named.upper() == "LOCAL":
        if header not in (-1, 0, end):
            raise damaged(path, f"its voxels begin at byte {end}, and its HeaderSize is {header}")
        return [path], end
    start = None if header < 0 else header
    if "list" in entries:
        return named_files(path, [line for line in entries["list"].splitlines() if line.strip()]), start
    pattern = re.fullmatch(r"(\S*%\S*)((?:\s+\d+){2,3})", named)
    if pattern:
        first, last, step = [*map(int, pattern[2].split()), 1][:3]
        return named_files(path, numbered_names(path, pattern[1], first, last, step)), start
    return named_files(path, [named]), start


def _meta_type(path: Path, entries: dict[str, str]) -> np.dtype[Any]:
    name = entries.get("elementtype", "")
    kind = META_TYPES.get(name.upper().removeprefix("MET_"))
    if re.fullmatch(r"MET_(\w+_ARRAY|STRING|ASCII_CHAR|OTHER|FLOAT_MATRIX)", name.upper()):
        raise unsupported(path, f"voxels of the type {name}")
    if kind is None:
        raise damaged(path, f"its voxels are of the type {name or 'none'}")
    big = any(_is_true(entries, key) for key in ("binarydatabyteordermsb", "elementbyteordermsb"))
    return np.dtype(kind).newbyteorder(">" if big else "<")


def _meta_encoding(
    path: Path, entries: dict[str, str], files: Sequence[Path], start: int | None
) -> DataEncoding:
    if not _is_true(entries, "binarydata", otherwise=True):
        return "text"
    if not _is_true(entries, "compresseddata"):
        return "raw"
    stated = whole_number(entries, "CompressedDataSize", path)
    if len(files) == 1:
        found = files[0].stat().st_size - (start or 0)
        if found < stated:
            raise ImageError(
                f"expected {stated} bytes of compressed voxels in {files[0]}, found {found}: the file is "
                "truncated; copy it again"
            )
    return "deflate"


def _check_meta_units(entries: dict[str, str], path: Path) -> None:
    """Refuse other units and scaled intensities, which programs read differently."""
    if (units := entries.get("distanceunits", "mm")).lower() not in ("mm", "?", ""):
        raise ImageError(f"expected lengths in mm in {path}, found DistanceUnits {units}; convert the header")
    slope, offset = (
        entries.get(f"elementtointensityfunction{part}", default)
        for part, default in (("slope", "1"), ("offset", "0"))
    )
    if numbers_of(slope, path) != [1.0] or numbers_of(offset, path) != [0.0]:
        raise ImageError(
            f"expected voxels that are intensities in {path}, found them to be scaled by {slope} and shifted "
            f"by {offset} (ElementToIntensityFunction), which programs read differently; save the result"
        )


def check_volume(path: Path | str, size: Sequence[int], values: int) -> None:
    """Refuse an image that is no 3D volume of single values.

    Args:
        path: Its file.
        size: Voxels along each axis of space, and of time.
        values: Values in each voxel.

    Raises:
        ImageError: If it is none; the message says what to do with it.
    """
    while len(size) > 3 and size[-1] == 1:  # a volume is often saved with a fourth axis of one
        size = size[:-1]
    times = "x".join(str(n) for n in size)
    fault = None
    if values != 1:
        fault = f"{values} values in each voxel of {times}; save it in grey, or as one file per channel"
    elif len(size) < 3:
        fault = f"a single slice of {times}; give the whole volume as one 3D file"
    elif len(size) > 3:
        fault = f"{len(size)} axes of {times}; split it into 3D files, one per channel or point in time"
    if fault:
        raise ImageError(f"expected a 3D volume of single values in {path}, found {fault}")
    if min(size) <= 0:
        raise ImageError(f"expected voxels along every axis of {path}, found size {times}; convert it again")


def unstated(path: Path | str, what: str, where: str) -> ImageError:
    """Return the error of an image whose header leaves out what only its maker knows."""
    return ImageError(
        f"expected the {what} of the image in {path}, found none in its header; convert it again from its "
        f"source, or state {where}"
    )


def header_lines(file: BufferedReader, path: Path) -> Iterator[str]:
    """Yield the lines of a header without their ends."""
    left = MOST_HEADER
    while line := file.readline(left):
        left -= len(line)
        if left <= 0:
            raise damaged(path, f"its header is longer than {MOST_HEADER} bytes")
        yield line.rstrip(b"\r\n").decode(errors="replace")


def _is_true(entries: dict[str, str], key: str, *, otherwise: bool = False) -> bool:
    return entries.get(key, str(otherwise)).lower()[:1] in ("t", "y", "1")


def check_once(key: str, before: str | None, value: str, path: Path) -> None:
    """Refuse an entry that a header has twice, of which programs take the first or the last.

    Args:
        key: Name of the entry.
        before: Its value so far; None if it is the first.
        value: Its value.
        path: The file, for messages.

    Raises:
        ImageError: If the two differ.
    """
    if before is not None and before.split() != value.split():
        raise damaged(path, f"its header has {key} twice, as {before[:40]!r} and {value[:40]!r}")


def numbers_of(text: str, path: Path) -> list[float]:
    """Return the numbers that an entry lists.

    Raises:
        ImageError: If one is none.
    """
    try:
        return [float(part) for part in text.split()]
    except ValueError:
        raise damaged(path, f"its header has {text[:40]!r} where numbers belong") from None


def whole_number(entries: dict[str, str], key: str, path: Path, *, least: int = 0, otherwise: int = 0) -> int:
    """Return an entry that is one whole number; programs that take another for 0 shift all voxels.

    Raises:
        ImageError: If it is none, or smaller than it may be.
    """
    # Names of MetaImage are kept in small letters, and those of NRRD have no others.
    text = entries.get(key.lower(), str(otherwise)).strip()
    if not re.fullmatch(r"[-+]?\d{1,18}", text) or int(text) < least:
        raise damaged(path, f"its header has {text[:40]!r} as {key}")
    return int(text)


def integers_of(text: str, key: str, path: Path) -> list[int]:
    """Return the whole numbers that an entry lists.

    Raises:
        ImageError: If there is none, or one is none.
    """
    if not re.fullmatch(r"\s*-?\d{1,18}(\s+-?\d{1,18})*\s*", text):
        raise damaged(path, f"its header has {text[:40]!r} as {key}")
    return [int(part) for part in text.split()]


def named_files(path: Path, names: Sequence[str]) -> list[Path]:
    """Return the data files that a header names.

    Raises:
        ImageError: If they are too many, or one is not in the folder of the header.
    """
    if not 0 < len(names) <= MOST_FILES:
        raise damaged(path, f"it names {len(names)} data files")
    try:
        return [named_beside(path, name.strip()) for name in names]
    except OSError as error:
        raise ImageError(
            f"expected the voxels of {path} in its own folder, found {error}; copy the file there"
        ) from None


def numbered_names(path: Path, pattern: str, first: int, last: int, step: int) -> list[str]:
    """Return the names that a pattern such as `slice%03d.raw` stands for."""
    match = re.fullmatch(r"([^%]*)%(0?\d{0,2})[du]([^%]*)", pattern)
    count = (last - first) // step + 1 if step else 0
    if match is None or not 0 < count <= MOST_FILES:
        raise damaged(path, f"it names its data files as {pattern} {first} {last} {step}")
    return [
        f"{match[1]}{number:{match[2]}d}{match[3]}"
        for number in range(first, last + (1 if step > 0 else -1), step)
    ]


def evenly_filled(path: Path, files: Sequence[Path], shape: Sequence[int]) -> tuple[Path, ...]:
    """Refuse a number of files that cannot hold equal numbers of slices."""
    if prod(shape) % len(files):
        raise damaged(path, f"it has {len(files)} data files for {prod(shape)} voxels")
    return tuple(files)


def origin_note(origin: Sequence[float]) -> tuple[str, ...]:
    """Return a note if a header states no origin."""
    return () if len(origin) else ("its header states no origin; taken as 0",)
