"""The region of interest: the tiles that hold a part of the body or, if it can be located, of the spine.

Tiles of air are left out only where that cannot matter: the tile grid stays that of the whole image, and a
tile that is not run counts as background. Tiles off the spine are left out to save time, and labels there are
lost. Where the model that locates the spine has not learnt from the same dataset, only what lies well beside
the spine is left out, in wide images.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import ceil, floor
from typing import Literal

import fill_voids
import numpy as np
from jaxtyping import Bool, Int32, Int64
from scipy import ndimage

from autospine.core.geometry import Box, triple
from autospine.core.types import LabelArray, Modality, Shape3, Vector3, VolumeArray
from autospine.inference.tiles import TileGrid
from autospine.preprocessing.normalise import BACKGROUND_FRACTION, IntensityTransform
from autospine.preprocessing.prepare import Preparation

SubsampledMask = Bool[np.ndarray, "s p l"]
"""A mask of blocks of `STRIDE` voxels along each axis of an image (S, P, L)."""

RegionOfInterest = Literal["everything", "body", "spine"]
"""The part of an image that tiles are run for."""

AIR_HU = -500.0
"""CT below this is air or lung; fat lies at -100."""

STRIDE = 2
"""Voxels along each axis of a block, for which a mask has one value."""

SMALL_COMPONENT = 1e-3
"""A connected component smaller than this share of all labelled voxels is not taken for spine. Of a whole
spine that is about a cubic centimetre, a tenth of the smallest vertebra."""

MARGIN_MM: Vector3 = (40.0, 20.0, 20.0)
"""Distance along S, P and L by which tiles reach beyond the spine that a localizer has found.

Along S this is a lumbar vertebra with its disc, in case the localizer has missed the last one.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileSelection:
    """The tiles of a prepared image that are worth running."""

    tile_grid: TileGrid
    """Tile grid: of the whole image or, near the spine, as far as the tiles that are run reach."""

    run: frozenset[Shape3]
    """Starts of the tiles that are run."""

    region: RegionOfInterest
    """Part of the image that they are run for."""

    doubtful: Box | None = None
    """Tile of air, among those left out, in which a network is the most likely to find something; None if no
    tile of air is left out."""


WIDE_MM = 250.0
"""Extent along P or L from which an image shows much beside the spine."""

COLUMN_MARGIN_MM: Vector3 = (0.0, 60.0, 60.0)
"""Distance along S, P and L by which tiles reach beyond the column that holds what the starter has found. The
labelled spine reaches up to 36 mm beyond it on 20 real scans: at the wings of the sacrum, which it misses."""

LEAST_ROWS = 0.6
"""Least share of a body's rows along S in which the starter has to find vertebra and canal. It is at most
0.24 where the spine reaches further beyond the column than the margin: in images with wrong axes."""


def every_tile(prepared: Shape3, tile: Shape3, step_size: float) -> TileSelection:
    """Select all tiles of a prepared image."""
    tile_grid = TileGrid.covering(prepared, tile, step_size)
    return TileSelection(
        tile_grid=tile_grid, run=frozenset(box.start for box in tile_grid.boxes), region="everything"
    )


def tiles_in_body(preparation: Preparation, body: SubsampledMask, tile_grid: TileGrid) -> TileSelection:
    """Select the tiles that are not all air, in the tile grid of the whole image.

    All of them are selected if no body is found, as its threshold may not suit the image, and if a single one
    is air, as it takes a tile to see whether a network finds something there.

    Args:
        preparation: The image, as far as the crop keeps it.
        body: Mask of the body (see `body_mask`).
        tile_grid: Tile grid of the whole prepared image.
    """
    every = frozenset(box.start for box in tile_grid.boxes)
    native = preparation.crop.shape
    # A voxel of the body is interpolated from the prepared voxels around it.
    voxel = triple(n / m for n, m in zip(native, preparation.shape, strict=True))
    run = tiles_within(tile_grid, body, native, voxel)
    air = every - run
    if not run or len(air) < 2:
        return TileSelection(tile_grid=tile_grid, run=every, region="body")
    return TileSelection(
        tile_grid=tile_grid,
        run=run,
        region="body",
        doubtful=tile_grid.box(_brightest(preparation, tile_grid, air)),
    )


