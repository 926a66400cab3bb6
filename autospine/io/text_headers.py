"""MetaImage and NRRD: headers of text, with the voxels behind them or in files of their own.

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
from autospine.io.formats import NRRD_ENDINGS
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

NRRD_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        "longlong",
        "long long",
        "long long int",
        "signed long long",
        "signed long long int",
        "int64",
        "int64_t",
    ),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
"""Voxel types of NRRD with all of their names (teem's definition of the file format)."""

MOST_LAYERS = 256
"""Most layers of segments that are read; 3D Slicer makes one for each segment that overlaps all others."""

NRRD_ENCODINGS: dict[str, DataEncoding] = {
    "raw": "raw",
    "gz": "deflate",
    "gzip": "deflate",
    "bz2": "bzip2",
    "bzip2": "bzip2",
    "txt": "text",
    "text": "text",
    "ascii": "text",
}

NRRD_SPACES = {
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
}
"""Spaces of NRRD that say where left and right are, with the signs that lead from them to LPS."""

SAME_SIZE = 0.01
"""Voxel sizes that a header states twice may differ by this share: some round them to two decimals."""

_NO_SPACE = 'its axes have no "space directions" in a "space" such as left-posterior-superior'


def read_metaimage(path: Path) -> ImageFile:
    """Read and check the header of a MetaImage.

    Raises:
        ImageError: If it is damaged, no 3D volume of single values, states no spacing or orientation, or
            names data that are not in its folder.
    """
    entries, end = _meta_entries(path)
    shape = _integers(entries.get("dimsize", ""), "DimSize", path)
    n = len(shape)
    if (stated := _whole_number(entries, "NDims", path, otherwise=n)) != n:
        raise damaged(path, f"NDims is {stated}, and DimSize has {n} numbers")
    check_volume(path, shape, _whole_number(entries, "ElementNumberOfChannels", path, otherwise=1))
    spacing = _numbers(entries.get("elementspacing") or entries.get("elementsize", ""), path)
    if len(spacing) not in (0, n):
        raise damaged(path, f"ElementSpacing has {len(spacing)} numbers instead of {n}")
    if not spacing:
        raise unstated(path, "spacing", "ElementSpacing")
    matrix = _numbers(next((entries[key] for key in _META_MATRIX if key in entries), ""), path)
    if len(matrix) not in (0, n * n):
        raise damaged(path, f"TransformMatrix has {len(matrix)} numbers instead of {n * n}")
    if not matrix:
        raise unstated(path, "orientation", "TransformMatrix")
    origin = _numbers(next((entries[key] for key in _META_ORIGIN if key in entries), ""), path)
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
        files=_evenly(path, files, shape),
        shape=grid.shape,
        dtype=_meta_type(path, entries),
        encoding=_meta_encoding(path, entries, files, begin),
        start=begin,
        padded=files == [path] or "headersize" in entries,
    )
    return ImageFile(voxels=voxels, grid=grid, notes=(*_origin_note(origin), *notes))


_META_MATRIX = ("transformmatrix", "rotation", "orientation")
_META_ORIGIN = ("offset", "position", "origin")


