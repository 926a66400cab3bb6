"""The voxels of image files, read in a stream: counted, decompressed and checked, and held in memory once.

Image libraries believe a header's size: they allocate it, and leave what damaged data do not fill as it was.
Here a size is compared with what the file can hold before memory is taken, and a file is sound only if its
data end where its header says so, checksum included.
"""

import bz2
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Num, UInt16

from autospine.core.errors import ImageError, first_line
from autospine.core.geometry import Grid
from autospine.core.types import Shape3
from autospine.io.number_text import LONGEST_NUMBER, read_numbers
from autospine.storage.file_names import check_file
from autospine.system.hardware import free_memory

DataEncoding = Literal["raw", "deflate", "bzip2", "text"]
"""`deflate` is the stream of zlib as well as that of gzip, which tell themselves apart."""

PADDING = 4096
"""Bytes after the last voxel that count as padding; more of them contradict the header."""

MOST_AFTER = 1 << 20
"""Compressed bytes that are read after the last voxel, in order to reach the checksum."""

LARGEST_RATIO = 1032
"""Deflate makes data at most this many times smaller (zlib's technical details)."""

_EVIDENCE = 16
"""Bytes in front of padding of which one has to be other than zero, unless there is little of it."""

_BLOCK = 1 << 18
"""Bytes read from a file at a time."""

_PART = 1 << 22
"""Bytes of voxels that are handed on at a time; a multiple of every voxel's size."""

MOST_COMBINATIONS = 1 << 16
"""Most combinations of values that the layers of an image may have: those that 16 bits number."""

