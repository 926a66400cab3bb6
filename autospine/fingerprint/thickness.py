"""The thickness of a structure, from the distances of its points to its surface."""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from autospine.core.types import MaskArray, Vector3

LATTICE_POINTS = 6_000_000
"""Points per case at which distances are computed, shared among its classes: about half a second of work."""


def measure_thickness(mask: MaskArray, spacing_mm: Vector3, points: int = LATTICE_POINTS) -> float:
    """Return four times the mean distance of a structure's points to its surface, in mm.

    In a plate of thickness t the distance is spread evenly over 0 ... t/2, so its mean is t/4, and four times
    the mean gives t. For a rod the result is two thirds of the diameter, for a ball half of it. It is at
    least the shortest edge of a voxel.

    Distances are computed on a lattice of half voxels: voxel centres, and the middles of the faces, edges and
    corners between them. The surface runs through points of the lattice, so that a plate of n voxels is
    exactly n voxels thick. A structure with more than `points` lattice points is subsampled to every second,
    third ... voxel, the finest axis first; what is thinner than such a step is found as thick as the step.

    Args:
        mask: A structure (S, P, L) of at least one voxel, best cut to its bounding box; outside the array
            there is no structure.
        spacing_mm: Voxel size along S, P, L.
        points: Most points of the lattice, about.
    """
    steps = subsampling_steps(mask.shape, spacing_mm, points)
    inside = _subsampled(mask, steps)
    step = np.asarray(spacing_mm) * steps / 2
    distance = ndimage.distance_transform_edt(_half_voxels(inside), sampling=step)
    # The trapezoidal rule: points on the surface add nothing, and each other one stands for 1/8 voxel.
    mean = float(distance.sum() / (8 * np.count_nonzero(inside)))
    # The lattice has too few points inside a single voxel or a thread; nothing is thinner than a voxel.
    return round(max(4 * mean, min(spacing_mm)), 2)


def subsampling_steps(shape: tuple[int, ...], spacing_mm: Vector3, points: int) -> tuple[int, ...]:
    """Return the steps in voxels along each axis that leave at most about `points` lattice points."""
    steps = np.ones(3, dtype=int)
    while 8 * np.prod(np.ceil(np.asarray(shape) / steps)) > points:
        longest = np.where(steps < shape, np.asarray(spacing_mm) * steps, np.inf)
        if not np.isfinite(longest).any():
            break
        steps[np.argmin(longest)] += 1
    return tuple(int(step) for step in steps)


def _subsampled(mask: MaskArray, steps: tuple[int, ...]) -> Bool[np.ndarray, "s p l"]:
    """Return every `steps`-th voxel along each axis, from where at least one of them is inside."""
    if max(steps) == 1:
        return mask
    voxels = np.flatnonzero(mask)
    middle = np.unravel_index(voxels[len(voxels) // 2], mask.shape)
    return mask[tuple(slice(int(at) % step, None, step) for at, step in zip(middle, steps, strict=True))]


def _half_voxels(inside: MaskArray) -> Bool[np.ndarray, "2*S+1 2*P+1 2*L+1"]:
    """Return the lattice of half voxels; voxel centres lie at odd places.

    A point is inside if more of the voxels that it touches are inside than outside. So faces are on the
    surface, and of a staircase the inner corners are inside and the outer ones outside.
    """
    touching = inside.astype(np.uint8)
    for axis in range(3):
        along = np.moveaxis(touching, axis, 0)
        finer = np.zeros((2 * len(along) + 1, *along.shape[1:]), dtype=np.uint8)
        finer[1::2] = 2 * along
        finer[:-1:2] += along
        finer[2::2] += along
        touching = np.moveaxis(finer, 0, axis)
    # Each point counts eight voxels; a voxel counts twice along every axis on whose middle the point lies.
    half: np.ndarray = touching > 4
    return half
