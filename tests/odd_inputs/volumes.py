"""One small CT volume in the bytes of each format, written by hand so that any field can be broken."""

import bz2
import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SHAPE = (14, 12, 16)
"""Voxels along k, j, i."""

SPACING_MM = (1.5, 1.25, 2.0)
"""Voxel size along i, j, k."""

ORIGIN_MM = (-31.5, 12.25, 207.0)

LPS = np.eye(3)
TURNED = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Axes i, j, k as columns: i runs to the front, j down and k to the left."""

META_TYPES = {
    "int8": "MET_CHAR",
    "uint8": "MET_UCHAR",
    "int16": "MET_SHORT",
    "uint16": "MET_USHORT",
    "int32": "MET_INT",
    "uint32": "MET_UINT",
    "float32": "MET_FLOAT",
    "float64": "MET_DOUBLE",
}
NRRD_TYPES = {
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "float32": "float",
    "float64": "double",
}

PACKERS = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "zlib": zlib.compress}


def voxels(dtype: str = "int16") -> np.ndarray:
    """A body of soft tissue with bone in air, in HU where the type holds them, alike in no two directions."""
    k, j, i = np.indices(SHAPE)
    rng = np.random.default_rng(5)
    noise = rng.integers(-15, 16, SHAPE)
    hu = np.where((j > 2) & (i > 1), 40 + 3 * k - 2 * j + i, -1000) + noise
    hu = np.where((k > 4) & (j > 5) & (j < 10) & (i > 6), 700 + 10 * i, hu)
    kind = np.dtype(dtype)
    if kind.kind == "u":
        hu = hu + 1015
    if kind.itemsize == 1:
        hu = hu // 16 + (0 if kind.kind == "u" else 50)
    limits = np.iinfo(kind) if kind.kind in "iu" else None
    if limits is not None:
        hu = hu.clip(limits.min, limits.max)
    made: np.ndarray = hu.astype(kind)
    return made


def affine(direction: np.ndarray = LPS) -> np.ndarray:
    """From (i, j, k, 1) to positions in LPS."""
    matrix = np.eye(4)
    matrix[:3, :3] = direction * np.asarray(SPACING_MM)
    matrix[:3, 3] = ORIGIN_MM
    return matrix


def numbers(values: object) -> str:
    return " ".join(f"{value:.12g}" for value in np.asarray(values).ravel())


def meta_header(dtype: str = "int16", direction: np.ndarray = LPS, **changes: str | None) -> dict[str, str]:
    """The entries of a MetaImage header; a change of None leaves one out."""
    entries: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        # ITK keeps the axes as rows.
        "TransformMatrix": numbers(direction.T),
        "Offset": numbers(ORIGIN_MM),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": numbers(SPACING_MM),
        "DimSize": " ".join(str(n) for n in SHAPE[::-1]),
        "ElementType": META_TYPES[dtype],
        "ElementDataFile": "LOCAL",
    }
    last = changes.pop("ElementDataFile", entries.pop("ElementDataFile"))
    entries |= changes
    entries["ElementDataFile"] = last
    return {key: value for key, value in entries.items() if value is not None}


def write_meta(path: Path, header: Mapping[str, str], data: bytes = b"") -> Path:
    path.write_bytes("".join(f"{key} = {value}\n" for key, value in header.items()).encode() + data)
    return path


def nrrd_header(dtype: str = "int16", direction: np.ndarray = LPS, **changes: str | None) -> dict[str, str]:
    """The fields of an NRRD header, with underscores for blanks; a change of None leaves one out."""
    columns = direction * np.asarray(SPACING_MM)
    entries: dict[str, str | None] = {
        "type": NRRD_TYPES[dtype],
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(str(n) for n in SHAPE[::-1]),
        "space_directions": " ".join(vector(columns[:, axis]) for axis in range(3)),
        "kinds": "domain domain domain",
        "endian": "little" if np.dtype(dtype).itemsize > 1 else None,
        "encoding": "raw",
        "space_origin": vector(ORIGIN_MM),
    }
    entries |= changes
    return {key.replace("_", " "): value for key, value in entries.items() if value is not None}


def vector(values: object) -> str:
    return "(" + ",".join(f"{value:.12g}" for value in np.asarray(values)) + ")"


def write_nrrd(
    path: Path, header: Mapping[str, str], data: bytes = b"", more: Mapping[str, str] | None = None
) -> Path:
    lines = ["NRRD0004", *(f"{key}: {value}" for key, value in header.items())]
    lines += [f"{key}:={value}" for key, value in (more or {}).items()]
    path.write_bytes(("\n".join(lines) + "\n\n").encode() + data)
    return path