DAMAGE = (OSError, EOFError, ValueError, zlib.error)
"""Errors of the libraries that decompress, where the data are damaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelData:
    """The place of an image's voxels in one file or several, and their encoding."""

    name: str
    """Name of the image in messages."""

    files: tuple[Path, ...]
    """Files that hold equal parts of the voxels, in order."""

    shape: Shape3
    """Voxels along the array's axes: k, j, i."""

    dtype: np.dtype[Any]
    """Type of the voxels as stored, with its byte order."""

    encoding: DataEncoding = "raw"

    start: int | None = 0
    """Bytes of each file before its data; None if the voxels are its last bytes."""

    skipped: int = 0
    """Bytes of the decompressed data before the first voxel."""

    scaling: tuple[float, float] = (1.0, 0.0)
    """Slope and intercept: value = stored x slope + intercept."""

    padded: bool = True
    """Whether other bytes may follow the voxels; not if the header leaves open on which side they lie."""

    layers: int = 1
    """Values of each voxel, stored one after the other; several where segments overlap."""

    @property
    def size(self) -> int:
        """Number of all values."""
        return prod(self.shape) * self.layers

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels as stored."""
        return self.size * self.dtype.itemsize

    @property
    def result(self) -> np.dtype[Any]:
        """Type of the voxels in memory: as stored, in the machine's byte order; float if they are scaled."""
        native = self.dtype.newbyteorder("=")
        if self.scaling == (1.0, 0.0):
            return native
        return np.dtype(np.float64 if native == np.float64 else np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """An image file whose header was read and understood."""

    voxels: VoxelData
    grid: Grid
    notes: tuple[str, ...] = ()
    """Notes on repairs to the header."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayeredVoxels:
    """The voxels of an image of several layers, each as the number of its combination of values."""

    numbers: UInt16[np.ndarray, "k j i"]
    """Number of the combination of each voxel, which is a row of `values`."""

    values: Num[np.ndarray, "combinations layers"]
    """Values that voxels have in every layer, in the order in which they are met."""

    counts: tuple[int, ...]
    """Number of voxels of each combination."""


def read_voxels(voxels: VoxelData) -> np.ndarray:
    """Read all voxels into a new array.

    Raises:
        ImageError: If the data are damaged, of another size than stated, too large for the memory, or in
            several layers.
    """
    if voxels.layers > 1:
        raise ImageError(
            f"expected one value in each voxel of {voxels.name}, found {voxels.layers} layers of segments; "
            "give the image that they were drawn on, or save them as one label map with 3D Slicer's export"
        )
    _check_sizes(voxels)
    flat = empty_array((prod(voxels.shape),), voxels.result, voxels.name)
    place = 0
    for part in stored_parts(voxels):
        into = flat[place : place + part.size]
        if voxels.scaling == (1.0, 0.0):
            into[...] = part
        else:
            with np.errstate(all="ignore"):  # voxels that are not finite are refused later
                into[...] = part.astype(np.float64) * voxels.scaling[0] + voxels.scaling[1]
        place += part.size
    return flat.reshape(voxels.shape)


def read_layers(voxels: VoxelData) -> LayeredVoxels:
    """Read an image of several layers without holding any of them.

    Raises:
        ImageError: If the data are damaged, of another size than stated, too large for the memory, or have
            more than `MOST_COMBINATIONS` combinations of values.
    """
    _check_sizes(voxels)
    flat = empty_array((prod(voxels.shape),), np.dtype(np.uint16), voxels.name)
    numbers: dict[bytes, int] = {}
    counts: list[int] = []
    place = 0
    for part in stored_parts(voxels):
        rows = part.reshape(-1, voxels.layers)
        if not len(rows):
            continue
        # Labels are alike along a row of voxels: only where they change is something new.
        changes = np.flatnonzero(part[voxels.layers :] != part[: -voxels.layers]) // voxels.layers + 1
        starts = np.unique(np.append(0, changes))
        lengths = np.diff(np.append(starts, len(rows)))
        different, which = np.unique(rows[starts], axis=0, return_inverse=True)
        known = [numbers.setdefault(row.tobytes(), len(numbers)) for row in different]
        if len(numbers) > MOST_COMBINATIONS:
            raise ImageError(
                f"expected at most {MOST_COMBINATIONS} combinations of segments in {voxels.name}, found "
                "more; save the segmentation again"
            )
        counts += [0] * (len(numbers) - len(counts))
        for number, count in zip(known, np.bincount(which.ravel(), weights=lengths).tolist(), strict=True):
            counts[number] += int(count)
        flat[place : place + len(rows)] = np.repeat(np.asarray(known, np.uint16)[which.ravel()], lengths)
        place += len(rows)
    values = np.frombuffer(b"".join(numbers), dtype=voxels.dtype).reshape(-1, voxels.layers)
    return LayeredVoxels(numbers=flat.reshape(voxels.shape), values=values, counts=tuple(counts))


def check_voxels(voxels: VoxelData) -> None:
    """Read all voxels once without keeping them.

    Raises:
        ImageError: If the data are damaged or of another size than stated.
    """
    _check_sizes(voxels)
    for _ in stored_parts(voxels):
        pass


def empty_array(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> np.ndarray:
    """Return an array for voxels, if the memory has room for it.

    Args:
        shape: Its shape.
        dtype: Type of its values.
        name: Name of the image in messages.

    Raises:
        ImageError: If there is no memory for it.
    """
    needed, free = prod(shape) * dtype.itemsize, free_memory()
    if needed > free:
        raise want_of_memory(name, f"{needed / 1e9:.3g} GB", f"{free / 1e9:.3g} GB")
    try:
        return np.empty(shape, dtype=dtype)
    except MemoryError:
        raise want_of_memory(name, f"{needed / 1e9:.3g} GB", "less") from None


def want_of_memory(name: str, needed: str, found: str) -> ImageError:
    """Return the error of an image that does not fit the memory."""
    return ImageError(
        f"expected {needed} of free memory for the voxels of {name}, found {found}; close other programs, or "
        "crop the image"
    )


def damaged(name: str | Path, reason: object) -> ImageError:
    """Return the error of an image file that cannot be read."""
    return ImageError(f"expected a readable image, found {name} damaged: {reason}; copy or convert it again")


def unsupported(name: str | Path, what: str) -> ImageError:
    """Return the error of an image file that is sound, but of a kind that is not read."""
    return ImageError(
        f"expected voxels that AutoSpine reads in {name}, found {what}; convert the image with the program "
        "that wrote it"
    )


def cause(error: Exception) -> str:
    """Return what a library says that could not read bytes, without zlib's numbers."""
    return re.sub(
        r"^Error -\d+ while decompressing data: ", "its compressed data are broken, ", first_line(error)
    )


def stored_parts(voxels: VoxelData) -> Iterator[np.ndarray]:
    """Yield the voxels as stored, part by part as flat arrays, all layers of a voxel in one part.

    Raises:
        ImageError: If the data are damaged or of another size than stated.
    """
    if voxels.encoding == "text":
        (path,) = voxels.files
        try:
            yield from read_numbers(path, voxels.dtype, voxels.start or 0, voxels.size, voxels.layers)
        except DAMAGE as error:
            raise damaged(path, cause(error)) from None
        return
    expected = voxels.nbytes // len(voxels.files)
    rest = b""
    voxel = voxels.dtype.itemsize * voxels.layers
    for path in voxels.files:
        try:
            for block in _exactly(path, voxels, expected):
                block = rest + block if rest else block
                whole = len(block) - len(block) % voxel
                rest = block[whole:]
                yield np.frombuffer(block, dtype=voxels.dtype, count=whole // voxels.dtype.itemsize)
        except DAMAGE as error:
            raise damaged(path, cause(error)) from None


def _check_sizes(voxels: VoxelData) -> None:
    """Compare the stated size with what each file can hold."""
    expected = voxels.skipped + voxels.nbytes // len(voxels.files)
    for path in voxels.files:
        try:
            check_file(path)
            found = path.stat().st_size - (voxels.start or 0)
        except OSError as error:
            raise damaged(voxels.name, error) from None
        if voxels.encoding == "text":
            possible = found  # no number takes less than a digit and a space
            expected = 2 * voxels.size - 1
        else:
            possible = {"raw": found, "deflate": found * LARGEST_RATIO}.get(voxels.encoding, expected)
        if possible < expected:
            raise _too_short(path, expected, found, voxels.encoding)
        if voxels.encoding == "raw" and voxels.start is not None and found > expected + PADDING:
            raise _too_long(path, expected)
        if voxels.encoding == "raw" and not voxels.padded and found > expected:
            _check_padding(path, expected, found - expected)
        if voxels.encoding == "text" and found > LONGEST_NUMBER * voxels.size + PADDING:
            raise ImageError(
                f"expected {voxels.size} numbers in {path}, found {found} bytes of text; convert it again"
            )


def _check_padding(path: Path, expected: int, surplus: int) -> None:
    """Refuse bytes beside the voxels of a file of their own, unless it is plain that they lie behind them.

    If they lie in front, all voxels are shifted. Padding is zero, and ends where the voxels do; a background
    of zeros at the end of voxels goes on in front of that place.
    """
    with path.open("rb") as file:
        file.seek(max(0, expected - surplus))
        before = file.read(min(expected, surplus))
        after = file.read(surplus)
    if any(after) or not any(before[-_EVIDENCE:]):
        raise ImageError(
            f"expected {expected} bytes of voxels in {path}, found {surplus} more, in front of them or "
            "behind; state in the header how many bytes to skip (HeaderSize, or byte skip in NRRD: 0, or -1 "
            "if the voxels end the file)"
        )


def _too_short(path: Path, expected: int, found: int, encoding: DataEncoding) -> ImageError:
    if encoding == "raw":
        return ImageError(
            f"expected {expected} bytes of voxels in {path}, found {max(found, 0)}: the file is truncated; "
            "copy it again"
        )
    return ImageError(
        f"expected {expected} bytes of voxels in {path}, found {max(found, 0)} bytes of "
        f"{'text' if encoding == 'text' else 'compressed data'}, which cannot hold them; copy it again"
    )


def _too_long(path: Path, expected: int) -> ImageError:
    return ImageError(
        f"expected {expected} bytes of voxels in {path}, found more: its header states another size or voxel "
        "type than its data have; convert it again"
    )


def _exactly(path: Path, voxels: VoxelData, expected: int) -> Iterator[bytes]:
    """Yield the stated bytes of a file's voxels, and check that no more follow them."""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(size - expected if voxels.start is None else voxels.start)
        raw = voxels.encoding == "raw"
        blocks = _raw(file, expected + PADDING + 1) if raw else _inflated(file, voxels.encoding)
        found, ending, surplus = -voxels.skipped, b"", b""
        for block in blocks:
            inside = block[max(0, -found) : max(0, expected - found)]
            found += len(block)
            if inside:
                ending = (ending + inside[-_EVIDENCE:])[-_EVIDENCE:]
                yield inside
            if found >= expected:
                surplus = block[len(block) - (found - expected) :]
                break
        if found < expected:
            raise _too_short(path, expected, found, "raw")
        # The checksum lies behind the last voxel.
        last = file.tell() + MOST_AFTER
        while len(surplus) <= PADDING and (raw or file.tell() <= last):
            after = next(blocks, None)
            if after is None:
                if _may_be_voxels(surplus, ending, voxels):
                    break
                return
            surplus += after
        raise _too_long(path, expected)


def _may_be_voxels(surplus: bytes, ending: bytes, voxels: VoxelData) -> bool:
    """Return whether bytes behind the voxels may be voxels too, and the header states too few or small ones.

    An axis that is stated too short leaves a face of the volume at least. As much is padding only if it is
    zero and the voxels in front of it are not, as a background would go on.
    """
    k, j, i = voxels.shape
    face = min(k * j, j * i, k * i) * voxels.dtype.itemsize * voxels.layers
    return len(surplus) >= face and (any(surplus) or not any(ending))


def _raw(file: BufferedReader, size: int) -> Iterator[bytes]:
    while size > 0 and (block := file.read(min(size, _PART))):
        size -= len(block)
        yield block


def _inflated(file: BufferedReader, encoding: DataEncoding) -> Iterator[bytes]:
    """Yield decompressed blocks, some of them empty; streams that follow each other count as one.

    Raises:
        EOFError, OSError, zlib.error: If the data are damaged or end before their checksum.
    """
    # 32 more than the largest window: the header tells zlib from gzip.
    begin: Callable[[], Any] = bz2.BZ2Decompressor if encoding == "bzip2" else lambda: zlib.decompressobj(47)
    magic = b"BZh" if encoding == "bzip2" else b"\x1f\x8b"
    packed = file.read(_BLOCK)
    if not packed:
        raise EOFError("it has no data")
    while packed:
        decoder = begin()
        while not decoder.eof:
            needs_input = decoder.needs_input if encoding == "bzip2" else not packed
            if needs_input and not packed:
                packed = file.read(_BLOCK)
                if not packed:
                    raise EOFError("its compressed data end early")
            yield decoder.decompress(packed, _PART)
            packed = b"" if encoding == "bzip2" else decoder.unconsumed_tail
        packed = decoder.unused_data
        packed += file.read(_BLOCK) if len(packed) < len(magic) else b""
        if not packed.startswith(magic):
            return
