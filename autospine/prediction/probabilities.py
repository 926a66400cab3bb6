"""Class probabilities on disk, on the grid of the label map.

One Blosc2 array of 8 bits, (classes, and the axes of the label map as it is stored). A chunk is one class in
some rows, so that a class, or a box of it, is read without the rest.
"""

import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, prod
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from torch import Tensor

from autospine.core.errors import DatasetError, FormatError, WorkspaceError
from autospine.core.geometry import Box, Grid, canonical_grid, orientation
from autospine.core.labels import LabelSpace
from autospine.core.types import Shape3
from autospine.inference.predictor import TileJob
from autospine.inference.slab import row_bands
from autospine.storage.arrays import create_array, open_array
from autospine.storage.serialization import from_json, stored_as, to_json

ENDING = "_probabilities.b2nd"
"""Ending of the file's name after that of the case."""

METADATA = "autospine"
"""Name under which the array's description is stored in its metadata."""

FORMAT_VERSION = 1

STEPS = 255
"""Number of steps between 0 and 1 that probabilities are rounded to; they are off by 1/510 at most."""

CHUNK_BYTES = 4 << 20
"""Largest size of a chunk in bytes, but at least one row."""

LEAST_SHARE = 0.002
"""Smallest share of the uncompressed size that compressed probabilities may need."""

AxisIndex = int | slice | EllipsisType
ArrayIndex = AxisIndex | tuple[AxisIndex, ...]
"""An index as NumPy takes it between brackets: `np.s_[10:20, :, 5]`."""


@stored_as("the description of probabilities", largest=2**20)
@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """Description of a file of probabilities, stored in it."""

    format_version: int
    classes: tuple[str, ...]
    """Names along the first axis: background and the classes, or the regions."""

    integers: tuple[int, ...]
    """Label values that stand for them in the label map."""

    regions: bool
    """Whether they overlap, so that their probabilities do not sum to one."""

    steps: int
    """Stored value of probability 1."""

    grid: Grid
    """Grid of the label map."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probabilities:
    """Probabilities of one case, which are read from disk when they are asked for."""

    path: Path
    classes: tuple[str, ...]
    """Background and the classes, or the regions, which may overlap."""

    integers: tuple[int, ...]
    """Label values that stand for them in the label map."""

    grid: Grid
    """Grid of the label map."""

    _steps: int
    _array: Any = field(repr=False)

    def read(self, name: str, region: ArrayIndex = ...) -> Float32[np.ndarray, "..."]:
        """Read the probabilities of one class, in [0, 1].

        Args:
            name: Name of the class.
            region: Part of the label map's array in the order of SimpleITK, as NumPy is indexed; by default
                all.

        Raises:
            DatasetError: If there is no such class.
            FormatError: If the file is damaged.
        """
        if name not in self.classes:
            raise DatasetError(f"expected one of {', '.join(self.classes)} in {self.path}, found {name!r}")
        parts = region if isinstance(region, tuple) else (region,)
        with _reading(self.path):
            stored = np.asarray(self._array[(self.classes.index(name), *parts)])
        return stored.astype(np.float32) / np.float32(self._steps)


def read_probabilities(path: str | Path) -> Probabilities:
    """Open a file that `autospine predict --save-probabilities` has written.

    Args:
        path: Path of `CASE_probabilities.b2nd`.

    Raises:
        FormatError: If it is missing, damaged, of another kind or of another version.
    """
    path = Path(path)
    with _reading(path):
        array = open_array(path, "blosc2")
        text = str(array.schunk.vlmeta[METADATA])
    described = from_json(text, Description, str(path))
    if described.format_version != FORMAT_VERSION:
        raise FormatError(
            f"expected format_version {FORMAT_VERSION} in {path}, found {described.format_version}; "
            "predict again, or use the AutoSpine version that made it"
        )
    return Probabilities(
        path=path,
        classes=described.classes,
        integers=described.integers,
        grid=described.grid,
        _steps=described.steps,
        _array=array,
    )


class ProbabilityWriter:
    """Writes the scores that `Predictor.predict` hands over, each chunk once it is complete.

    Only rows that are not complete yet are held, in 8 bits.

    Args:
        path: New file.
        labels: Label space of the model.
        stored: Grid of the label map's file.

    Raises:
        WorkspaceError: Here and later, if it cannot be written.
    """

    def __init__(self, path: Path, labels: LabelSpace, stored: Grid) -> None:
        self._path, self._regions = path, labels.regions
        self._orientation = orientation(stored)
        self._shape = canonical_grid(stored).shape
        height = _chunk_rows(self._shape)
        self._blocks = deque(pairwise(_edges(self._shape[0], height, self._orientation.flipped[0])))
        chunks = list(stored.shape)
        chunks[self._orientation.order[0]] = height
        self._first, self._rows = 0, self._background(labels.n_channels, 0)
        with _writing(path):
            shape = (labels.n_channels, *stored.shape)
            self._array = create_array(path, shape, (1, *chunks), np.uint8)
            self._array.schunk.vlmeta[METADATA] = to_json(_describe(labels, stored))

    def take(self, box: Box, channel: int, scores: Tensor) -> None:
        """Take a channel's scores (s, p, l) in a box of the canonical grid.

        Boxes come in order along S; what none covers is background.
        """
        self._complete(box.start[0])
        self._reach(box.stop[0])
        s, p, left = box.slices
        rows = slice(s.start - self._first, s.stop - self._first)
        self._rows[channel, rows, p, left] = scores.mul(STEPS).round_().byte().cpu().numpy()

    def finish(self) -> None:
        """Write the remaining rows, and make sure that the file is whole."""
        self._complete(self._shape[0])
        del self._array
        with _writing(self._path):
            open_array(self._path, "blosc2")

    def _complete(self, row: int) -> None:
        """Write the chunks that end before or at a row."""
        while self._blocks and self._blocks[0][1] <= row:
            start, stop = self._blocks.popleft()
            self._reach(stop)
            self._write(start, stop)
            self._first, self._rows = stop, self._rows[:, stop - start :]
        if self._rows.base is not None:  # Rows that have been written are not held any longer.
            self._rows = self._rows.copy()

    def _reach(self, row: int) -> None:
        """Hold the rows up to this one; the new ones are background."""
        held = self._rows.shape[1]
        if row - self._first > held:
            rows = self._background(len(self._rows), row - self._first)
            rows[:, :held] = self._rows
            self._rows = rows

    def _write(self, start: int, stop: int) -> None:
        turned = self._orientation
        where = [slice(None)] * 3
        where[turned.order[0]] = (
            slice(self._shape[0] - stop, self._shape[0] - start) if turned.flipped[0] else slice(start, stop)
        )
        with _writing(self._path):
            for channel, part in enumerate(turned.to_stored(self._rows[:, : stop - start])):
                self._array[channel : channel + 1, *where] = np.ascontiguousarray(part)[np.newaxis]

    def _background(self, channels: int, rows: int) -> UInt8[np.ndarray, "K rows P L"]:
        values = np.zeros((channels, rows, *self._shape[1:]), dtype=np.uint8)
        if not self._regions:
            values[0] = STEPS
        return values


def check_room(target: Path, labels: LabelSpace, shape: Shape3) -> None:
    """Refuse to begin if the disk is as good as full.

    Raises:
        WorkspaceError: If the probabilities surely will not fit.
    """
    free = shutil.disk_usage(target.parent).free
    if free < LEAST_SHARE * stored_bytes(labels, shape):
        raise WorkspaceError(
            f"expected room for {target}, up to {stored_bytes(labels, shape) / 1e6:.0f} MB, found "
            f"{free / 1e6:.0f} MB; free some space, or leave out --save-probabilities"
        )


def stored_bytes(labels: LabelSpace, shape: Shape3) -> int:
    """Return the size of a volume's probabilities on disk before compression."""
    return labels.n_channels * prod(shape)


