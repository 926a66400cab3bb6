"""Overlap of the rims of two masks, in which errors of a border are not outweighed by the inside.

It is the Dice counterpart of the boundary IoU (Cheng et al. 2021, arXiv:2103.16562), in mm.
"""

import math

import numpy as np
from jaxtyping import Float

from autospine.core.types import MaskArray, Vector3

BAND_MM = 2.0
"""Depth of the rim: about the thickness of the cortical bone of a vertebra with the blur of a CT."""

_ROUNDING = 1e-6
"""A depth may exceed the band by this share."""


def boundary_dice(
    prediction: MaskArray, reference: MaskArray, spacing_mm: Vector3, band_mm: float = BAND_MM
) -> float:
    """Return the Dice of the rims of two masks, 0 to 1: 0 if one mask is empty, NaN if both are.

    Args:
        prediction: (S, P, L) predicted mask.
        reference: (S, P, L) reference mask of the same shape.
        spacing_mm: Distance between the centres of neighbouring voxels along S, P and L.
        band_mm: Depth of the rims.
    """
    predicted, true = rim(prediction, spacing_mm, band_mm), rim(reference, spacing_mm, band_mm)
    whole = int(np.count_nonzero(predicted)) + int(np.count_nonzero(true))
    return 2 * int(np.count_nonzero(predicted & true)) / whole if whole else math.nan


def rim(mask: MaskArray, spacing_mm: Vector3, band_mm: float) -> MaskArray:
    """Return the voxels of a mask whose centres lie no deeper in it than the band.

    The depth of a voxel is the distance of its centre from the nearest voxel outside the mask; what lies
    outside the array is outside the mask. Voxels with a face neighbour outside are always in the rim, however
    large they are.

    Args:
        mask: (S, P, L) mask.
        spacing_mm: Distance between the centres of neighbouring voxels along S, P and L.
        band_mm: Depth of the rim.
    """
    limit = band_mm**2 * (1 + _ROUNDING)
    depths = [_depths(spacing, band_mm) for spacing in spacing_mm]
    margin = max(map(len, depths))
    # The square of a distance is a sum over the axes, so that its minimum is found axis by axis.
    squares = np.where(np.pad(mask, margin), np.float32(np.inf), np.float32(0))
    for axis, steps in enumerate(depths):
        squares = _nearest_along(squares, axis, steps)
    inner = (slice(margin, -margin),) * mask.ndim
    near: MaskArray = mask & (squares[inner] <= limit)
    return near


def _depths(spacing_mm: float, band_mm: float) -> list[float]:
    """Return the distances from a voxel's centre to the near faces of its next neighbours along an axis.

    The first one is never deeper than the band.
    """
    count = max(1, math.floor(band_mm / spacing_mm * (1 + _ROUNDING) + 0.5))
    depths = [(step + 0.5) * spacing_mm for step in range(count)]
    return [min(depths[0], band_mm), *depths[1:]]


def _nearest_along(
    squares: Float[np.ndarray, "s p l"], axis: int, depths: list[float]
) -> Float[np.ndarray, "s p l"]:
    """Return the least sum of a square along an axis and that of the way to it."""
    along = np.moveaxis(squares, axis, 0)
    nearest = squares.copy()
    result = np.moveaxis(nearest, axis, 0)
    for step, depth in enumerate(depths, start=1):
        way = np.float32(depth**2)
        np.minimum(result[step:], along[:-step] + way, out=result[step:])
        np.minimum(result[:-step], along[step:] + way, out=result[:-step])
    return nearest
