"""Arrays on disk of which any box can be read: Blosc2, or plain NumPy files where Blosc2 cannot be used.

Neither format notices a changed byte. Checksums of the chunks, which are kept elsewhere, do: a chunk is
checked when something of it is read for the first time, so that a box needs no other part of the file.
"""

import sys
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autospine.core.types import Shape3
from autospine.storage.atomic import replacing
from autospine.storage.file_names import check_file, open_file
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

DIGITS = 8
"""Hexadecimal digits of a checksum."""

FIRST_BYTES = 48
"""First bytes of a file, which say where its chunks begin and end: the lengths of the header and, for Blosc2,
of all chunks (README_CFRAME_FORMAT.rst of C-Blosc2; numpy.lib.format)."""


def usable(wanted: ArrayFormat) -> ArrayFormat:
    """Return the format to write: the wanted one, or `npy` if Blosc2 cannot be imported."""
    if wanted == "blosc2" and blosc2 is None:
        log.warning("Blosc2 cannot be imported; cases are stored as plain .npy files, about twice as large")
        return "npy"
    return wanted


def has_blosc2() -> bool:
    """Return whether Blosc2 can be imported."""
    return blosc2 is not None


def write_array(path: Path, array: np.ndarray, patch_size: Shape3, kind: ArrayFormat) -> str:
    """Write an array (..., S, P, L), or leave what was there; return its checksums for `open_array`.

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
        else:
            temporary.unlink()  # Blosc2 makes its own
            blosc2.asarray(
                np.ascontiguousarray(array),
                urlpath=str(temporary),
                **_layout(array.shape, patch_size),
                cparams={"codec": blosc2.Codec.ZSTD, "clevel": 1, "nthreads": 1},
            )
        return _header_checksum(temporary, kind) + ChunkChecks(open_array(temporary, kind)).compute()


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
    check_file(path)
    # Memory-mapped files cannot be replaced on Windows.
    mapped = sys.platform != "win32"
    if kind == "npy":
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    if blosc2 is None:
        raise OSError("a Blosc2 file, and Blosc2 cannot be imported")
    options = {"mmap_mode": "r"} if mapped else {}
    return blosc2.open(str(path), mode="r", dparams={"nthreads": 1}, **options)


def open_checked(path: Path, kind: ArrayFormat, checksums: str) -> "CheckedArray":
    """Open an array as `open_array` does, with the checksums that `write_array` returned.

    Raises:
        OSError, RuntimeError, ValueError: If the file is missing or damaged; the last, here and on reading,
            if it is not as it was written.
    """
    # Before the libraries read it, which trust what it says.
    if _header_checksum(path, kind) != checksums[:DIGITS]:
        raise ValueError("its header changed after it was written")
    array = open_array(path, kind)
    return CheckedArray(array, ChunkChecks(array), checksums[DIGITS:])


class CheckedArray:
    """An array on disk whose chunks are checked before they are read for the first time.

    Args:
        array: The opened array.
        checks: Computes checksums of the same array.
        checksums: Checksums of its chunks as they were when it was written.

    Raises:
        ValueError: If they are those of another array.
    """

    def __init__(self, array: Any, checks: "ChunkChecks", checksums: str) -> None:
        self._array, self._checks = array, checks
        self._expected = [checksums[start : start + DIGITS] for start in range(0, len(checksums), DIGITS)]
        self._checked: set[int] = set()
        if len(self._expected) != checks.n_chunks:
            raise ValueError(f"{checks.n_chunks} chunks instead of {len(self._expected)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self._array.shape)

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
        """Read a box, one slice for each axis.

        Raises:
            ValueError: If a chunk is not as it was written.
        """
        for chunk in self._checks.touched(box):
            if chunk not in self._checked:
                if self._checks.of_chunk(chunk) != self._expected[chunk]:
                    raise ValueError("some of its bytes changed after it was written")
                self._checked.add(chunk)
        values: np.ndarray = self._array[box]
        return values


class ChunkChecks:
    """Checksums (CRC-32) of the chunks of an array on disk, eight hexadecimal digits each.

    Chunks of NumPy files are as many rows as a block of Blosc2 has, of one channel and of the whole width.

    Args:
        array: The array as `open_array` returns it.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self._plain = isinstance(array, np.ndarray)
        shape = tuple(array.shape)
        leading = (1,) * (len(shape) - 3)
        self._chunks = (*leading, BLOCK, *shape[-2:]) if self._plain else tuple(array.chunks)
        self._grid = tuple(-(-n // max(1, chunk)) for n, chunk in zip(shape, self._chunks, strict=True))

    @cached_property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return int(np.prod(self._grid))

    def compute(self) -> str:
        """Return the checksums of all chunks, one after the other."""
        return "".join(self.of_chunk(chunk) for chunk in range(self.n_chunks))

    def of_chunk(self, chunk: int) -> str:
        """Return the checksum of a chunk as it lies in the file."""
        if not self._plain:
            return _hex(self._array.schunk.get_chunk(chunk))
        where = np.unravel_index(chunk, self._grid)
        box = tuple(slice(n * size, (n + 1) * size) for n, size in zip(where, self._chunks, strict=True))
        return _hex(np.ascontiguousarray(self._array[box]).view(np.uint8).data)

    def touched(self, box: tuple[slice, ...]) -> Iterator[int]:
        """Yield the numbers of the chunks that a box lies in."""
        ranges = []
        for part, n, size in zip(box, self._array.shape, self._chunks, strict=True):
            start, stop, _ = part.indices(n)
            ranges.append(range(start // size, -(-stop // size)))
        for where in product(*ranges):
            yield int(np.ravel_multi_index(where, self._grid))


def _header_checksum(path: Path, kind: ArrayFormat) -> str:
    """Return the checksum of all that a file holds beside its chunks, and of its size."""
    size = path.stat().st_size
    with open_file(path) as file:
        first = file.read(FIRST_BYTES)
        if kind == "npy":
            start, end = 10 + int.from_bytes(first[8:10], "little"), size
        else:
            start = int.from_bytes(first[11:15], "big")
            end = start + int.from_bytes(first[39:47], "big")
        file.seek(0)
        before = file.read(min(start, size))
        file.seek(min(end, size))
        return _hex(file.read(), zlib.crc32(before, size))


def _hex(data: Any, before: int = 0) -> str:
    return f"{zlib.crc32(data, before & 0xFFFFFFFF):08x}"


def _layout(shape: Sequence[int], patch_size: Shape3) -> dict[str, tuple[int, ...]]:
    chunks = [
        min(n, MAX_CHUNK, BLOCK * -(-patch // BLOCK)) for n, patch in zip(shape[-3:], patch_size, strict=True)
    ]
    leading = [1] * (len(shape) - 3)
    return {"chunks": (*leading, *chunks), "blocks": (*leading, *(min(BLOCK, chunk) for chunk in chunks))}
