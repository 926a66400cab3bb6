"""A rolling slab of class scores, which holds only voxels that tiles are still going to touch.

Tiles come in order along S, then P, then L. Rows of the image (along S) and, within them, columns
(along P) are finished as soon as no later tile touches them; they are handed out and forgotten. Between
two rows of tiles, only the voxels that both touch have to be kept for the whole width of the image, and
beyond that no more than one tile's rows and columns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autospine.core.geometry import Box
from autospine.core.types import Shape3
from autospine.inference.tiles import TileGrid, gaussian_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Finished scores of some rows (along S) and columns (along P), as far as the tiles reach along L."""

    box: Box
    """Position in voxels of the prepared image."""

    scores: Float[Tensor, "K s p l"]
    """Weighted means over tiles, a view that is valid until the next piece is asked for."""

    def to(self, device: torch.device) -> "Piece":
        """Return the same piece on another device."""
        return replace(self, scores=self.scores.to(device))


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """Rows or columns of the prepared image that are accumulated together."""

    tiles: tuple[int, ...]
    """Starts of the tiles that touch the band; none if all of them have come before."""

    start: int
    final: int
    """First row or column that a later band touches as well."""

    stop: int

    @property
    def size(self) -> int:
        """Number of rows or columns."""
        return self.stop - self.start

    @property
    def shared(self) -> int:
        """Number of rows or columns that a later band touches as well."""
        return self.stop - self.final


class Slab:
    """Sums of weighted scores over the tiles of one band of rows and one band of columns.

    An additional channel holds the sum of the weights. A band of rows and a band of columns meet in four
    parts:

                     columns: final    shared with the next
        rows: final       handed out   moved to the start, for the next columns
              shared       put aside   moved to the start

    The part that is put aside has the whole width; the next row of tiles takes it back, column by column.

    Args:
        tile_grid: Positions of the tiles.
        channels: Number of classes or regions.
        regions: Whether channels are regions. Voxels that no tile has covered are background: they have the
            first class, or lie in no region.
        device: Device that the sums are kept on.
        wide: Whether only whole rows are finished, which takes a tile's depth for the image's whole width.
    """

    def __init__(
        self, tile_grid: TileGrid, channels: int, *, regions: bool, device: torch.device, wide: bool = False
    ) -> None:
        self.rows, self.columns = row_bands(tile_grid), column_bands(tile_grid, wide=wide)
        self.tile_grid, self._regions, self._wide = tile_grid, regions, wide
        self._along = tile_grid.extent.slices[2]
        present, kept = _cross_sections(self.rows, self.columns)
        length = self._along.stop - self._along.start
        self._present = torch.zeros((channels + 1, *present, length), device=device)
        self._kept = torch.zeros((channels + 1, *kept, length), device=device)
        self._weights = gaussian_weights(tile_grid.tile).to(device)
        self._at = self.rows[0], self.columns[0]
        self._above = 0

    @property
    def device(self) -> torch.device:
        """Device that the sums are kept on."""
        return self._present.device

    def to(self, device: torch.device) -> None:
        """Move the sums, with all that has been added so far, to another device."""
        self._present, self._kept = self._present.to(device), self._kept.to(device)
        self._weights = self._weights.to(device)

    def begin(self, rows: Band, columns: Band) -> None:
        """Make room for the tiles of the next band of rows and band of columns in order."""
        last_rows, last_columns = self._at
        known = 0
        if columns is not self.columns[0]:
            known = last_columns.shared
            _move(self._present, 2, last_columns.size - known, known)
        elif rows is not self.rows[0]:
            self._above = last_rows.shared
        self._at = rows, columns
        if len(self.columns) > 1:
            kept = self._kept[:, : self._above, self._held(columns.start + known, columns.stop)]
            self._present[:, : self._above, known : columns.size] = kept
        self._present[:, self._above : rows.size, known : columns.size] = 0

    def add(self, start: Shape3, scores: Float[Tensor, "K s p l"]) -> None:
        """Add a tile of the present bands.

        Args:
            start: First voxel of the tile.
            scores: Scores in the tile's valid region, on any device.
        """
        target, weights = self._place(start)
        target[:-1].addcmul_(scores.to(target.device), weights)
        target[-1].add_(weights)

    def add_background(self, start: Shape3) -> None:
        """Add a tile of the present bands that is background without doubt, and has not been run."""
        target, weights = self._place(start)
        if not self._regions:
            target[0].add_(weights)
        target[-1].add_(weights)

    def pieces(self) -> Iterator[Piece]:
        """Yield the means of all voxels that no later tile touches, in order along P; put the rest aside."""
        rows, columns = self._at
        for box in self._parts():
            yield Piece(box=box, scores=self._means(box))
        if len(self.columns) > 1:
            rest = self._present[:, rows.size - rows.shared : rows.size, : columns.size - columns.shared]
            self._kept[:, : rows.shared, self._held(columns.start, columns.final)] = rest
        else:
            _move(self._present, 1, rows.size - rows.shared, rows.shared)

    def _place(self, start: Shape3) -> tuple[Float[Tensor, "_ s p l"], Float[Tensor, "s p l"]]:
        """Return the sums in a tile's valid region, classes first and weights last, and its weights there."""
        valid, (rows, columns) = self.tile_grid.valid_region(start), self._at
        origin = (rows.start, columns.start, self._along.start)
        return (
            self._present[:, *valid.counted_from(origin).slices],
            self._weights[valid.counted_from(start).slices],
        )

    def _parts(self) -> Iterator[Box]:
        """Split the finished voxels into parts of at most a quarter of a tile across.

        Copies of such parts, as resampling makes them, take little memory.
        """
        rows, columns = self._at
        most = self.tile_grid.tile[0] * self.tile_grid.tile[1] / 4
        count = ceil((rows.final - rows.start) * (columns.final - columns.start) / most)
        if self._wide:
            parts = [(cut, (columns.start, columns.final)) for cut in _cuts(rows, count)]
        else:
            parts = [((rows.start, rows.final), cut) for cut in _cuts(columns, count)]
        for s, p in parts:
            yield Box(start=(s[0], p[0], self._along.start), stop=(s[1], p[1], self._along.stop))

    def _means(self, box: Box) -> Float[Tensor, "K s p l"]:
        rows, columns = self._at
        sums = self._present[:, *box.counted_from((rows.start, columns.start, self._along.start)).slices]
        weights = sums[-1]
        empty = weights == 0
        weights.masked_fill_(empty, 1)
        scores = sums[:-1].div_(weights)
        if not self._regions:
            scores[0].masked_fill_(empty, 1)
        return scores

    def _held(self, start: int, stop: int) -> slice:
        first = self.columns[0].start
        return slice(start - first, stop - first)


