"""Errors of a segmentation by the distance to the true boundary, and by how well the image shows it.

A boundary voxel has a face neighbour of another class in the reference. The image's contrast there is the
magnitude of its gradient after smoothing. In each case the quarter of the boundary with the least contrast
counts as blurred: what blurs it differs (partial volume, dose, no contrast between the tissues), and images
of different modalities have no common unit.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Num

from autospine.core.geometry import Box
from autospine.core.types import LabelArray, MaskArray, Vector3

EDGES_MM = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Lower ends of the bands of distance; the last one is open."""

NEAR_MM = 2.0
"""Distance within which a voxel belongs to its nearest boundary voxel: about the thickness of cortical bone
with the blur of a CT."""

BLURRED = 0.25
"""Share of a case's boundary that counts as blurred, that with the least contrast."""

SMOOTHING_MM = 1.0
"""Standard deviation of the Gaussian before the gradient is taken."""

MARGIN_MM = 12.0
"""Margin around everything labelled or predicted, beyond which nothing is counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundaryErrors:
    """Numbers of voxels, and of wrong ones among them, in one case or in the sum of several."""

    voxels: tuple[int, ...]
    """Voxels in each band of `EDGES_MM`."""

    wrong: tuple[int, ...]
    """Wrong voxels in each."""

    blurred: tuple[int, int]
    """Wrong voxels, and all, within `NEAR_MM` of the blurred quarter of the boundary."""

    sharp: tuple[int, int]
    """The same of the rest of the boundary."""

    @property
    def rates(self) -> tuple[float, ...]:
        """Share of wrong voxels in each band; NaN where there are none at all."""
        return tuple(_share(wrong, n) for wrong, n in zip(self.wrong, self.voxels, strict=True))

    @property
    def blurred_rate(self) -> float:
        """Share of wrong voxels near the blurred boundary; NaN if there is no boundary."""
        return _share(*self.blurred)

    @property
    def sharp_rate(self) -> float:
        """Share of wrong voxels near the rest of it; NaN if there is none."""
        return _share(*self.sharp)


def boundary_errors(
    image: Num[np.ndarray, "S P L"], prediction: LabelArray, reference: LabelArray, spacing_mm: Vector3
) -> BoundaryErrors | None:
    """Count the wrong voxels of a case by distance and contrast; None if the reference has no boundary.

    Args:
        image: Image (S, P, L) in any unit.
        prediction: Predicted classes (S, P, L); 0 is the background.
        reference: True classes of the same shape.
        spacing_mm: Voxel size along S, P and L.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_gradient_magnitude

    box = box_with_margin((prediction > 0) | (reference > 0), spacing_mm)
    if box is None:
        return None
    cut = box.slices
    wrong, true = (prediction != reference)[cut], reference[cut]
    boundary = boundary_of(true)
    if not boundary.any():
        return None
    distance, nearest = distance_transform_edt(~boundary, sampling=spacing_mm, return_indices=True)
    sigma = [SMOOTHING_MM / step for step in spacing_mm]
    contrast = gaussian_gradient_magnitude(image[cut].astype(np.float32), sigma)
    limit = np.quantile(contrast[boundary], BLURRED)
    near = distance <= NEAR_MM
    is_blurred = contrast[tuple(nearest)] <= limit
    band = np.digitize(distance, EDGES_MM) - 1
    counts = [np.bincount(values, minlength=len(EDGES_MM)) for values in (band.ravel(), band[wrong])]
    return BoundaryErrors(
        voxels=tuple(counts[0].tolist()),
        wrong=tuple(counts[1].tolist()),
        blurred=_counted(wrong, near & is_blurred),
        sharp=_counted(wrong, near & ~is_blurred),
    )


def box_with_margin(mask: MaskArray, spacing_mm: Vector3) -> Box | None:
    """Return the box around a mask (S, P, L) with a margin of `MARGIN_MM`; None if it is empty."""
    found = Box.around(mask)
    if found is None:
        return None
    margins = (math.ceil(MARGIN_MM / step) for step in spacing_mm)
    axes = zip(found.start, found.stop, mask.shape, margins, strict=True)
    return Box.of(slice(max(0, first - margin), min(n, last + margin)) for first, last, n, margin in axes)


def boundary_of(classes: LabelArray) -> MaskArray:
    """Return the voxels (S, P, L) that have a face neighbour of another class."""
    found = np.zeros(classes.shape, dtype=bool)
    for axis in range(classes.ndim):
        along, marked = np.moveaxis(classes, axis, 0), np.moveaxis(found, axis, 0)
        differs = along[1:] != along[:-1]
        marked[1:] |= differs
        marked[:-1] |= differs
    return found


def _counted(wrong: MaskArray, where: MaskArray) -> tuple[int, int]:
    return int(np.count_nonzero(wrong & where)), int(np.count_nonzero(where))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
