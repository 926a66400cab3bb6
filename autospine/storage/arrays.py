"""Arrays on disk of which any box can be read: Blosc2, or plain NumPy files where Blosc2 cannot be used."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autospine.core.types import Shape3
from autospine.storage.atomic import replacing
from autospine.system.log import get_logger

try:
    import blosc2
except (ImportError, OSError):  # no wheel for this machine, or one whose libraries do not load
    blosc2 = None

log = get_logger(__name__)

ArrayFormat = Literal["blosc2", "npy"]

ENDINGS: dict[ArrayFormat, str] = {"blosc2": ".b2nd", "npy": ".npy"}

BLOCK = 32
"""Edge, in voxels, of the blocks that are decompressed as a whole; 32^3 of 16 bits fit a level-2 cache."""

MAX_CHUNK = 128
"""Longest edge of a chunk, in voxels."""


def usable(wanted: ArrayFormat) -> ArrayFormat:
    """Return the format to write: the wanted one, or `npy` if Blosc2 cannot be imported."""
    if wanted == "blosc2" and blosc2 is None:
        log.warning("Blosc2 cannot be imported; cases are stored as plain .npy files, about twice as large")
        return "npy"
    return wanted


def has_blosc2() -> bool:
    """Whether Blosc2 can be imported."""
    return blosc2 is not None


def write_array(path: Path, array: np.ndarray, patch_size: Shape3, kind: ArrayFormat) -> None:
    """Write an array (..., S, P, L), or leave what was there.

    Args:
        path: Name with the format's ending.
        array: (..., S, P, L) array of any type.
        patch_size: Shape of the boxes that will be read at a time; decides the chunks of Blosc2.
        kind: Format of the file.

    Raises:
        OSError, RuntimeError: If it cannot be written; Blosc2 raises the second.
    """
    with replacing(path) as temporary:
        if kind == "npy":
            with temporary.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            return
        temporary.unlink()  # Blosc2 makes its own
        blosc2.asarray(
            np.ascontiguousarray(array),
            urlpath=str(temporary),
            **_layout(array.shape, patch_size),
            cparams={"codec": blosc2.Codec.ZSTD, "clevel": 1, "nthreads": 1},
        )


def create_array(path: Path, shape: Sequence[int], chunks: Sequence[int], dtype: type) -> Any:
    """Make a Blosc2 file of zeros that is written part by part, whole chunks at a time.

    Args:
        path: Name of the file; a file of this name is replaced.
        shape: Shape of the array.
        chunks: Shape of the chunks, each compressed as a whole; blocks have at most `BLOCK` voxels each way.
        dtype: Type of the numbers.

    Raises:
        OSError, RuntimeError: If it cannot be written; Blosc2 raises the second, here and on writing.
    """
    path.unlink(missing_ok=True)
    return blosc2.zeros(
        tuple(shape),
        dtype=np.dtype(dtype),
        chunks=tuple(chunks),
        blocks=tuple(min(BLOCK, chunk) for chunk in chunks),
        urlpath=str(path),
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 1, "nthreads": 1},
    )


def open_array(path: Path, kind: ArrayFormat) -> Any:
    """Open an array of which parts are read when it is indexed.

    Raises:
        OSError, RuntimeError, ValueError: If the file is missing or damaged.
    """
    # Memory-mapped files cannot be replaced on Windows.
    mapped = sys.platform != "win32"
    if kind == "npy":
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    if blosc2 is None:
        raise OSError("a Blosc2 file, and Blosc2 cannot be imported")
    options = {"mmap_mode": "r"} if mapped else {}
    return blosc2.open(str(path), mode="r", dparams={"nthreads": 1}, **options)


def _layout(shape: Sequence[int], patch_size: Shape3) -> dict[str, tuple[int, ...]]:
    chunks = [
        min(n, MAX_CHUNK, BLOCK * -(-patch // BLOCK)) for n, patch in zip(shape[-3:], patch_size, strict=True)
    ]
    leading = [1] * (len(shape) - 3)
    return {"chunks": (*leading, *chunks), "blocks": (*leading, *(min(BLOCK, chunk) for chunk in chunks))}
