"""How thick a structure is, from the distances of its points to its surface."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import cdist

from autospine.core.types import MaskArray, Vector3
from autospine.fingerprint.facts import Percentiles

LATTICE_POINTS = 6_000_000
"""Points per case at which distances are computed, shared among its classes: about a second of work."""

PROBES = 400
"""Voxels of a structure whose local thickness is looked up. A percentile drawn from so many is off by two or
three percent points (standard error of a proportion)."""

BALLS_AT_ONCE = 512
"""Balls that are compared with all probes in one step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thickness:
    """What `measure_thickness` finds, in mm."""

    typical_mm: float
    """Four times the mean distance to the surface, at least the shortest edge of a voxel."""

    local_mm: Percentiles
    """Percentiles of the local thickness over the structure."""


def measure_thickness(mask: MaskArray, spacing_mm: Vector3, points: int = LATTICE_POINTS) -> Thickness:
    """Typical and local thickness of a structure.

    Both come from distances to the surface on a lattice of half voxels: voxel centres, and the middles of
    the faces, edges and corners between them. The surface runs through points of it, so that a plate of any
    number of voxels is exactly as thick as they are.

    - typical: in a plate of thickness t the distance is spread evenly over 0 ... t/2, so its mean is t/4, and
      four times the mean gives t; two thirds of the diameter for a rod, half of it for a ball. At least the
      shortest edge of a voxel.
    - local (Hildebrand and Rüegsegger, J. Microscopy 185, 1997): the diameter of the largest ball that holds
      the point and lies inside the structure. t for a plate, the diameter for rods and balls.

    Structures of more than `points` lattice points are thinned to every second, third ... voxel, the finest
    axis first; what is thinner than that step is found as thick as the step.

    Args:
        mask: with at least one voxel, best cut to its bounding box; what lies outside is not the structure.
        spacing_mm: voxel size.
        points: of the lattice, at most about.
    """
    steps = thinning(mask.shape, spacing_mm, points)
    inside = _thinned(mask, steps)
    step = np.asarray(spacing_mm) * steps / 2
    distance = ndimage.distance_transform_edt(_half_voxels(inside), sampling=step)
    # The trapezoidal rule: points on the surface add nothing, and each other one stands for 1/8 voxel.
    mean = float(distance.sum() / (8 * np.count_nonzero(inside)))
    # Of a single voxel or a thread the lattice holds too few points; nothing is thinner than a voxel.
    typical = max(4 * mean, min(spacing_mm))
    local = np.percentile(_local_thickness(distance, step, inside), [10, 50, 90])
    p10, p50, p90 = (round(float(value), 2) for value in local)
    return Thickness(typical_mm=round(typical, 2), local_mm=Percentiles(p10=p10, p50=p50, p90=p90))


def thinning(shape: tuple[int, ...], spacing_mm: Vector3, points: int) -> tuple[int, ...]:
    """Steps in voxels along each axis that leave at most about `points` points of the lattice."""
    steps = np.ones(3, dtype=int)
    while 8 * np.prod(np.ceil(np.asarray(shape) / steps)) > points:
        longest = np.where(steps < shape, np.asarray(spacing_mm) * steps, np.inf)
        if not np.isfinite(longest).any():
            break
        steps[np.argmin(longest)] += 1
    return tuple(int(step) for step in steps)


def _thinned(mask: MaskArray, steps: tuple[int, ...]) -> np.ndarray:
    """Every so many voxels, among them one that is inside."""
    if max(steps) == 1:
        return mask
    voxels = np.flatnonzero(mask)
    one = np.unravel_index(voxels[len(voxels) // 2], mask.shape)
    return mask[tuple(slice(int(at) % step, None, step) for at, step in zip(one, steps, strict=True))]


def _half_voxels(inside: np.ndarray) -> np.ndarray:
    """2n+1 points per axis, voxel centres at odd places; inside is what more voxels touch than not.

    So faces are on the surface, and of a staircase the inner corners are inside and the outer ones outside.
    """
    touching = inside.astype(np.uint8)
    for axis in range(3):
        along = np.moveaxis(touching, axis, 0)
        finer = np.zeros((2 * len(along) + 1, *along.shape[1:]), dtype=np.uint8)
        finer[1::2] = 2 * along
        finer[:-1:2] += along
        finer[2::2] += along
        touching = np.moveaxis(finer, 0, axis)
    # Of the eight voxels around a point, with those counted twice on which it lies.
    half: np.ndarray = touching > 4
    return half


def _local_thickness(distance: np.ndarray, step: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Local thickness in mm of some voxels: of the balls that hold a voxel's centre the largest.

    Args:
        distance: to the surface in mm, on the lattice.
        step: of the lattice in mm.
        inside: the structure's voxels.
    """
    # A voxel counts as held when a ball reaches its surface, half a voxel before its centre: otherwise the
    # corners of a staircase, which only small balls reach, would pass for thin parts of a thick structure.
    half = step.max()
    voxels = np.flatnonzero(inside)
    drawn = voxels[np.linspace(0, len(voxels) - 1, min(PROBES, len(voxels))).astype(int)]
    probes = (2 * np.stack(np.unravel_index(drawn, inside.shape), axis=1) + 1) * step
    places = np.argwhere(_is_largest(distance, step))
    radii = distance[tuple(places.T)]
    order = np.argsort(-radii)
    places, radii = places[order] * step, radii[order]
    found, left = np.zeros(len(probes)), np.arange(len(probes))
    for start in range(0, len(radii), BALLS_AT_ONCE):
        part = slice(start, start + BALLS_AT_ONCE)
        holds = cdist(probes[left], places[part]) < radii[part] + half
        held = holds.any(axis=1)
        found[left[held]] = 2 * radii[part][holds[held].argmax(axis=1)]
        left = left[~held]
        if not left.size:
            break
    return found


def _is_largest(distance: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Points whose ball is not inside the ball of one of the 26 neighbours; the others' need not be tried."""
    offsets = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1) * step
    apart = np.linalg.norm(offsets, axis=-1)
    apart[1, 1, 1] = np.inf
    reach = ndimage.grey_dilation(distance, structure=-apart, mode="constant", cval=0.0)
    # Rounding must not make a ball seem to stand out of one that it touches from inside.
    largest: np.ndarray = (distance > 0) & (distance > reach + 1e-6 * step.min())
    return largest
