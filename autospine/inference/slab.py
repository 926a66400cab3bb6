"""A rolling slab of class scores: what tiles are still going to touch, and nothing else.

Tiles come in order along S, then P, then L. Rows of the image (along S) and, within them, columns
(along P) are finished as soon as no later tile touches them; they are handed out and forgotten. Between
two rows of tiles only what both touch has to be kept for the whole width of the image, and beyond that
no more than one tile's rows and columns.
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
from autospine.inference.tiles import Layout, importance


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Finished scores of some rows (along S) and columns (along P), as far as the tiles reach along L."""

    box: Box
    """In voxels of the prepared image."""

    scores: Float[Tensor, "K s p l"]
    """Means over tiles, a view that is valid until the next piece is asked for."""

    def to(self, device: torch.device) -> "Piece":
        """The same on another device."""
        return replace(self, scores=self.scores.to(device))


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """Rows or columns of the prepared image that are worked on together."""

    tiles: tuple[int, ...]
    """Starts of the tiles that touch them; none where all have come before."""

    start: int
    final: int
    """Where those begin that a later band touches as well."""

    stop: int

    @property
    def size(self) -> int:
        """All of them."""
        return self.stop - self.start

    @property
    def shared(self) -> int:
        """Those that a later band touches as well."""
        return self.stop - self.final


class Slab:
    """Sums of weighted scores of the tiles of one band of rows and one of columns.

    One channel more than there are classes holds the sum of the weights. A band of rows and one of columns
    meet in four parts:

                     columns: final    shared with the next
        rows: final       handed out   moved to the start, for the next columns
              shared       put aside   moved to the start

    What is put aside has the whole width; the next row of tiles takes it back, column by column.

    Args:
        layout: where the tiles lie.
        channels: classes or regions.
        regions: what no tile has covered is background: the first channel, or none of the regions.
        device: where the sums are kept.
        wide: finish whole rows only, at the price of holding a tile's depth for the whole width.
    """

    def __init__(
        self, layout: Layout, channels: int, *, regions: bool, device: torch.device, wide: bool = False
    ) -> None:
        self.rows, self.columns = row_bands(layout), column_bands(layout, wide=wide)
        self._layout, self._regions, self._wide = layout, regions, wide
        self._along = layout.extent.slices[2]
        present, kept = _cross_sections(self.rows, self.columns)
        length = self._along.stop - self._along.start
        self._present = torch.zeros((channels + 1, *present, length), device=device)
        self._kept = torch.zeros((channels + 1, *kept, length), device=device)
        self._weights = importance(layout.tile).to(device)
        self._at = self.rows[0], self.columns[0]
        self._above = 0

    @property
    def device(self) -> torch.device:
        """Where the sums are kept."""
        return self._present.device

    def to(self, device: torch.device) -> None:
        """Move the sums, whatever has been added so far included."""
        self._present, self._kept = self._present.to(device), self._kept.to(device)
        self._weights = self._weights.to(device)

    def begin(self, rows: Band, columns: Band) -> None:
        """Get ready for the tiles of two bands, the next ones in order."""
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
        """Add the scores of a tile of the present bands, on any device, as far as the layout counts them."""
        counted, (rows, columns) = self._layout.counted(start), self._at
        weights = self._weights[counted.counted_from(start).slices]
        origin = (rows.start, columns.start, self._along.start)
        target = self._present[:, *counted.counted_from(origin).slices]
        target[:-1].addcmul_(scores.to(target.device), weights)
        target[-1].add_(weights)

    def pieces(self) -> Iterator[Piece]:
        """The means of what no later tile touches, in order along P; then the rest is put aside."""
        rows, columns = self._at
        for box in self._parts():
            yield Piece(box=box, scores=self._means(box))
        if len(self.columns) > 1:
            rest = self._present[:, rows.size - rows.shared : rows.size, : columns.size - columns.shared]
            self._kept[:, : rows.shared, self._held(columns.start, columns.final)] = rest
        else:
            _move(self._present, 1, rows.size - rows.shared, rows.shared)

    def _parts(self) -> Iterator[Box]:
        """What is final, in parts of a quarter of a tile across at most, whose copies take little memory."""
        rows, columns = self._at
        most = self._layout.tile[0] * self._layout.tile[1] / 4
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


def row_bands(layout: Layout) -> list[Band]:
    """Each row of tiles; the last one is finished in two, of which the second takes no more than is kept."""
    *before, last = _bands(layout, 0)
    kept = max((band.shared for band in before), default=0)
    if not 0 < kept < last.size:
        return [*before, last]
    middle = last.stop - kept
    return [*before, replace(last, final=middle), replace(last, tiles=(), start=middle)]


def column_bands(layout: Layout, *, wide: bool) -> list[Band]:
    """Each column of tiles, or all of them together."""
    bands = _bands(layout, 1)
    if not wide:
        return bands
    return [replace(bands[-1], tiles=layout.starts[1], start=bands[0].start)]


def slab_bytes(layout: Layout, channels: int, *, wide: bool = False) -> int:
    """Memory of a slab: 4 x (classes + 1) x length x (deepest x widest band + shared rows x the whole width).

    Where there is but one band of columns, what rows share lies in it.
    """
    sections = _cross_sections(row_bands(layout), column_bands(layout, wide=wide))
    return 4 * (channels + 1) * layout.extent.shape[2] * sum(s * p for s, p in sections)


def _bands(layout: Layout, axis: int) -> list[Band]:
    spans = [layout.span(axis, start) for start in layout.starts[axis]]
    finals = [*(span.start for span in spans[1:]), spans[-1].stop]
    return [
        Band(tiles=(tile,), start=span.start, final=final, stop=span.stop)
        for tile, span, final in zip(layout.starts[axis], spans, finals, strict=True)
    ]


def _cross_sections(rows: Sequence[Band], columns: Sequence[Band]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of the present bands, and of what is kept for the next rows."""
    present = max(band.size for band in rows), max(band.size for band in columns)
    if len(columns) == 1:
        return present, (0, 0)
    return present, (max(band.shared for band in rows), columns[-1].stop - columns[0].start)


def _cuts(band: Band, count: int) -> Iterator[tuple[int, int]]:
    """What is final of a band in so many parts, or as many as it has voxels."""
    cuts = np.linspace(band.start, band.final, min(count, band.final - band.start) + 1)
    return pairwise(round(cut) for cut in cuts)


def _move(sums: Tensor, axis: int, by: int, count: int) -> None:
    """Along an axis, move as many as `count` from where they lie to the start; by channel, to save memory."""
    for channel in sums:
        found = channel.narrow(axis - 1, by, count).clone()
        channel.narrow(axis - 1, 0, count).copy_(found)
