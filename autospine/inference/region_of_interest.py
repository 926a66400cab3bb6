"""Where tiles are worth running: where they hold some of the body, or come near the spine."""

from math import ceil, floor

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from autospine.core.geometry import Box
from autospine.core.types import LabelArray, Modality, Shape3, Vector3, VolumeArray
from autospine.inference.tiles import Layout
from autospine.preprocessing import IntensityTransform
from autospine.preprocessing.normalise import BACKGROUND_FRACTION

Thinned = Bool[np.ndarray, "s p l"]
"""A mask of every `STRIDE`th voxel along each axis."""

AIR_HU = -500.0
"""CT below this is air or lung; fat lies at -100."""

STRIDE = 2
"""Every so many voxels of the image are looked at along each axis."""

SPECK = 1e-3
"""A component smaller than this share of all that a coarse pass has labelled is none of the spine: about a
cubic centimetre of a whole one, and a tenth of the smallest vertebra."""

MARGIN_MM: Vector3 = (40.0, 20.0, 20.0)
"""How far along S, P and L tiles reach beyond the spine that a coarse pass has found.

Along S that is a lumbar vertebra with its disc, should the coarse pass have missed the last one.
"""


def body(array: VolumeArray, modality: Modality, transform: IntensityTransform) -> Thinned:
    """Where any channel of an image shows more than air.

    In MR, air is what lies in the lowest `BACKGROUND_FRACTION` of the clipping range.
    """
    sample = array[:, ::STRIDE, ::STRIDE, ::STRIDE]
    mask = np.zeros(sample.shape[1:], dtype=bool)
    for channel, lower, upper in zip(sample, transform.lower, transform.upper, strict=True):
        mask |= channel > (AIR_HU if modality == "CT" else lower + BACKGROUND_FRACTION * (upper - lower))
    return mask


def spine(labels: LabelArray) -> Thinned:
    """Where a label map is labelled, but for specks."""
    mask: Thinned = labels[::STRIDE, ::STRIDE, ::STRIDE] != 0
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    found: Thinned = (sizes >= SPECK * sizes.sum()) & (sizes > 0)
    return found[parts]


def region_around(mask: Thinned, shape: Shape3, prepared: Shape3, margin: Vector3 = (0, 0, 0)) -> Box:
    """The box of the prepared image within a margin of all that is true in a mask; the whole for none.

    Args:
        mask: of the image.
        shape: voxels of the image.
        prepared: voxels of the prepared image.
        margin: along each axis, in voxels of the image.
    """
    start, stop = [0, 0, 0], list(prepared)
    for axis, (n, m, by) in enumerate(zip(shape, prepared, margin, strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        if len(found):
            first, last = STRIDE * int(found[0]) - by, STRIDE * int(found[-1] + 1) + by
            start[axis] = max(0, floor(first * m / n))
            stop[axis] = min(m, ceil(last * m / n))
    return Box(start=(start[0], start[1], start[2]), stop=(stop[0], stop[1], stop[2]))


def tiles_near(layout: Layout, mask: Thinned, shape: Shape3, margin: Vector3 = (0, 0, 0)) -> set[Shape3]:
    """Starts of the tiles within a margin of which the mask is true somewhere.

    Args:
        layout: on the prepared image.
        mask: of the image.
        shape: voxels of the image.
        margin: along each axis, in voxels of the image.
    """
    spans = [
        [_span(start, k, n / m, by) for start in starts]
        for starts, k, n, m, by in zip(layout.starts, layout.tile, shape, layout.shape, margin, strict=True)
    ]
    return {
        (s, p, left)
        for s, rows in zip(layout.starts[0], spans[0], strict=True)
        for p, columns in zip(layout.starts[1], spans[1], strict=True)
        for left, along in zip(layout.starts[2], spans[2], strict=True)
        if mask[rows, columns, along].any()
    }


def _span(start: int, length: int, ratio: float, margin: float) -> slice:
    """A tile's part of the mask along one axis, with a voxel to spare."""
    first = floor((start * ratio - margin) / STRIDE) - 1
    return slice(max(0, first), max(0, ceil(((start + length) * ratio + margin) / STRIDE) + 1))
