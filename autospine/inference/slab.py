"""A rolling slab of class scores: what tiles are still going to touch, and nothing else.

Tiles come in order along S, then P, then L. Rows of the image (along S) and, within them, columns
(along P) are finished as soon as no later tile touches them; they are handed out and forgotten. Between
two rows of tiles only the overlap has to be kept for the whole width of the image, and beyond that, for
the width of a single tile, the rest of the tile's depth.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from autospine.geometry import Box
from autospine.inference.tiles import Layout, importance
from autospine.types import Shape3


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
class TilePart:
    """Scores of some rows of a tile, as far as its layout counts them."""

    start: Shape3
    """The tile's."""

    rows: slice
    """Of the tile."""

    scores: Float[Tensor, "K s p l"]
    """On any device."""

    share: float = 1.0
    """Of the tile's scores: those of one of n networks are an nth."""


class Slab:
    """Sums of weighted scores around the present row of tiles.

    One channel more than there are classes holds the sum of the weights.

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
        self.wide = wide
        self._layout, self._regions = layout, regions
        depth, width, self._kept = layout.tile[0], _held_columns(layout, wide), kept_rows(layout)
        self._extent = layout.extent
        _, columns, length = self._extent.shape
        self._held = torch.zeros((channels + 1, self._kept, columns, length), device=device)
        self._fresh = torch.zeros((channels + 1, depth - self._kept, width, length), device=device)
        self._weights = importance(layout.tile).to(device)

    @property
    def device(self) -> torch.device:
        """Where the sums are kept."""
        return self._held.device

    def to(self, device: torch.device) -> None:
        """Move the sums, whatever has been added so far included."""
        self._held, self._fresh = self._held.to(device), self._fresh.to(device)
        self._weights = self._weights.to(device)

    def add(self, part: TilePart) -> None:
        """Add some of what counts of a tile of the present row."""
        start, rows = part.start, part.rows
        _, columns, along = self._layout.counted(start)
        scores = part.scores.to(self._held.device)
        _, at, first = (a - b for a, b in zip(start, self._extent.start, strict=True))
        for sums, above, across in (
            (self._held, 0, at),
            (self._fresh, self._kept, at if self.wide else 0),
        ):
            some = slice(max(rows.start, above), min(rows.stop, above + sums.shape[1]))
            if some.start >= some.stop:
                continue
            inside = (some, columns, along)
            target = sums[
                :, *(_moved(of, by) for of, by in zip(inside, (-above, across, first), strict=True))
            ]
            weights = self._weights[inside]
            target[:-1].addcmul_(scores[:, _moved(some, -rows.start)], weights, value=part.share)
            target[-1].add_(weights, alpha=part.share)

    def finished(self, row: int, columns: slice, step: int) -> Piece | None:
        """The means of the first `step` rows of the slab in these columns; None where they are no image.

        Args:
            row: where the slab starts along S.
            columns: along P, those that no later tile of this row touches.
            step: rows until the next row of tiles.
        """
        covered = Box(
            start=(row, columns.start, self._extent.start[2]),
            stop=(row + step, columns.stop, self._extent.stop[2]),
        )
        sums = self._held[:, :step, self._columns(columns)]
        weights = sums[-1]
        empty = weights == 0
        weights.masked_fill_(empty, 1)
        scores = sums[:-1].div_(weights)
        if not self._regions:
            scores[0].masked_fill_(empty, 1)
        start = tuple(max(a, 0) for a in covered.start)
        stop = tuple(min(b, n) for b, n in zip(covered.stop, self._layout.shape, strict=True))
        if any(a >= b for a, b in zip(start, stop, strict=True)):
            return None
        box = Box(start=(start[0], start[1], start[2]), stop=(stop[0], stop[1], stop[2]))
        inside = (slice(a - o, b - o) for a, b, o in zip(start, stop, covered.start, strict=True))
        return Piece(box=box, scores=scores[:, *inside])

    def advance(self, columns: slice, step: int) -> None:
        """Move these columns of the slab `step` rows on, and the columns held beyond it to the next tile."""
        part = self._held[:, :, self._columns(columns)]
        width = columns.stop - columns.start
        stay, overlap = self._kept - step, self._layout.tile[0] - step
        part[:, :stay] = part[:, step:].clone()
        part[:, stay:overlap] = self._fresh[:, :, :width]
        part[:, overlap:] = 0
        rest = self._fresh.shape[2] - width
        self._fresh[:, :, :rest] = self._fresh[:, :, width:].clone()
        self._fresh[:, :, rest:] = 0

    def _columns(self, columns: slice) -> slice:
        first = self._extent.start[1]
        return slice(columns.start - first, columns.stop - first)


def slab_bytes(layout: Layout, channels: int, *, wide: bool = False) -> int:
    """Memory of a slab: 4 x (classes + 1) x (rows kept x a slice + the tile's other rows x its width)."""
    kept, (_, width, length) = kept_rows(layout), layout.extent.shape
    fresh = (layout.tile[0] - kept) * _held_columns(layout, wide)
    return 4 * (channels + 1) * length * (kept * width + fresh)


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def kept_rows(layout: Layout) -> int:
    """Rows kept for the whole width: half a tile, or what two tiles share, or do not share, if more."""
    depth = layout.tile[0]
    return max((depth + 1) // 2, *(max(step, depth - step) for step in _between_rows(layout)), 0)


def row_steps(layout: Layout) -> list[int]:
    """How far the slab moves after each row of tiles, and the rows that are left at the end."""
    kept = kept_rows(layout)
    return [*_between_rows(layout), layout.tile[0] - kept, kept]


def _between_rows(layout: Layout) -> list[int]:
    return [b - a for a, b in pairwise(layout.starts[0])]


def _held_columns(layout: Layout, wide: bool) -> int:
    return layout.extent.shape[1] if wide else layout.tile[1]