def row_bands(tile_grid: TileGrid) -> list[Band]:
    """Return a band for each row of tiles.

    The last one is finished in two bands, of which the second is no larger than the rows that are kept.
    """
    *before, last = _bands(tile_grid, 0)
    kept = max((band.shared for band in before), default=0)
    if not 0 < kept < last.size:
        return [*before, last]
    middle = last.stop - kept
    return [*before, replace(last, final=middle), replace(last, tiles=(), start=middle)]


def column_bands(tile_grid: TileGrid, *, wide: bool) -> list[Band]:
    """Return a band for each column of tiles or, if only whole rows are finished, one for all of them."""
    bands = _bands(tile_grid, 1)
    if not wide:
        return bands
    return [replace(bands[-1], tiles=tile_grid.starts[1], start=bands[0].start)]


def slab_bytes(tile_grid: TileGrid, channels: int, *, wide: bool = False) -> int:
    """Return the memory of a slab.

    These are 4 bytes x (classes + 1) x length x (deepest x widest band + shared rows x the whole width). If
    there is only one band of columns, the shared rows lie in it.
    """
    sections = _cross_sections(row_bands(tile_grid), column_bands(tile_grid, wide=wide))
    return 4 * (channels + 1) * tile_grid.extent.shape[2] * sum(s * p for s, p in sections)


def _bands(tile_grid: TileGrid, axis: int) -> list[Band]:
    spans = [tile_grid.span(axis, start) for start in tile_grid.starts[axis]]
    finals = [*(span.start for span in spans[1:]), spans[-1].stop]
    return [
        Band(tiles=(tile,), start=span.start, final=final, stop=span.stop)
        for tile, span, final in zip(tile_grid.starts[axis], spans, finals, strict=True)
    ]


def _cross_sections(rows: Sequence[Band], columns: Sequence[Band]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows and columns of the present bands, and those of the part that is put aside."""
    present = max(band.size for band in rows), max(band.size for band in columns)
    if len(columns) == 1:
        return present, (0, 0)
    return present, (max(band.shared for band in rows), columns[-1].stop - columns[0].start)


def _cuts(band: Band, count: int) -> Iterator[tuple[int, int]]:
    """Split a band's finished rows or columns into at most `count` ranges."""
    cuts = np.linspace(band.start, band.final, min(count, band.final - band.start) + 1)
    return pairwise(round(cut) for cut in cuts)


def _move(sums: Tensor, axis: int, by: int, count: int) -> None:
    """Move `count` rows or columns that begin at `by` to the start of an axis.

    Source and target may overlap, so that a copy is needed; it is made channel by channel to save memory.
    """
    for channel in sums:
        moved = channel.narrow(axis - 1, by, count).clone()
        channel.narrow(axis - 1, 0, count).copy_(moved)
