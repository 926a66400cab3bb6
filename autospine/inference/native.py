"""From finished scores on the prepared grid to scores on the input's own."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from autospine.inference.slab import Piece
from autospine.preprocessing import LinearAxis
from autospine.types import Shape3

CACHED_BYTES = 4 << 20
"""Scores of one class that are computed at a time: they stay in the processor's cache."""

THRESHOLD = 0.5
"""A voxel whose probability is larger lies in a region."""


@dataclass(frozen=True, kw_only=True)
class NativePiece:
    """What a piece determines of the input's grid; scores are interpolated when they are asked for."""

    rows: slice
    """Along S, in voxels of the (cropped) input."""

    columns: slice
    """Along P."""

    shape: Shape3
    """Voxels: rows, columns, and all along L."""

    _axes: tuple[LinearAxis, LinearAxis, LinearAxis]
    _scores: Float[Tensor, "K s p l"]
    _first: tuple[int, int]

    @property
    def channels(self) -> int:
        """Classes or regions."""
        return len(self._scores)

    def scores(self, channel: int, rows: slice) -> Float[Tensor, "s p l"]:
        """One channel's scores in some of the rows."""
        values = self._axes[0].apply(self._scores[channel], 0, self._first[0], rows)
        values = self._axes[1].apply(values, 1, self._first[1], self.columns)
        return self._axes[2].apply(values, 2, 0, slice(0, self.shape[2]))

    def bands(self, step: int) -> Iterator[slice]:
        """The rows in portions of at most `step`."""
        for start in range(self.rows.start, self.rows.stop, step):
            yield slice(start, min(start + step, self.rows.stop))

    def winners(self) -> UInt8[Tensor, "s p l"]:
        """The channel with the largest score per voxel, the lowest where several tie."""
        out = torch.zeros(self.shape, dtype=torch.uint8, device=self._scores.device)
        for rows in self._cached_bands():
            best = self.scores(0, rows).clone()
            winner = out[rows.start - self.rows.start : rows.stop - self.rows.start]
            for channel in range(1, self.channels):
                scores = self.scores(channel, rows)
                winner.masked_fill_(scores > best, channel)
                torch.maximum(best, scores, out=best)
        return out

    def inside(self) -> Bool[Tensor, "K s p l"]:
        """Which voxels lie in which region."""
        out = torch.zeros((self.channels, *self.shape), dtype=torch.bool, device=self._scores.device)
        for rows in self._cached_bands():
            here = slice(rows.start - self.rows.start, rows.stop - self.rows.start)
            for channel in range(self.channels):
                out[channel, here] = self.scores(channel, rows) > THRESHOLD
        return out

    def _cached_bands(self) -> Iterator[slice]:
        return self.bands(max(1, CACHED_BYTES // max(1, 4 * self.shape[1] * self.shape[2])))


class NativeGrid:
    """The way back from a prepared image to the (cropped) input, for pieces in the slab's order.

    Interpolation between two pieces needs the last row and the last column of the earlier one; these seams
    are kept.

    Args:
        prepared: voxels of the prepared image.
        native: voxels of the cropped input.
    """

    def __init__(self, prepared: Shape3, native: Shape3) -> None:
        s, p, left = (LinearAxis(a, b) for a, b in zip(prepared, native, strict=True))
        self._axes = (s, p, left)
        self._prepared, self._native = prepared, native
        self._row: Tensor | None = None
        self._column: Tensor | None = None

    def refine(self, piece: Piece) -> NativePiece:
        """What a piece and the seams before it determine."""
        rows = self._axes[0].ready(piece.rows)
        columns = self._axes[1].ready(piece.columns)
        shape = (rows.stop - rows.start, columns.stop - columns.start, self._native[2])
        scores, first = piece.scores, (piece.rows.start, piece.columns.start)
        if not (self._axes[0].same and self._axes[1].same):
            scores = self._sewn(piece)
            first = piece.rows.stop - scores.shape[1], piece.columns.stop - scores.shape[2]
        return NativePiece(
            rows=rows, columns=columns, shape=shape, _axes=self._axes, _scores=scores, _first=first
        )

    def _sewn(self, piece: Piece) -> Tensor:
        """The piece with the row and the column before it, where there are any."""
        scores = piece.scores
        if self._row is None:
            n_classes, _, _, length = scores.shape
            self._row = scores.new_empty((n_classes, 1, self._prepared[1], length))
        above, before = int(piece.rows.start > 0), int(piece.columns.start > 0)
        n_classes, height, width, length = scores.shape
        sewn = scores.new_empty((n_classes, height + above, width + before, length))
        sewn[:, above:, before:] = scores
        if above:
            sewn[:, :1, before:] = self._row[:, :, piece.columns]
        if before and self._column is not None:
            sewn[:, :, :1] = self._column
        self._row[:, :, piece.columns] = scores[:, -1:]
        self._column = sewn[:, :, -1:].clone()
        return sewn
