"""Resampling of finished scores from the prepared image's grid to the input's own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from autospine.core.geometry import Box, triple
from autospine.core.types import Shape3
from autospine.inference.slab import Piece
from autospine.inference.tiles import TileGrid
from autospine.preprocessing.resample import LinearAxis, Neighbours

CACHED_BYTES = 4 << 20
"""Scores of one class that are computed at a time: they stay in the processor's cache."""

THRESHOLD = 0.5
"""Probability above which a voxel lies in a region."""


@dataclass(frozen=True, kw_only=True)
class NativePiece:
    """The part of the input's grid that a piece determines; scores are interpolated when they are read."""

    box: Box
    """Position in voxels of the (cropped) input; empty where the piece determines nothing."""

    _axes: tuple[LinearAxis, LinearAxis, LinearAxis]
    _scores: Float[Tensor, "K s p l"]
    """Scores on the prepared grid, with the halo that interpolation needs."""

    _first: Shape3
    """Voxel of the prepared image at which `_scores` begin."""

    @property
    def channels(self) -> int:
        """Number of classes or regions."""
        return len(self._scores)

    def to(self, device: torch.device) -> "NativePiece":
        """Return the same part on another device."""
        return replace(self, _scores=self._scores.to(device))

    def scores(self, channel: int, rows: slice) -> Float[Tensor, "s p l"]:
        """Interpolate one channel's scores in some of the rows."""
        _, columns, along = self.box.slices
        values = self._scores[channel]
        for axis, outputs in enumerate((rows, columns, along)):
            values = self._axes[axis].apply(values, axis, self._first[axis], outputs)
        return values

    def bands(self, step: int) -> Iterator[slice]:
        """Split the rows into portions of at most `step`."""
        first, last = self.box.start[0], self.box.stop[0]
        for start in range(first, last, step):
            yield slice(start, min(start + step, last))

    def argmax(self) -> UInt8[Tensor, "s p l"]:
        """Return the channel with the largest score per voxel, the lowest where several tie.

        An interpolated score is a weighted mean of those around the voxel: a class whose score is the largest
        at all of these has the largest at the voxel. So only voxels between inputs of different classes, a
        few in a hundred, are interpolated at all.
        """
        least = most = _largest(self._scores)
        around = self._around()
        for axis, (lower, upper, _) in enumerate(around):
            least = torch.minimum(least.index_select(axis, lower), least.index_select(axis, upper))
            most = torch.maximum(most.index_select(axis, lower), most.index_select(axis, upper))
        voxels = (least != most).nonzero()
        for part in torch.split(voxels, max(1, CACHED_BYTES // (4 * self.channels))):
            least[part.unbind(1)] = self._interpolated(part, around).argmax(0).byte()
        return least

    def _around(self) -> list[Neighbours]:
        """Return the inputs around each voxel of the box along each axis, counted from the first held one."""
        neighbours = []
        for axis, outputs, first in zip(self._axes, self.box.slices, self._first, strict=True):
            lower, upper, share = (part.to(self._scores.device) for part in axis.neighbours(outputs))
            neighbours.append(Neighbours(lower=lower - first, upper=upper - first, share=share))
        return neighbours

    def _interpolated(
        self, voxels: Int64[Tensor, "n 3"], around: Sequence[Neighbours]
    ) -> Float[Tensor, "K n"]:
        """Interpolate every channel's score at some voxels of the box."""
        total = self._scores.new_zeros((self.channels, len(voxels)))
        pairs = [
            ((lower[at], 1 - share[at]), (upper[at], share[at]))
            for (lower, upper, share), at in zip(around, voxels.unbind(1), strict=True)
        ]
        for (s, s_share), (p, p_share), (left, left_share) in product(*pairs):
            total.addcmul_(self._scores[:, s, p, left], s_share * p_share * left_share)
        return total

    def above_threshold(self) -> Bool[Tensor, "K s p l"]:
        """Return which voxels lie in which region."""
        out = torch.zeros((self.channels, *self.box.shape), dtype=torch.bool, device=self._scores.device)
        for rows in self._cached_bands():
            for channel in range(self.channels):
                out[channel, self._within(rows)] = self.scores(channel, rows) > THRESHOLD
        return out

    def _cached_bands(self) -> Iterator[slice]:
        _, columns, length = self.box.shape
        return self.bands(max(1, CACHED_BYTES // max(1, 4 * columns * length)))

    def _within(self, rows: slice) -> slice:
        return slice(rows.start - self.box.start[0], rows.stop - self.box.start[0])


def _largest(scores: Float[Tensor, "K s p l"]) -> UInt8[Tensor, "s p l"]:
    """Return the channel with the largest score per voxel, the lowest where several tie."""
    best = scores[0].clone()
    largest = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for channel in range(1, len(scores)):
        largest.masked_fill_(scores[channel] > best, channel)
        torch.maximum(best, scores[channel], out=best)
    return largest


def halo_bytes(tile_grid: TileGrid, channels: int) -> int:
    """Return the memory of a `NativeGrid`: its halo, and a piece of a quarter of a tile padded with it.

    These are 4 bytes x classes x length x (width of the image + depth x width of a tile / 4).
    """
    depth, width, _ = tile_grid.tile
    return 4 * channels * tile_grid.extent.shape[2] * (tile_grid.shape[1] + depth * width // 4)


class NativeGrid:
    """Resampler from a prepared image to the (cropped) input, for pieces in the slab's order.

    Interpolation between two pieces needs the last row and the last column of the earlier one. They are kept
    as a halo, with which the later piece is padded.

    Args:
        prepared: Voxels of the prepared image.
        native: Voxels of the cropped input.
        covered: Part of the prepared image that the pieces come from.
    """

    def __init__(self, prepared: Shape3, native: Shape3, covered: Box) -> None:
        self._start = covered.start
        self._axes = triple(LinearAxis(*sizes) for sizes in zip(prepared, native, self._start, strict=True))
        self._columns = prepared[1]
        self._halo_row: Float[Tensor, "K 1 P l"] | None = None
        self._halo_column: Float[Tensor, "K s 1 l"] | None = None

    def resample(self, piece: Piece) -> NativePiece:
        """Return the part of the input's grid that a piece and its halo determine."""
        ready = [axis.ready(inputs) for axis, inputs in zip(self._axes, piece.box.slices, strict=True)]
        # Without interpolation along S and P no voxel depends on two pieces.
        needs_halo = not (self._axes[0].same and self._axes[1].same)
        scores = self._padded_with_halo(piece) if needs_halo else piece.scores
        return NativePiece(
            box=Box.of(ready),
            _axes=self._axes,
            _scores=scores,
            _first=triple(b - n for b, n in zip(piece.box.stop, scores.shape[1:], strict=True)),
        )

    def _padded_with_halo(self, piece: Piece) -> Float[Tensor, "K s p l"]:
        """Return a piece's scores behind the row and the column before it, where there are any."""
        scores, (_, columns, _) = piece.scores, piece.box.slices
        n_classes, height, width, length = scores.shape
        if self._halo_row is None:
            self._halo_row = scores.new_empty((n_classes, 1, self._columns, length))
        above, before = (int(a > b) for a, b in zip(piece.box.start[:2], self._start[:2], strict=True))
        padded = scores.new_empty((n_classes, height + above, width + before, length))
        padded[:, above:, before:] = scores
        if above:
            padded[:, :1, before:] = self._halo_row[:, :, columns]
        if before and self._halo_column is not None:
            padded[:, :, :1] = self._halo_column
        # If there is no memory for the next halo, the present one is still whole, and the piece can be
        # resampled again in RAM.
        column = padded[:, :, -1:].clone()
        self._halo_row[:, :, columns] = scores[:, -1:]
        self._halo_column = column
        return padded
