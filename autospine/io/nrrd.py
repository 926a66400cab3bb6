"""Headers of NRRD: of volumes, and of segments in layers as 3D Slicer writes them."""

import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from autospine.core.errors import ImageError
from autospine.core.geometry import Grid, grid_of_axes, triple
from autospine.io.formats import NRRD_ENDINGS
from autospine.io.text_headers import (
    MOST_HEADER,
    SAME_SIZE,
    check_once,
    check_volume,
    evenly_filled,
    header_lines,
    integers_of,
    named_files,
    numbered_names,
    numbers_of,
    origin_note,
    unstated,
    whole_number,
)
from autospine.io.voxel_data import DataEncoding, ImageFile, VoxelData, damaged, unsupported

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


def read_nrrd(path: Path) -> ImageFile:
    """Read and check the header of an NRRD file: a volume of single values, or of layers of segments.

    Raises:
        ImageError: If it is damaged, no 3D volume of single values, has too many layers, states no spacing or
            orientation, or names data that are not in its folder.
    """
    entries, end = nrrd_entries(path)
    sizes = integers_of(entries.get("sizes", ""), "sizes", path)
    if (stated_axes := whole_number(entries, "dimension", path, otherwise=len(sizes))) != len(sizes):
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
    grid, notes = _nrrd_grid(path, entries, sizes, vectors)
    files, begin = _nrrd_files(path, entries, end)
    start: int | None = begin
    encoding = _nrrd_encoding(path, entries)
    skipped = whole_number(entries, "byte skip", path, least=-1)
    if skipped and encoding == "raw":  # -1: the voxels end the file
        start, skipped = begin + skipped if skipped > 0 else None, 0
    voxels = VoxelData(
        name=str(path),
        files=evenly_filled(path, files, sizes),
        shape=grid.shape,
        dtype=_nrrd_type(path, entries),
        encoding=encoding,
        start=start,
        skipped=max(0, skipped),
        padded=files == [path] or bool({"byte skip", "line skip"} & entries.keys()),
        layers=layers,
    )
    return ImageFile(voxels=voxels, grid=grid, notes=notes)


def _nrrd_grid(
    path: Path, entries: dict[str, str], sizes: Sequence[int], vectors: Sequence[list[float] | None]
) -> tuple[Grid, tuple[str, ...]]:
    """Return the grid that a header describes, and notes on what it does not state.

    Raises:
        ImageError: If it states no orientation, other units than mm, or contradicts itself.
    """
    inside = [axis for axis, vector in enumerate(vectors) if vector is not None]
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
        len(each) != 3
        for each in [*(vector for vector in vectors if vector is not None), *([origin] if origin else [])]
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
    return grid, (*origin_note(origin), *notes)


def _check_spacings(
    entries: dict[str, str], inside: Sequence[int], lengths_mm: np.ndarray, path: Path
) -> None:
    """Refuse spacings that contradict the lengths of the axes; NaN stands for none."""
    spacings = numbers_of(entries.get("spacings", ""), path)
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

    Names of fields are in small letters. Of the key/value pairs, which are no fields whatever their names,
    those of segments are kept as written. A `data file: LIST` keeps its lines under `list`.

    Raises:
        ImageError: If it does not start with such a header.
    """
    entries: dict[str, str] = {}
    with path.open("rb") as file:
        lines = header_lines(file, path)
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
            if mark == ":=":
                if field.startswith("Segment"):
                    entries[field] = value
                continue
            name = _NRRD_FIELDS.get(field.lower().replace(" ", ""), field.lower())
            check_once(name, entries.get(name), value.strip(), path)
            entries[name] = value.strip()
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
        files = named_files(path, [line for line in entries["list"].splitlines() if line.strip()])
    elif match := re.fullmatch(r"(\S*%\S*)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(\s+\d+)?", named):
        files = named_files(path, numbered_names(path, match[1], int(match[2]), int(match[3]), int(match[4])))
    elif named:
        files = named_files(path, [named])
    lines = whole_number(entries, "line skip", path)
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


def _vectors(text: str, path: Path) -> list[list[float] | None]:
    """Return the vectors of an NRRD field, None for an axis that is not in space."""
    parts = re.findall(r"\(([^()]*)\)|(none)", text, re.IGNORECASE)
    return [None if none else numbers_of(numbers.replace(",", " "), path) for numbers, none in parts]
