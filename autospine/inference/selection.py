"""Which tiles are worth running: those that hold some of the body, or come near the spine."""

from math import ceil, floor

import numpy as np
from jaxtyping import Bool

from autospine.inference.tiles import Layout
from autospine.preprocessing import IntensityTransform
from autospine.preprocessing.normalise import BACKGROUND_FRACTION
from autospine.types import LabelArray, Modality, Shape3, Vector3, VolumeArray

Thinned = Bool[np.ndarray, "s p l"]
"""A mask of every `STRIDE`th voxel along each axis."""

AIR_HU = -500.0
"""CT below this is air or lung; fat lies at -100."""

STRIDE = 2
"""Every so many voxels of the image are looked at along each axis."""

MARGIN_MM = 20.0
"""Distance from the spine that a coarse pass has found within which every tile is run."""


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
    """Where a label map is labelled."""
    mask: Thinned = labels[::STRIDE, ::STRIDE, ::STRIDE] != 0
    return mask


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
