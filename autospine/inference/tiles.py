"""The tile grid of a sliding window, and the weight of each voxel of a tile."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, floor, log

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from autospine.core.geometry import Box, triple
from autospine.core.types import Shape3

TILE_STEP_SIZE = 0.5
"""Distance between neighbouring tiles as a share of the tile (nnU-Net's default)."""

LOCALIZER_STEP_SIZE = 1.0
"""Tile step size of the coarse model that locates the spine, which needs no exact borders."""

SIGMA = 1 / 8
"""Standard deviation of the Gaussian weights as a share of the tile (nnU-Net's default)."""

NEGLIGIBLE = 0.01
"""A tile's edge is left out where it weighs less than this share of a neighbouring tile's weight."""

FLOOR = 1e-3
"""Smallest weight, so that every voxel's weights can be divided by their sum in any number format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileGrid:
    """The positions of the tiles that cover an image, or a part of it.

    Tiles are spread evenly along each axis, the first and the last flush with the part's border, at most
    one tile step apart. Where the part is shorter than a tile, a single tile reaches out on both sides; it
    leaves the image only where the image is shorter, too.
    """

    shape: Shape3
    """Voxels of the image."""

    tile: Shape3
    """Voxels of each tile."""

    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """First voxels of the tiles along each axis, ascending; negative where the image is shorter."""

    @classmethod
    def covering(
        cls, shape: Shape3, tile: Shape3, step_size: float = TILE_STEP_SIZE, part: Box | None = None
    ) -> "TileGrid":
        """Cover an image with tiles.

        Args:
            shape: Voxels of the image.
            tile: Voxels of every tile.
            step_size: Largest distance between neighbouring tiles, in tiles, in (0, 1].
            part: Part of the image that is covered, not empty; by default the whole image.
        """
        box = part or Box.whole(shape)
        axes = zip(shape, tile, box.start, box.stop, strict=True)
        return cls(
            shape=shape, tile=tile, starts=triple(_starts(n, k, step_size, a, b) for n, k, a, b in axes)
        )

    @property
    def boxes(self) -> Iterator[Box]:
        """Every tile, ordered along S, then P, then L."""
        return (self.box(start) for start in product(*self.starts))

    def box(self, start: Shape3) -> Box:
        """Return the tile that starts at a voxel."""
        return Box(start=start, stop=triple(a + k for a, k in zip(start, self.tile, strict=True)))

    def valid_region(self, start: Shape3) -> Box:
        """Return the part of the image in which the scores of the tile that starts at a voxel are used.

        This is the whole tile without what lies outside the image, and without the edges that neighbouring
        tiles outweigh by far: a network knows least at its tile's border.
        """
        return Box.of(self.span(axis, at) for axis, at in enumerate(start))

    def span(self, axis: int, start: int) -> slice:
        """Return `valid_region` along one axis."""
        k, starts = self.tile[axis], self.starts[axis]
        index = starts.index(start)
        before = _edge(k, start - starts[index - 1]) if index > 0 else 0
        after = _edge(k, starts[index + 1] - start) if index + 1 < len(starts) else 0
        return slice(max(0, start + before), min(self.shape[axis], start + k - after))

    def own_region(self, start: Shape3) -> Box:
        """Return the part of the image in which the tile that starts at a voxel weighs most.

        These parts of all tiles make up the image, without overlap.
        """
        spans = []
        for axis, at in enumerate(start):
            n, k, starts = self.shape[axis], self.tile[axis], self.starts[axis]
            index = starts.index(at)
            # Two neighbours weigh the same halfway between their middles.
            first = (starts[index - 1] + at + k) // 2 if index > 0 else 0
            stop = (at + starts[index + 1] + k) // 2 if index + 1 < len(starts) else n
            spans.append(slice(first, stop))
        return Box.of(spans)

    @property
    def count(self) -> int:
        """Number of tiles."""
        s, p, left = map(len, self.starts)
        return s * p * left

    @property
    def extent(self) -> Box:
        """Part of the image that lies in the valid region of any tile."""
        first, last = (self.valid_region(triple(starts[at] for starts in self.starts)) for at in (0, -1))
        return Box(start=first.start, stop=last.stop)

    def around(self, starts: Collection[Shape3]) -> "TileGrid":
        """Return the part of the grid from the first to the last of some tiles along each axis."""
        axes = zip(self.starts, zip(*starts, strict=True), strict=True)
        return replace(
            self,
            starts=triple(
                tuple(start for start in every if min(used) <= start <= max(used)) for every, used in axes
            ),
        )


def count_tiles(shape: Shape3, tile: Shape3, step_size: float = TILE_STEP_SIZE) -> int:
    """Return the number of tiles that cover an image of this shape."""
    return TileGrid.covering(shape, tile, step_size).count


def gaussian_weights(tile: Shape3) -> Float32[Tensor, "S P L"]:
    """Return the Gaussian weights of a tile's voxels in (0, 1], largest in its middle."""
    weights = torch.einsum("s,p,l->spl", *[_bell(n) for n in tile])
    return (weights / weights.max()).clamp_min(FLOOR)


def _starts(n: int, k: int, step_size: float, first: int, stop: int) -> tuple[int, ...]:
    """Return the starts along an axis of n voxels of tiles of k that cover those from `first` to `stop`."""
    if n <= k:
        return (-((k - n) // 2),)
    spare = stop - first - k
    if spare <= 0:
        return (min(max(0, first + spare // 2), n - k),)
    count = min(ceil(spare / (k * step_size)), spare) + 1
    return tuple(round(start) for start in np.linspace(first, stop - k, count))


def _edge(k: int, step: int) -> int:
    """Return the voxels at the edge of a tile of k that a neighbour `step` voxels away outweighs by far.

    Two Gaussians have the standard deviation d and lie s apart, all in tiles. At the distance e from the
    farther one's edge, its share of the nearer one's weight is exp(-s (1 - 2 e - s) / (2 d^2)). The result is
    this equation solved for e at the share `NEGLIGIBLE`.
    """
    s = step / k
    return max(0, floor(k * (1 - s - 2 * SIGMA**2 * log(1 / NEGLIGIBLE) / s) / 2))


def _bell(n: int) -> Float32[Tensor, " n"]:
    offset = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
    return torch.exp(-0.5 * (offset / (n * SIGMA)) ** 2)
