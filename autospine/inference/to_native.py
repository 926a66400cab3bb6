"""From finished scores on the prepared grid to scores on the input's own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from autospine.core.geometry import Box
from autospine.core.types import Shape3
from autospine.inference.slab import Piece
from autospine.inference.tiles import Layout
from autospine.preprocessing.resample import LinearAxis, Neighbours

CACHED_BYTES = 4 << 20
"""Scores of one class that are computed at a time: they stay in the processor's cache."""

THRESHOLD = 0.5
"""A voxel whose probability is larger lies in a region."""


@dataclass(frozen=True, kw_only=True)
class NativePiece:
    """What a piece determines of the input's grid; scores are interpolated when they are asked for."""

    box: Box
    """In voxels of the (cropped) input; empty where the piece determines nothing."""

    _axes: tuple[LinearAxis, LinearAxis, LinearAxis]
    _scores: Float[Tensor, "K s p l"]
    _first: Shape3

    @property
    def channels(self) -> int:
        """Classes or regions."""
        return len(self._scores)

    def to(self, device: torch.device) -> "NativePiece":
        """The same on another device."""
        return replace(self, _scores=self._scores.to(device))

    def scores(self, channel: int, rows: slice) -> Float[Tensor, "s p l"]:
        """One channel's scores in some of the rows."""
        _, columns, along = self.box.slices
        values = self._scores[channel]
        for axis, outputs in enumerate((rows, columns, along)):
            values = self._axes[axis].apply(values, axis, self._first[axis], outputs)
        return values

    def bands(self, step: int) -> Iterator[slice]:
        """The rows in portions of at most `step`."""
        first, last = self.box.start[0], self.box.stop[0]
        for start in range(first, last, step):
            yield slice(start, min(start + step, last))

    def winners(self) -> UInt8[Tensor, "s p l"]:
        """The channel with the largest score per voxel, the lowest where several tie.

        Interpolated scores are means of those around a voxel: a class that is the largest at all of these is
        the largest at the voxel. So only voxels between inputs of different classes, a few in a hundred, are
        interpolated at all.
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
        """Along each axis, the inputs around each voxel of the box, counted from the first that is held."""
        found = []
        for axis, outputs, first in zip(self._axes, self.box.slices, self._first, strict=True):
            lower, upper, share = (part.to(self._scores.device) for part in axis.neighbours(outputs))
            found.append(Neighbours(lower=lower - first, upper=upper - first, share=share))
        return found

    def _interpolated(
        self, voxels: Int64[Tensor, "n 3"], around: Sequence[Neighbours]
    ) -> Float[Tensor, "K n"]:
        """Every channel's score at some voxels of the box."""
        total = self._scores.new_zeros((self.channels, len(voxels)))
        pairs = [
            ((lower[at], 1 - share[at]), (upper[at], share[at]))
            for (lower, upper, share), at in zip(around, voxels.unbind(1), strict=True)
        ]
        for (s, s_share), (p, p_share), (left, left_share) in product(*pairs):
            total.addcmul_(self._scores[:, s, p, left], s_share * p_share * left_share)
        return total

    def inside(self) -> Bool[Tensor, "K s p l"]:
        """Which voxels lie in which region."""
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
    """The channel with the largest score per voxel, the lowest where several tie."""
    best = scores[0].clone()
    winner = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for channel in range(1, len(scores)):
        winner.masked_fill_(scores[channel] > best, channel)
        torch.maximum(best, scores[channel], out=best)
    return winner


def seam_bytes(layout: Layout, channels: int) -> int:
    """Memory of a `NativeGrid`: 4 x classes x length x (the seam of a row + a quarter of a tile)."""
    depth, width, _ = layout.tile
    return 4 * channels * layout.extent.shape[2] * (layout.shape[1] + depth * width // 4)


class NativeGrid:
    """The way back from a prepared image to the (cropped) input, for pieces in the slab's order.

    Interpolation between two pieces needs the last row and the last column of the earlier one; these seams
    are kept.

    Args:
        prepared: voxels of the prepared image.
        native: voxels of the cropped input.
        covered: the part of the prepared image that pieces come from.
    """

    def __init__(self, prepared: Shape3, native: Shape3, covered: Box) -> None:
        self._start = covered.start
        s, p, left = (LinearAxis(*sizes) for sizes in zip(prepared, native, self._start, strict=True))
        self._axes = (s, p, left)
        self._columns = prepared[1]
        self._row: Tensor | None = None
        self._column: Tensor | None = None

    def refine(self, piece: Piece) -> NativePiece:
        """What a piece and the seams before it determine."""
        s, p, left = (axis.ready(inputs) for axis, inputs in zip(self._axes, piece.box.slices, strict=True))
        sewn = not (self._axes[0].same and self._axes[1].same)
        scores = self._sewn(piece) if sewn else piece.scores
        rows, columns, first = (b - n for b, n in zip(piece.box.stop, scores.shape[1:], strict=True))
        return NativePiece(
            box=Box(start=(s.start, p.start, left.start), stop=(s.stop, p.stop, left.stop)),
            _axes=self._axes,
            _scores=scores,
            _first=(rows, columns, first),
        )

    def _sewn(self, piece: Piece) -> Tensor:
        """The piece with the row and the column before it, where there are any."""
        scores, (_, columns, _) = piece.scores, piece.box.slices
        n_classes, height, width, length = scores.shape
        if self._row is None:
            self._row = scores.new_empty((n_classes, 1, self._columns, length))
        above, before = (int(a > b) for a, b in zip(piece.box.start[:2], self._start[:2], strict=True))
        sewn = scores.new_empty((n_classes, height + above, width + before, length))
        sewn[:, above:, before:] = scores
        if above:
            sewn[:, :1, before:] = self._row[:, :, columns]
        if before and self._column is not None:
            sewn[:, :, :1] = self._column
        column = sewn[:, :, -1:].clone()  # If there is no memory for it, the seams are still those before.
        self._row[:, :, columns] = scores[:, -1:]
        self._column = column
        return sewn