def held_bytes(labels: LabelSpace, job: TileJob) -> int:
    """Return the memory of the rows that a writer holds: those that become final together, and a chunk."""
    prepared = job.preparation
    most = max(band.final - band.start for band in row_bands(job.tile_grid))
    final = ceil(most * prepared.crop.shape[0] / prepared.shape[0]) + 1
    rows = min(job.shape[0], final + _chunk_rows(job.shape))
    return stored_bytes(labels, (rows, *job.shape[1:]))


def _describe(labels: LabelSpace, stored: Grid) -> Description:
    background = 0 if labels.regions else 1
    return Description(
        format_version=FORMAT_VERSION,
        classes=(*("background",) * background, *labels.names),
        integers=(*(0,) * background, *labels.painted),
        regions=labels.regions,
        steps=STEPS,
        grid=stored,
    )


def _chunk_rows(shape: Shape3) -> int:
    """Return the rows of a chunk along S."""
    return min(shape[0], max(1, CHUNK_BYTES // (shape[1] * shape[2])))


def _edges(rows: int, height: int, flipped: bool) -> list[int]:
    """Return the rows at which chunks meet along S, whichever way the stored axis runs."""
    edges = [*range(0, rows, height), rows]
    return [rows - edge for edge in reversed(edges)] if flipped else edges


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the errors of a full disk into one sentence that says what to do."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        free = shutil.disk_usage(path.parent).free / 1e6
        raise WorkspaceError(
            f"expected to write probabilities to {path.parent}, found {error} with {free:.0f} MB free; "
            "free some space, or leave out --save-probabilities"
        ) from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged file into one sentence."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise FormatError(
            f"expected probabilities of --save-probabilities in {path}, found {error}; predict again"
        ) from None
