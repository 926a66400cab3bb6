"""Where the tiles of a sliding window lie, and how much each of their voxels counts."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, floor, log

import numpy as np
import torch

from autospine.core.geometry import Box
from autospine.core.types import Shape3

STEP = 0.5
"""Distance between neighbouring tiles as a share of the tile (nnU-Net's default)."""

FINDER_STEP = 1.0
"""The same where it only matters where the spine is."""

SIGMA = 1 / 8
"""Standard deviation of the Gaussian importance as a share of the tile (nnU-Net's default)."""

NEGLIGIBLE = 0.01
"""A tile's edge that weighs less than this share of what a neighbouring tile weighs there is left out."""

FLOOR = 1e-3
"""Least importance, so that every voxel's weights can be divided by their sum in any number format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How tiles cover an image, or a region of it.

    They are spread evenly along each axis, the first and the last flush with the region's border, at most
    `STEP` tiles apart. Where the region is shorter than a tile, the one tile reaches out on both sides, but
    out of the image only where that is shorter, too.
    """

    shape: Shape3
    """Voxels of the image."""

    tile: Shape3
    """Voxels of each tile."""

    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """First voxel of the tiles along each axis, ascending; negative where the image is shorter."""

    @property
    def boxes(self) -> Iterator[Box]:
        """Every tile, ordered along S, then P, then L."""
        return (self.box(start) for start in product(*self.starts))

    def box(self, start: Shape3) -> Box:
        """The tile that starts here."""
        s, p, left = (a + k for a, k in zip(start, self.tile, strict=True))
        return Box(start=start, stop=(s, p, left))

    def counted(self, start: Shape3) -> Box:
        """The part of the image in which the scores of the tile that starts here count.

        That is all of the tile but what lies out of the image, and the edges that neighbours outweigh by far:
        what lies there they know better.
        """
        s, p, left = (self.span(axis, at) for axis, at in enumerate(start))
        return Box(start=(s.start, p.start, left.start), stop=(s.stop, p.stop, left.stop))

    def span(self, axis: int, start: int) -> slice:
        """The same along one axis."""
        k, starts = self.tile[axis], self.starts[axis]
        index = starts.index(start)
        before = _edge(k, start - starts[index - 1]) if index > 0 else 0
        after = _edge(k, starts[index + 1] - start) if index + 1 < len(starts) else 0
        return slice(max(0, start + before), min(self.shape[axis], start + k - after))

    @property
    def count(self) -> int:
        """Number of tiles."""
        s, p, left = map(len, self.starts)
        return s * p * left

    @property
    def extent(self) -> Box:
        """The part of the image that lies in any tile."""
        s, p, left = self.starts
        first, last = self.counted((s[0], p[0], left[0])), self.counted((s[-1], p[-1], left[-1]))
        return Box(start=first.start, stop=last.stop)

    def around(self, starts: Collection[Shape3]) -> "Layout":
        """The part of the layout that reaches from the first to the last of some tiles along each axis."""
        s, p, left = (
            tuple(start for start in every if min(used) <= start <= max(used))
            for every, used in zip(self.starts, zip(*starts, strict=True), strict=True)
        )
        return replace(self, starts=(s, p, left))


def lay_tiles(shape: Shape3, tile: Shape3, step: float = STEP, region: Box | None = None) -> Layout:
    """Cover an image with tiles.

    Args:
        shape: voxels of the image.
        tile: size of every tile.
        step: largest distance between neighbours in tiles, in (0, 1].
        region: the part of the image that is covered, not empty; by default all.
    """
    part = region or Box(start=(0, 0, 0), stop=shape)
    s, p, left = (
        _starts(n, k, step, a, b) for n, k, a, b in zip(shape, tile, part.start, part.stop, strict=True)
    )
    return Layout(shape=shape, tile=tile, starts=(s, p, left))


def count_tiles(shape: Shape3, tile: Shape3) -> int:
    """Number of tiles that cover an image of this shape."""
    return lay_tiles(shape, tile).count


def importance(tile: Shape3) -> torch.Tensor:
    """Gaussian weights in (0, 1] of a tile's voxels, largest in its middle, float32 (S, P, L)."""
    axes = [_bell(n) for n in tile]
    weights = torch.einsum("s,p,l->spl", *axes)
    return (weights / weights.max()).clamp_min(FLOOR)


def _starts(n: int, k: int, step: float, first: int, stop: int) -> tuple[int, ...]:
    """Along an axis of n voxels, for tiles of k that cover those from `first` to `stop`."""
    if n <= k:
        return (-((k - n) // 2),)
    spare = stop - first - k
    if spare <= 0:
        return (min(max(0, first + spare // 2), n - k),)
    count = min(ceil(spare / (k * step)), spare) + 1
    return tuple(round(start) for start in np.linspace(first, stop - k, count))


def _edge(k: int, step: int) -> int:
    """Voxels at the edge of a tile of k where it weighs `NEGLIGIBLE` of the neighbour that is `step` away.

    Of two Gaussians with standard deviation d at a distance of s, both in tiles, the farther one's share is
    exp(-s (1 - 2 e - s) / (2 d^2)) at a distance e from its tile's edge; solved for e.
    """
    s = step / k
    return max(0, floor(k * (1 - s - 2 * SIGMA**2 * log(1 / NEGLIGIBLE) / s) / 2))


def _bell(n: int) -> torch.Tensor:
    offset = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
    return torch.exp(-0.5 * (offset / (n * SIGMA)) ** 2)