def tiles_near_spine(
    preparation: Preparation,
    spine: SubsampledMask,
    margin_mm: Vector3,
    body: SubsampledMask,
    spacing_mm: Vector3,
    tile: Shape3,
    step_size: float,
) -> TileSelection | None:
    """Lay tiles around the spine, and select those near it; None if there is no spine in the body.

    Args:
        preparation: The image, as far as the crop keeps it.
        spine: Mask of the spine (see `spine_mask`), or of the column that holds it (see `spine_column`).
        margin_mm: Distance along S, P and L by which tiles reach beyond it.
        body: Mask of the body (see `body_mask`).
        spacing_mm: Voxel size of the image before it is resampled.
        tile: Voxels of a tile.
        step_size: Tile step size.
    """
    native, prepared = preparation.crop.shape, preparation.shape
    margin = triple(mm / d for mm, d in zip(margin_mm, spacing_mm, strict=True))
    tile_grid = TileGrid.covering(prepared, tile, step_size, region_around(spine, native, prepared, margin))
    # Along S the margin may reach out of the body, into the air beyond the head.
    run = tiles_within(tile_grid, spine, native, margin) & tiles_within(tile_grid, body, native)
    if not run:
        return None
    return TileSelection(tile_grid=tile_grid.around(run), run=run, region="spine")


def body_mask(array: VolumeArray, modality: Modality, transform: IntensityTransform) -> SubsampledMask:
    """Return where an image (C, S, P, L) shows more than air, with all that this encloses within a slice.

    A block of voxels is air if none of its voxels exceeds the threshold in any channel. In MR, air is what
    lies in the lowest `BACKGROUND_FRACTION` of the clipping range. Lungs, gas in the bowel and the voids that
    metal leaves in MR count as body, unless they are open to the outside or to the border of the image.
    """
    limits = [
        AIR_HU if modality == "CT" else lower + BACKGROUND_FRACTION * (upper - lower)
        for lower, upper in zip(transform.lower, transform.upper, strict=True)
    ]
    if np.issubdtype(array.dtype, np.integer):  # comparing integers needs no copy of them
        limits = [floor(limit) for limit in limits]
    starts = range(0, array.shape[1], STRIDE)
    return np.stack([_solid(_tissue(array[:, start : start + STRIDE], limits)) for start in starts])


def spine_mask(labels: LabelArray) -> SubsampledMask:
    """Return where a label map (S, P, L) is labelled, without small connected components."""
    components, sizes = _components(labels[::STRIDE, ::STRIDE, ::STRIDE] != 0)
    kept: Bool[np.ndarray, " n"] = (sizes >= SMALL_COMPONENT * sizes.sum()) & (sizes > 0)
    mask: SubsampledMask = kept[components]
    return mask


def spine_column(
    labels: LabelArray, together: Collection[int], body: SubsampledMask
) -> SubsampledMask | None:
    """Return the column, from the first row of an image to the last, that holds what was found of a spine.

    What was missed above or below lies in it as well, or within a margin beside it.

    Args:
        labels: Coarse label map, cropped like the image (S, P, L).
        together: Label values that all occur at every height of a spine.
        body: Mask of the body.

    Returns:
        The column of the largest connected component; None if that does not have all of these values in at
        least `LEAST_ROWS` of the body's rows, so that it may be something else, or a small part of the spine.
    """
    blocks = labels[::STRIDE, ::STRIDE, ::STRIDE]
    components, sizes = _components(blocks != 0)
    spine = components == sizes.argmax()
    rows = np.logical_and.reduce([(spine & (blocks == value)).any(axis=(1, 2)) for value in together])
    of_body = body.any(axis=(1, 2))
    if not rows.any() or np.sum(rows & of_body) < LEAST_ROWS * np.sum(of_body):
        return None
    column: SubsampledMask = np.broadcast_to(spine.any(axis=0), spine.shape)
    return column


