"""Whether a map looks at boundaries: its mean by the distance to them, and how well it tells them apart."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from autospine.core.geometry import Box
from autospine.core.types import LabelArray, ScoreMap, Vector3
from autospine.evaluation.boundary_errors import MARGIN_MM, NEAR_MM, boundary_of, box_with_margin

STEP_MM = 1.0
"""Width of the bands of distance of the curve."""

MOST_VOXELS = 400_000
"""Most voxels that are ranked; of more, every n-th is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundaryRegion:
    """The voxels around a segmentation's boundaries, by their distance to the nearest one."""

    box: Box
    """Part of the image that is looked at: everything labelled, with a margin of `MARGIN_MM`."""

    distance_mm: Float[np.ndarray, "s p l"]
    """Distance of each voxel of the box to the nearest boundary voxel, in mm."""

    def curve(self, values: ScoreMap) -> tuple[tuple[float, float], ...]:
        """Return the mean of a map in bands of distance, as pairs of the band's middle in mm and the mean.

        Args:
            values: Map on the image's voxels.
        """
        inside = values[self.box.slices]
        band = np.minimum(self.distance_mm / STEP_MM, MARGIN_MM / STEP_MM).astype(np.int64)
        sums, counts = np.bincount(band.ravel(), inside.ravel()), np.bincount(band.ravel())
        bands = [index for index in np.flatnonzero(counts).tolist() if index < MARGIN_MM / STEP_MM]
        return tuple(((index + 0.5) * STEP_MM, float(sums[index] / counts[index])) for index in bands)

    def auc(self, values: ScoreMap) -> float:
        """Return how well a map tells voxels within `NEAR_MM` of a boundary from the others in the box.

        It is the probability that a near voxel has a larger value than another one (area under the ROC
        curve): 1 where all have, 0.5 where the map says nothing; NaN where all voxels are of one kind.

        Args:
            values: Map on the image's voxels.
        """
        every = max(1, self.distance_mm.size // MOST_VOXELS)
        inside, near = values[self.box.slices].ravel()[::every], self.distance_mm.ravel()[::every] <= NEAR_MM
        return roc_auc(inside, near)


def boundary_region(classes: LabelArray, spacing_mm: Vector3) -> BoundaryRegion | None:
    """Return the voxels around the boundaries of a segmentation; None if there is no boundary.

    Args:
        classes: Classes (S, P, L); 0 is the background.
        spacing_mm: Voxel size along S, P and L.
    """
    from scipy.ndimage import distance_transform_edt

    box = box_with_margin(classes > 0, spacing_mm)
    if box is None:
        return None
    boundary = boundary_of(classes[box.slices])
    if not boundary.any():
        return None
    return BoundaryRegion(box=box, distance_mm=distance_transform_edt(~boundary, sampling=spacing_mm))


def roc_auc(values: Float[np.ndarray, " N"], positive: Bool[np.ndarray, " N"]) -> float:
    """Return the area under the ROC curve, from the ranks of the positive values (Mann and Whitney 1947).

    Equal values share their rank. NaN if there are no positive or no negative values.
    """
    from scipy.stats import rankdata

    n = int(np.count_nonzero(positive))
    others = positive.size - n
    if not n or not others:
        return math.nan
    ranks = rankdata(values)[positive].sum()
    return float((ranks - n * (n + 1) / 2) / (n * others))
