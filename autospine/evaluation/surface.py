"""Distances between the surfaces of two masks, and the metrics made of them.

The definitions are those of Nikolov et al. 2018 (arXiv:1809.04430) and of their code,
https://github.com/google-deepmind/surface-distance: a surface consists of elements (see
`autospine.evaluation.surface_elements`), the distance of an element is that of its place from the nearest
element of the other surface, in mm, and each element counts by its area.

There, the Hausdorff distance is infinite where a mask is empty, which no mean over cases survives; here it is
NaN.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from autospine.core.types import MaskArray, Vector3
from autospine.evaluation.surface_elements import SurfaceElements, surface_elements

SHARE_WITHIN = 0.95
"""Share of the area of a surface that lies no farther than the robust Hausdorff distance."""

TOLERANCE_MM = 1.0
"""Distance that counts as agreement of two surfaces: the size of a usual voxel of a CT."""

ROUNDING_MM = 1e-6
"""Surfaces agree within a tolerance if they are no more than this farther apart."""


class SurfaceDistances(NamedTuple):
    """Distances between the surface elements of two masks, and the areas of the elements.

    Arrays of an empty mask are empty, and the distances from the other one are infinite.
    """

    from_prediction: Float[np.ndarray, " N"]
    """Distance of each element of the prediction's surface from the reference's, in mm."""

    areas_of_prediction: Float[np.ndarray, " N"]
    """Area of each element of the prediction's surface, in mm²."""

    from_reference: Float[np.ndarray, " M"]
    """Distance of each element of the reference's surface from the prediction's, in mm."""

    areas_of_reference: Float[np.ndarray, " M"]
    """Area of each element of the reference's surface, in mm²."""

    @property
    def empty(self) -> bool:
        """Whether a mask is empty, so that there are no distances."""
        return not (self.from_prediction.size and self.from_reference.size)


def surface_distances(prediction: MaskArray, reference: MaskArray, spacing_mm: Vector3) -> SurfaceDistances:
    """Measure the distances between two surfaces, both ways.

    Args:
        prediction: (S, P, L) predicted mask.
        reference: (S, P, L) reference mask of the same shape.
        spacing_mm: Distance between the centres of neighbouring voxels along S, P and L.
    """
    predicted, true = surface_elements(prediction, spacing_mm), surface_elements(reference, spacing_mm)
    return SurfaceDistances(
        from_prediction=_distances(predicted, true),
        areas_of_prediction=predicted.areas_mm2,
        from_reference=_distances(true, predicted),
        areas_of_reference=true.areas_mm2,
    )


def hausdorff95(distances: SurfaceDistances) -> float:
    """Return the 95 % Hausdorff distance in mm; NaN if either mask is empty.

    It is the larger of two distances: the smallest that 95 % of the area of the prediction's surface do not
    exceed, and the same for the reference's.
    """
    if distances.empty:
        return math.nan
    return max(
        _percentile(distances.from_prediction, distances.areas_of_prediction),
        _percentile(distances.from_reference, distances.areas_of_reference),
    )


def surface_dice(distances: SurfaceDistances, tolerance_mm: float = TOLERANCE_MM) -> float:
    """Return the normalised surface Dice: the share of the area of both surfaces that is near the other.

    Args:
        distances: Distances between the surfaces.
        tolerance_mm: Distance up to which two surfaces agree.

    Returns:
        A share from 0 to 1: 0 if one mask is empty, NaN if both are.
    """
    both, areas = np.concatenate([distances[0], distances[2]]), np.concatenate([distances[1], distances[3]])
    if not areas.size:
        return math.nan
    near = both <= tolerance_mm + ROUNDING_MM
    return 1.0 if near.all() else float(areas[near].sum() / areas.sum())


def mean_surface_distance(distances: SurfaceDistances) -> float:
    """Return the average symmetric surface distance in mm; NaN if either mask is empty.

    It is the mean over the area of both surfaces together (ASSD of Metrics Reloaded, Maier-Hein et al. 2024,
    arXiv:2206.01653).
    """
    if distances.empty:
        return math.nan
    both, areas = np.concatenate([distances[0], distances[2]]), np.concatenate([distances[1], distances[3]])
    return float(np.average(both, weights=areas))


def _distances(surface: SurfaceElements, other: SurfaceElements) -> Float[np.ndarray, " N"]:
    """Return the distance in mm of each element of a surface from the nearest element of another one."""
    if not (surface.areas_mm2.size and other.areas_mm2.size):
        return np.full(surface.areas_mm2.size, math.inf)
    # The tree takes the surfaces alone, where a distance transform goes through all voxels between them.
    distances, _ = KDTree(other.places_mm).query(surface.places_mm)
    return np.asarray(distances)


def _percentile(distances: Float[np.ndarray, " N"], areas: Float[np.ndarray, " N"]) -> float:
    order = np.argsort(distances)
    shares = np.cumsum(areas[order]) / areas.sum()
    position = min(int(np.searchsorted(shares, SHARE_WITHIN)), order.size - 1)
    return float(distances[order[position]])