def _meta_entries(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's entries by name in small letters, and where the header ends."""
    entries: dict[str, str] = {}
    with path.open("rb") as file:
        for line in _lines(file, path):
            key, mark, value = line.partition("=")
            if not mark:
                raise damaged(path, "it does not start with the header of a MetaImage")
            entries[key.strip().lower()] = value.strip()
            if key.strip().lower() == "elementdatafile":
                if entries.get("objecttype", "Image").lower() != "image":
                    raise damaged(
                        path, f"it holds an object of type {entries['objecttype']} instead of an image"
                    )
                if value.strip().upper().startswith("LIST"):
                    entries["list"] = "\n".join(_lines(file, path))
                return entries, file.tell()
    raise damaged(path, "its header ends without ElementDataFile" if entries else "it is empty")


def _meta_files(path: Path, entries: dict[str, str], end: int) -> tuple[list[Path], int | None]:
    """Return the files that hold the voxels, and where in each of them they begin."""
    named = entries["elementdatafile"]
    if named.upper() == "LOCAL":
        return [path], end
    header = _whole_number(entries, "HeaderSize", path, least=-1)
    start = None if header < 0 else header
    if "list" in entries:
        return _named(path, [line for line in entries["list"].splitlines() if line.strip()]), start
    pattern = re.fullmatch(r"(\S*%\S*)((?:\s+\d+){2,3})", named)
    if pattern:
        first, last, step = [*map(int, pattern[2].split()), 1][:3]
        return _named(path, _numbered(path, pattern[1], first, last, step)), start
    return _named(path, [named]), start


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
    stated = _whole_number(entries, "CompressedDataSize", path)
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
    if _numbers(slope, path) != [1.0] or _numbers(offset, path) != [0.0]:
        raise ImageError(
            f"expected voxels that are intensities in {path}, found them to be scaled by {slope} and shifted "
            f"by {offset} (ElementToIntensityFunction), which programs read differently; save the result"
        )


def read_nrrd(path: Path) -> ImageFile:
    """Read and check the header of an NRRD file: a volume of single values, or of layers of segments.

    Raises:
        ImageError: If it is damaged, no 3D volume of single values, has too many layers, states no spacing or
            orientation, or names data that are not in its folder.
    """
    entries, end = nrrd_entries(path)
    sizes = _integers(entries.get("sizes", ""), "sizes", path)
    if (stated_axes := _whole_number(entries, "dimension", path, otherwise=len(sizes))) != len(sizes):
        raise damaged(path, f"its dimension is {stated_axes}, and sizes has {len(sizes)} numbers")
    vectors = _vectors(entries.get("space directions", ""), path)
    if not vectors:
        spaced = "spacings" in entries
        raise unstated(path, "orientation" if spaced else "spacing and orientation", '"space directions"')
    if len(vectors) != len(sizes):
        raise damaged(path, f'"space directions" has {len(vectors)} entries, and sizes has {len(sizes)}')
    inside = [axis for axis, vector in enumerate(vectors) if vector is not None]
    values = prod(n for n, vector in zip(sizes, vectors, strict=True) if vector is None)
    layers = values if any(key.startswith("Segment") for key in entries) else 1
    if layers != 1:
        _check_layers(path, layers, inside, entries)
    check_volume(path, [sizes[axis] for axis in inside], values // layers)
    signs = NRRD_SPACES.get(entries.get("space", "").lower())
    if signs is None:
        raise unstated(
            path, "orientation", '"space: left-posterior-superior" or another with left in its name'
        )
    if units := [u for u in re.findall(r'"([^"]*)"', entries.get("space units", "")) if u not in ("mm", "")]:
        raise ImageError(
            f"expected lengths in mm in {path}, found space units {units[0]}; convert the header"
        )
    stated = _vectors(entries.get("space origin", ""), path)
    origin = stated[0] if stated and stated[0] is not None else []
    if any(
        len(each) != 3 for each in [*(vector for vector in vectors if vector), *([origin] if origin else [])]
    ):
        raise damaged(path, 'the vectors of "space directions" and "space origin" do not have three numbers')
    axes = np.asarray(signs)[:, None] * np.asarray([vectors[axis] for axis in inside[:3]]).T
    lengths = np.linalg.norm(axes, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        directions = axes / lengths
    _check_spacings(entries, inside, lengths, path)
    shape = [sizes[axis] for axis in inside[:3]]
    grid, notes = grid_of_axes(
        triple(shape[::-1]),
        directions,
        lengths,
        np.asarray(signs) * np.asarray(origin or [0.0] * 3),
        str(path),
    )
    files, begin = _nrrd_files(path, entries, end)
    start: int | None = begin
    encoding = _nrrd_encoding(path, entries)
    skipped = _whole_number(entries, "byte skip", path, least=-1)
    if skipped and encoding == "raw":  # -1: the voxels end the file
        start, skipped = begin + skipped if skipped > 0 else None, 0
    voxels = VoxelData(
        name=str(path),
        files=_evenly(path, files, sizes),
        shape=grid.shape,
        dtype=_nrrd_type(path, entries),
        encoding=encoding,
        start=start,
        skipped=max(0, skipped),
        padded=files == [path] or bool({"byte skip", "line skip"} & entries.keys()),
        layers=layers,
    )
    return ImageFile(voxels=voxels, grid=grid, notes=(*_origin_note(origin), *notes))


def _check_spacings(
    entries: dict[str, str], inside: Sequence[int], lengths_mm: np.ndarray, path: Path
) -> None:
    """Refuse spacings that contradict the lengths of the axes; NaN stands for none."""
    spacings = _numbers(entries.get("spacings", ""), path)
    stated = [abs(spacings[axis]) for axis in inside[:3] if axis < len(spacings)]
    if any(abs(a - b) > SAME_SIZE * b for a, b in zip(stated, lengths_mm, strict=False)):
        listed = (" x ".join(f"{n:g}" for n in numbers) for numbers in (stated, lengths_mm))
        raise ImageError(
            f"expected the same voxel sizes in spacings and space directions of {path}, found "
            f"{' and '.join(listed)} mm; mend the header or convert it again"
        )


def _check_layers(path: Path, layers: int, inside: Sequence[int], entries: dict[str, str]) -> None:
    """Refuse layers of segments that 3D Slicer does not write."""
    if not 0 < layers <= MOST_LAYERS:
        fault = f"{layers}"
    elif list(inside) != [1, 2, 3]:
        fault = f"them along another, as the axes {', '.join(str(axis + 1) for axis in inside)} are in space"
    elif _nrrd_type(path, entries).kind not in "iu":
        fault = f"them as {entries.get('type')}"
    else:
        return
    raise ImageError(
        f"expected at most {MOST_LAYERS} layers of segments along the first axis of {path}, as integers, "
        f"found {fault}; save the segmentation again with 3D Slicer"
    )


def nrrd_entries(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields and key/value pairs of an NRRD header, and where the header ends.

    Names of fields are in small letters; keys are as written. A `data file: LIST` keeps its lines under
    `list`.

    Raises:
        ImageError: If it does not start with such a header.
    """
    entries: dict[str, str] = {}
    with path.open("rb") as file:
        lines = _lines(file, path)
        if not re.match(r"NRRD\d{4}", next(lines, "")):
            raise damaged(path, "it does not start with the header of an NRRD file")
        for line in lines:
            if not line:
                return entries, file.tell()
            if line.startswith("#"):
                continue
            field, mark, value = re.match(r"(.*?)(:=|: ?|$)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
            if not mark:
                raise damaged(path, f"a line of its header is no field: {line[:40]!r}")
            name = field if mark == ":=" else _NRRD_FIELDS.get(field.lower().replace(" ", ""), field.lower())
            entries[name] = value.strip() if mark != ":=" else value
            if name == "data file" and value.upper().startswith("LIST"):
                entries["list"] = "\n".join(lines)
        if path.name.lower().endswith(NRRD_ENDINGS[-1]) or "data file" in entries:
            return entries, file.tell()
    raise damaged(path, "it ends within its header")


_NRRD_FIELDS = {
    name.replace(" ", ""): name
    for name in ("data file", "line skip", "byte skip", "space directions", "space origin", "space units")
}


def _nrrd_files(path: Path, entries: dict[str, str], end: int) -> tuple[list[Path], int]:
    """Return the files that hold the voxels, and where in each of them they begin."""
    named = entries.get("data file", "")
    files = [path]
    start = end if not named else 0
    if "list" in entries:
        files = _named(path, [line for line in entries["list"].splitlines() if line.strip()])
    elif match := re.fullmatch(r"(\S*%\S*)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(\s+\d+)?", named):
        files = _named(path, _numbered(path, match[1], int(match[2]), int(match[3]), int(match[4])))
    elif named:
        files = _named(path, [named])
    lines = _whole_number(entries, "line skip", path)
    if lines:
        with files[0].open("rb") as file:
            file.seek(start)
            for _ in range(min(lines, MOST_HEADER)):
                if not file.readline(MOST_HEADER):
                    break
            start = file.tell()
    return files, start


def _nrrd_type(path: Path, entries: dict[str, str]) -> np.dtype[Any]:
    name = " ".join(entries.get("type", "").lower().split())
    kind = next((kind for kind, names in NRRD_TYPES.items() if name in names), None)
    if name == "block":
        raise unsupported(path, f"voxels of the type {name}")
    if kind is None:
        raise damaged(path, f"its voxels are of the type {name or 'none'}")
    endian = entries.get("endian", "").lower()
    if (
        endian not in ("little", "big")
        and np.dtype(kind).itemsize > 1
        and _nrrd_encoding(path, entries) != "text"
    ):
        raise damaged(path, "its header does not state the byte order (endian)")
    return np.dtype(kind).newbyteorder(">" if endian == "big" else "<")


def _nrrd_encoding(path: Path, entries: dict[str, str]) -> DataEncoding:
    name = entries.get("encoding", "").lower()
    if name in ("hex", "zrl"):
        raise unsupported(path, f"voxels encoded as {name}")
    if name not in NRRD_ENCODINGS:
        raise damaged(path, f"its voxels are encoded as {name or 'nothing that it states'}")
    return NRRD_ENCODINGS[name]


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


def _lines(file: BufferedReader, path: Path) -> Iterator[str]:
    """Yield the lines of a header without their ends."""
    left = MOST_HEADER
    while line := file.readline(left):
        left -= len(line)
        if left <= 0:
            raise damaged(path, f"its header is longer than {MOST_HEADER} bytes")
        yield line.rstrip(b"\r\n").decode(errors="replace")


def _is_true(entries: dict[str, str], key: str, *, otherwise: bool = False) -> bool:
    return entries.get(key, str(otherwise)).lower()[:1] in ("t", "y", "1")


def _numbers(text: str, path: Path) -> list[float]:
    try:
        return [float(part) for part in text.split()]
    except ValueError:
        raise damaged(path, f"its header has {text[:40]!r} where numbers belong") from None


def _whole_number(
    entries: dict[str, str], key: str, path: Path, *, least: int = 0, otherwise: int = 0
) -> int:
    """Return an entry that is one whole number; programs that take another for 0 shift all voxels.

    Raises:
        ImageError: If it is none, or smaller than it may be.
    """
    # Names of MetaImage are kept in small letters, and those of NRRD have no others.
    text = entries.get(key.lower(), str(otherwise)).strip()
    if not re.fullmatch(r"[-+]?\d{1,18}", text) or int(text) < least:
        raise damaged(path, f"its header has {text[:40]!r} as {key}")
    return int(text)


def _integers(text: str, key: str, path: Path) -> list[int]:
    if not re.fullmatch(r"\s*-?\d{1,18}(\s+-?\d{1,18})*\s*", text):
        raise damaged(path, f"its header has {text[:40]!r} as {key}")
    return [int(part) for part in text.split()]


def _vectors(text: str, path: Path) -> list[list[float] | None]:
    """Return the vectors of an NRRD field, None for an axis that is not in space."""
    parts = re.findall(r"\(([^()]*)\)|(none)", text, re.IGNORECASE)
    return [None if none else _numbers(numbers.replace(",", " "), path) for numbers, none in parts]


def _named(path: Path, names: Sequence[str]) -> list[Path]:
    if not 0 < len(names) <= MOST_FILES:
        raise damaged(path, f"it names {len(names)} data files")
    try:
        return [named_beside(path, name.strip()) for name in names]
    except OSError as error:
        raise ImageError(
            f"expected the voxels of {path} in its own folder, found {error}; copy the file there"
        ) from None


def _numbered(path: Path, pattern: str, first: int, last: int, step: int) -> list[str]:
    """Return the names that a pattern such as `slice%03d.raw` stands for."""
    match = re.fullmatch(r"([^%]*)%(0?\d{0,2})[du]([^%]*)", pattern)
    count = (last - first) // step + 1 if step else 0
    if match is None or not 0 < count <= MOST_FILES:
        raise damaged(path, f"it names its data files as {pattern} {first} {last} {step}")
    return [
        f"{match[1]}{number:{match[2]}d}{match[3]}"
        for number in range(first, last + (1 if step > 0 else -1), step)
    ]


def _evenly(path: Path, files: Sequence[Path], shape: Sequence[int]) -> tuple[Path, ...]:
    """Refuse a number of files that cannot hold equal numbers of slices."""
    if prod(shape) % len(files):
        raise damaged(path, f"it has {len(files)} data files for {prod(shape)} voxels")
    return tuple(files)


def _origin_note(origin: Sequence[float]) -> tuple[str, ...]:
    return () if len(origin) else ("its header states no origin; taken as 0",)
