"""The region of interest: the tiles that hold a part of the body or, if it can be located, of the spine."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from typing import Literal

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from autospine.core.geometry import Box, triple
from autospine.core.types import LabelArray, Modality, Shape3, Vector3, VolumeArray
from autospine.inference.tiles import TileGrid
from autospine.preprocessing.normalise import BACKGROUND_FRACTION, IntensityTransform
from autospine.preprocessing.prepare import Preparation

SubsampledMask = Bool[np.ndarray, "s p l"]
"""A mask of every `STRIDE`th voxel along each axis of an image (S, P, L)."""

RegionOfInterest = Literal["everything", "body", "spine"]
"""The part of an image that tiles are run for."""

AIR_HU = -500.0
"""CT below this is air or lung; fat lies at -100."""

STRIDE = 2
"""Every so many voxels of the image are sampled along each axis."""

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
    """Tiles that cover the region of interest."""

    run: frozenset[Shape3]
    """Starts of those tiles that touch it."""

    region: RegionOfInterest


def every_tile(prepared: Shape3, tile: Shape3, step_size: float) -> TileSelection:
    """Select all tiles of a prepared image."""
    tile_grid = TileGrid.covering(prepared, tile, step_size)
    return TileSelection(
        tile_grid=tile_grid, run=frozenset(box.start for box in tile_grid.boxes), region="everything"
    )


def select_tiles(
    preparation: Preparation,
    modality: Modality,
    spacing_mm: Vector3,
    tile: Shape3,
    step_size: float,
    localize: Callable[[], LabelArray] | None,
) -> TileSelection:
    """Select the tiles near the spine or, where no localizer has found any, those that hold some of the body.

    Args:
        preparation: The image, as far as the crop keeps it.
        modality: Modality of the image.
        spacing_mm: Voxel size of the image before it is resampled.
        tile: Voxels of a tile.
        step_size: Tile step size.
        localize: Predicts a coarse label map of the volume; None without a localizer.
    """
    body = body_mask(preparation.array, modality, preparation.transform)
    if localize is not None:
        spine = spine_mask(localize()[preparation.crop.slices])
        margin = triple(mm / d for mm, d in zip(MARGIN_MM, spacing_mm, strict=True))
        near = _tiles_around(spine, preparation, margin, tile, step_size, "spine")
        # Along S the margin may reach out of the body, into the air beyond the head.
        in_body = tiles_within(near.tile_grid, body, preparation.crop.shape)
        if run := near.run & in_body:
            return TileSelection(tile_grid=near.tile_grid, run=run, region="spine")
    return _tiles_around(body, preparation, (0, 0, 0), tile, step_size, "body")


def body_mask(array: VolumeArray, modality: Modality, transform: IntensityTransform) -> SubsampledMask:
    """Return where any channel of an image (C, S, P, L) shows more than air.

    In MR, air is what lies in the lowest `BACKGROUND_FRACTION` of the clipping range.
    """
    sample = array[:, ::STRIDE, ::STRIDE, ::STRIDE]
    mask = np.zeros(sample.shape[1:], dtype=bool)
    for channel, lower, upper in zip(sample, transform.lower, transform.upper, strict=True):
        mask |= channel > (AIR_HU if modality == "CT" else lower + BACKGROUND_FRACTION * (upper - lower))
    return mask


def spine_mask(labels: LabelArray) -> SubsampledMask:
    """Return where a label map (S, P, L) is labelled, without small connected components."""
    mask: SubsampledMask = labels[::STRIDE, ::STRIDE, ::STRIDE] != 0
    components, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept: Bool[np.ndarray, " n"] = (sizes >= SMALL_COMPONENT * sizes.sum()) & (sizes > 0)
    return kept[components]


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


def _tiles_around(
    mask: SubsampledMask,
    preparation: Preparation,
    margin: Vector3,
    tile: Shape3,
    step_size: float,
    region: RegionOfInterest,
) -> TileSelection:
    """Cover the box around a mask with tiles, and select those that come within a margin of it."""
    native, prepared = preparation.crop.shape, preparation.shape
    tile_grid = TileGrid.covering(prepared, tile, step_size, region_around(mask, native, prepared, margin))
    return TileSelection(
        tile_grid=tile_grid, run=tiles_within(tile_grid, mask, native, margin), region=region
    )


def _span(start: int, length: int, ratio: float, margin: float) -> slice:
    """Return a tile's part of the mask along one axis, with a voxel to spare."""
    first = floor((start * ratio - margin) / STRIDE) - 1
    return slice(max(0, first), max(0, ceil(((start + length) * ratio + margin) / STRIDE) + 1))