def region_around(mask: SubsampledMask, shape: Shape3, prepared: Shape3, margin: Vector3 = (0, 0, 0)) -> Box:
    """Return the box of the prepared image within a margin of a mask; the whole image for an empty mask.

    Args:
        mask: Mask of the image.
        shape: Voxels of the image.
        prepared: Voxels of the prepared image.
        margin: Distance along each axis, in voxels of the image.
    """
    start, stop = [0, 0, 0], list(prepared)
    for axis, (n, m, by) in enumerate(zip(shape, prepared, margin, strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        if len(places):
            first, last = STRIDE * int(places[0]) - by, STRIDE * int(places[-1] + 1) + by
            start[axis] = max(0, floor(first * m / n))
            stop[axis] = min(m, ceil(last * m / n))
    return Box(start=triple(start), stop=triple(stop))


def tiles_within(
    tile_grid: TileGrid, mask: SubsampledMask, shape: Shape3, margin: Vector3 = (0, 0, 0)
) -> frozenset[Shape3]:
    """Return the starts of the tiles that come within a margin of a mask.

    Args:
        tile_grid: Tiles of the prepared image.
        mask: Mask of the image.
        shape: Voxels of the image.
        margin: Distance along each axis, in voxels of the image.
    """
    axes = zip(tile_grid.starts, tile_grid.tile, shape, tile_grid.shape, margin, strict=True)
    spans = [[(start, _span(start, k, n / m, by)) for start in starts] for starts, k, n, m, by in axes]
    return frozenset(
        (s, p, left)
        for s, rows in spans[0]
        for p, columns in spans[1]
        for left, along in spans[2]
        if mask[rows, columns, along].any()
    )


def _components(mask: SubsampledMask) -> tuple[Int32[np.ndarray, "s p l"], Int64[np.ndarray, " n"]]:
    """Return the connected component of each block, 0 outside the mask, and their sizes, 0 for the first."""
    components, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return components, sizes


def _tissue(rows: VolumeArray, limits: Collection[float]) -> Bool[np.ndarray, "p l"]:
    """Return in which blocks of some rows (C, s, P, L) any voxel exceeds the limit of its channel."""
    found: Bool[np.ndarray, "P L"] = np.zeros(rows.shape[2:], dtype=bool)
    for channel, limit in zip(rows, limits, strict=True):
        found |= (channel > limit).any(axis=0)
    for axis, n in enumerate(found.shape):
        found = np.logical_or.reduceat(found, range(0, n, STRIDE), axis=axis)
    return found


def _solid(plane: Bool[np.ndarray, "p l"]) -> Bool[np.ndarray, "p l"]:
    """Fill the holes of a slice."""
    # Without a rim of background fill_voids takes single voxels at the border for holes (2.1.2).
    filled: Bool[np.ndarray, "p l"] = fill_voids.fill(np.pad(plane, 1))[1:-1, 1:-1]
    return filled


def _brightest(preparation: Preparation, tile_grid: TileGrid, starts: Collection[Shape3]) -> Shape3:
    """Return the tile of air that is the brightest to a network: noise or lung, where others are black."""
    transform = preparation.transform
    image = preparation.array[:, ::STRIDE, ::STRIDE, ::STRIDE]
    ratios = [n / m for n, m in zip(preparation.crop.shape, preparation.shape, strict=True)]

    def brightness(start: Shape3) -> float:
        """Return a tile's mean intensity as the network sees it, summed over the channels."""
        axes = zip(start, tile_grid.tile, ratios, strict=True)
        part = image[:, *(_span(at, k, ratio, 0.0) for at, k, ratio in axes)]
        channels = zip(part, transform.lower, transform.upper, transform.std, strict=True)
        return sum(
            (float(np.clip(values, low, high).mean()) - low) / std for values, low, high, std in channels
        )

    return max(sorted(starts), key=brightness)


def _span(start: int, length: int, ratio: float, margin: float) -> slice:
    """Return a tile's part of the mask along one axis, with a voxel to spare."""
    first = floor((start * ratio - margin) / STRIDE) - 1
    return slice(max(0, first), max(0, ceil(((start + length) * ratio + margin) / STRIDE) + 1))
