"""Distances between the surfaces of two masks, and the metrics made of them.

The surface of a mask is its boundary voxels: those with a face neighbour outside the mask, where everything
outside the volume counts as outside the mask. The distance of a boundary voxel is that of its centre from the
centre of the nearest boundary voxel of the other mask, in mm. Every boundary voxel has the same weight.

The definitions and the cases of empty masks follow https://github.com/google-deepmind/surface-distance
(Nikolov et al. 2018, arXiv:1809.04430), which differs in two points: it takes elements of a triangulated
surface, weighted by their area, instead of boundary voxels, and it returns an infinite Hausdorff distance
where a mask is empty, which no mean over cases survives.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from autospine.core.types import MaskArray, Vector3

PERCENTILE = 95.0
"""Share of the boundary voxels, in percent, that lie no farther than the robust Hausdorff distance."""

TOLERANCE_MM = 1.0
"""Distance that counts as agreement of two surfaces: the size of a usual voxel of a CT."""


class SurfaceDistances(NamedTuple):
    """Distances in mm between the boundary voxels of two masks; neither array is empty."""

    from_prediction: Float[np.ndarray, " N"]
    """Distance of each boundary voxel of the prediction from the reference's surface."""

    from_reference: Float[np.ndarray, " M"]
    """Distance of each boundary voxel of the reference from the prediction's surface."""


def surface_distances(
    prediction: MaskArray, reference: MaskArray, spacing_mm: Vector3
) -> SurfaceDistances | None:
    """Measure the distances between two surfaces, both ways.

    Args:
        prediction: (S, P, L) predicted mask.
        reference: (S, P, L) reference mask of the same shape.
        spacing_mm: Distance between the centres of neighbouring voxels along S, P and L.

    Returns:
        The distances, or None if either mask is empty.
    """
    if not (prediction.any() and reference.any()):
        return None
    (box,) = ndimage.find_objects((prediction | reference).astype(np.uint8))
    predicted, true = _boundary(prediction[box]), _boundary(reference[box])
    return SurfaceDistances(
        from_prediction=_distance_to(true, spacing_mm)[predicted],
        from_reference=_distance_to(predicted, spacing_mm)[true],
    )


def hausdorff95(prediction: MaskArray, reference: MaskArray, spacing_mm: Vector3) -> float:
    """Return the 95 % Hausdorff distance in mm; NaN if either mask is empty.

    It is the larger of the two 95th percentiles, that of the prediction's distances and that of the
    reference's. A percentile is the smallest distance that at least 95 % of the boundary voxels do not
    exceed.

    Args:
        prediction: (S, P, L) predicted mask.
        reference: (S, P, L) reference mask of the same shape.
        spacing_mm: Distance between the centres of neighbouring voxels along S, P and L.
    """
    distances = surface_distances(prediction, reference, spacing_mm)
    if distances is None:
        return math.nan
    return max(float(np.percentile(each, PERCENTILE, method="inverted_cdf")) for each in distances)


def surface_dice(
    prediction: MaskArray,
    reference: MaskArray,
    spacing_mm: Vector3,
    tolerance_mm: float = TOLERANCE_MM,
) -> float:
    """Return the normalised surface Dice: the share of both surfaces that is within a tolerance of the other.

    Args:
        prediction: (S, P, L) predicted mask.
        reference: (S, P, L) reference mask of the same shape.
        spacing_mm: Distance between the centres of neighbouring voxels along S, P and L.
        tolerance_mm: Distance up to which two surfaces agree.

    Returns:
        A share from 0 to 1: 0 if one mask is empty, NaN if both are.
    """
    distances = surface_distances(prediction, reference, spacing_mm)
    if distances is None:
        return 0.0 if prediction.any() or reference.any() else math.nan
    near = sum(int(np.count_nonzero(each <= tolerance_mm)) for each in distances)
    return near / sum(each.size for each in distances)


def _boundary(mask: MaskArray) -> MaskArray:
    """Return the voxels of a mask that have a face neighbour outside it."""
    # Importing scikit-image takes a while, which only surface metrics should pay.
    from skimage.segmentation import find_boundaries

    # find_boundaries looks at neighbours inside the array alone, so it gets a rim of background.
    padded = np.pad(mask, 1)
    boundaries = find_boundaries(padded, connectivity=1, mode="inner")  # type: ignore[no-untyped-call]
    boundary: MaskArray = boundaries[1:-1, 1:-1, 1:-1]
    return boundary


def _distance_to(surface: MaskArray, spacing_mm: Vector3) -> Float[np.ndarray, "S P L"]:
    """Return the distance in mm of every voxel from the nearest voxel of a surface."""
    distance: np.ndarray = ndimage.distance_transform_edt(~surface, sampling=spacing_mm)
    return distance
