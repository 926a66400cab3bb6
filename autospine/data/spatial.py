"""Patches cut from a case, either exact or rotated, scaled and elastically deformed.

Only the box of the case that a patch needs is read, and only the patch itself is interpolated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Float64, Int32, Integer

from autospine.core.geometry import Box, triple
from autospine.core.types import ImageArray, LabelArray, Matrix3, Shape3, Vector3
from autospine.plan import Augmentation
from autospine.preprocessing.normalise import IntensityTransform
from autospine.preprocessing.store import StoredCase

CONTROL_MM = 32.0
"""Approximate distance of the elastic displacement's control points, larger than the height of a vertebra."""

STEEPEST = 2.5
"""Largest displacement of a control point in standard deviations, so that space never folds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deformation:
    """Map from positions in the patch to those in the case, relative to the centre of the patch."""

    matrix: Float64[np.ndarray, "3 3"]
    """Linear part, which acts on offsets in mm."""

    displacement: Float32[np.ndarray, "3 s p l"] | None
    """Displacement in mm at control points that span the patch, added to the linear part; None for none."""


def draw_deformation(
    rng: np.random.Generator, strength: Augmentation, patch_size: Shape3, spacing_mm: Vector3
) -> Deformation:
    """Draw a random rotation, zoom and elastic displacement.

    Args:
        rng: Random generator of the patch.
        strength: Largest angles, range of the zoom (uniform on a logarithmic scale) and standard deviation of
            the displacement.
        patch_size: Patch size in voxels (S, P, L).
        spacing_mm: Voxel size (S, P, L).
    """
    matrix = np.eye(3)
    for axis, largest in enumerate(strength.rotation_deg):
        matrix = matrix @ _rotation(axis, np.deg2rad(rng.uniform(-largest, largest)))
    matrix = matrix / np.exp(rng.uniform(*np.log(strength.scale)))
    if strength.elastic_mm == 0:
        return Deformation(matrix=matrix, displacement=None)
    points = [max(2, round(n * d / CONTROL_MM) + 1) for n, d in zip(patch_size, spacing_mm, strict=True)]
    drawn = np.clip(rng.standard_normal((3, *points), dtype=np.float32), -STEEPEST, STEEPEST)
    return Deformation(matrix=matrix, displacement=drawn * np.float32(strength.elastic_mm))


def cut(
    case: StoredCase, start: Shape3, size: Shape3, transform: IntensityTransform | None = None
) -> tuple[ImageArray, LabelArray]:
    """Cut a patch without interpolation.

    Args:
        case: Stored case.
        start: First voxel (S, P, L), possibly outside the case.
        size: Patch size in voxels (S, P, L).
        transform: Intensity transform that replaces that of the case; None for that of the case.

    Returns:
        Normalised image (C, S, P, L), which outside the case has the lower clipping bound, and stored indices
        (S, P, L), which are 0 outside the case.
    """
    first = [min(max(a, 0), end) for a, end in zip(start, case.shape, strict=True)]
    last = [min(max(a + n, 0), end) for a, n, end in zip(start, size, case.shape, strict=True)]
    box = _box(first, last)
    transform = transform or case.record.transform
    if box.shape == size:
        return case.image(box, transform), case.labels(box)
    image = np.empty((case.record.channels, *size), dtype=np.float32)
    image[:] = np.asarray(transform.background).reshape(-1, 1, 1, 1)
    labels = np.zeros(size, dtype=np.uint8)
    if all(box.shape):
        s, p, left = (slice(b - a, e - a) for a, b, e in zip(start, first, last, strict=True))
        image[:, s, p, left] = case.image(box, transform)
        labels[s, p, left] = case.labels(box)
    return image, labels


def cut_maps(
    case: StoredCase,
    start: Shape3,
    size: Shape3,
    deformation: Deformation | None,
    spacing_mm: Vector3,
) -> tuple[LabelArray, Int32[np.ndarray, "s p l"]]:
    """Cut the labels and the tissue map of a patch, by nearest neighbours where it is deformed.

    Args:
        case: Stored case that has a tissue map.
        start: First voxel (S, P, L) of the undeformed patch, possibly outside the case.
        size: Patch size in voxels (S, P, L).
        deformation: Map from positions in the patch to those in the case; None for none.
        spacing_mm: Voxel size (S, P, L).

    Returns:
        Stored indices and packed tissues; both are 0 outside the case.
    """
    still = Deformation(matrix=np.eye(3), displacement=None)
    planes = _coordinates(start, size, deformation or still, spacing_mm)
    box, outside = _reached(case, planes)
    planes = [x - a for x, a in zip(planes, box.start, strict=True)]
    return _nearest(case.labels(box), planes, outside), _nearest(case.tissues(box), planes, outside)


def warp_maps(
    maps: Sequence[Integer[np.ndarray, "S P L"]], deformation: Deformation, spacing_mm: Vector3
) -> list[Integer[np.ndarray, "S P L"]]:
    """Deform whole maps alike, by nearest neighbours; what comes from outside is 0.

    Args:
        maps: Maps on one grid.
        deformation: Map from positions in the result to those in the maps.
        spacing_mm: Voxel size (S, P, L).
    """
    planes = _coordinates((0, 0, 0), triple(maps[0].shape), deformation, spacing_mm)
    return [_nearest(each, planes, outside=True) for each in maps]


def _reached(case: StoredCase, planes: list[Float32[torch.Tensor, "s p l"]]) -> tuple[Box, bool]:
    """Return the box of a case, of at least one voxel, that holds positions, and whether any lie outside."""
    extremes = [(int(x.min().floor()), int(x.max().ceil()) + 1) for x in planes]
    first = [min(max(a, 0), n - 1) for (a, _), n in zip(extremes, case.shape, strict=True)]
    last = [max(min(b, n), a + 1) for (_, b), n, a in zip(extremes, case.shape, first, strict=True)]
    outside = any(a < 0 or b > n for (a, b), n in zip(extremes, case.shape, strict=True))
    return _box(first, last), outside


def warp(
    case: StoredCase,
    start: Shape3,
    size: Shape3,
    deformation: Deformation,
    spacing_mm: Vector3,
    transform: IntensityTransform | None = None,
) -> tuple[ImageArray, LabelArray]:
    """Cut a deformed patch, with linear interpolation of the image and nearest neighbours of the labels.

    Args:
        case: Stored case.
        start: First voxel (S, P, L) of the undeformed patch, possibly outside the case.
        size: Patch size in voxels (S, P, L).
        deformation: Map from positions in the patch to those in the case.
        spacing_mm: Voxel size (S, P, L).
        transform: Intensity transform that replaces that of the case; None for that of the case.

    Returns:
        Image and stored indices as from `cut`.
    """
    planes = _coordinates(start, size, deformation, spacing_mm)
    box, outside = _reached(case, planes)
    planes = [x - a for x, a in zip(planes, box.start, strict=True)]
    transform = transform or case.record.transform
    image = _linear(case.image(box, transform), planes, transform.background)
    return image, _nearest(case.labels(box), planes, outside)


def _coordinates(
    start: Shape3, size: Shape3, deformation: Deformation, spacing_mm: Vector3
) -> list[Float32[torch.Tensor, "s p l"]]:
    """Compute, for each axis, the position in the case (in voxels) of every voxel of the patch."""
    spacing = np.asarray(spacing_mm)
    centre = (np.asarray(size) - 1) / 2
    in_voxels = deformation.matrix * spacing[None, :] / spacing[:, None]
    planes = []
    for axis in range(3):
        # A linear map of a regular grid is a sum of three lines.
        s, p, left = (
            torch.from_numpy((in_voxels[axis, k] * (np.arange(size[k]) - centre[k])).astype(np.float32))
            for k in range(3)
        )
        plane = (s + float(start[axis] + centre[axis]))[:, None, None] + (p[:, None] + left)
        if deformation.displacement is not None:
            plane += _spread(deformation.displacement[axis] / np.float32(spacing[axis]), size)
        planes.append(plane)
    return planes


def _spread(control: Float32[np.ndarray, "s p l"], size: Shape3) -> Float32[torch.Tensor, "S P L"]:
    """Interpolate values at control points linearly; the outer ones lie on the patch's outer voxels."""
    field = torch.from_numpy(control)
    for n in size:
        # tensordot moves the first axis to the end; after three times the axes are in order again.
        field = torch.tensordot(field, _between(field.shape[0], n), dims=([0], [1]))
    return field


def _between(points: int, n: int) -> Float32[torch.Tensor, "n points"]:
    """Return the weights of linear interpolation from control points to `n` voxels."""
    position = torch.linspace(0, points - 1, n) if n > 1 else torch.full((1,), (points - 1) / 2)
    return (1 - (position[:, None] - torch.arange(points)).abs()).clamp_(min=0)


def _linear(
    image: ImageArray, planes: list[Float32[torch.Tensor, "s p l"]], background: tuple[float, ...]
) -> Float32[np.ndarray, "C s p l"]:
    """Sample an image at positions in voxels by linear interpolation; outside it is the background."""
    dark = np.asarray(background, dtype=np.float32).reshape(-1, 1, 1, 1)
    source = torch.from_numpy(image - dark)[None]
    grid = torch.stack(
        [(2 * x + 1) / n - 1 for x, n in zip(planes, source.shape[2:], strict=True)][::-1], dim=-1
    )
    # Zeros outside are the background once it is added again.
    values = F.grid_sample(source, grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)
    sampled: np.ndarray = values[0].numpy() + dark
    return sampled


def _nearest(
    labels: Integer[np.ndarray, "S P L"], planes: list[Float32[torch.Tensor, "s p l"]], outside: bool
) -> Integer[np.ndarray, "s p l"]:
    """Sample a map at the voxels nearest to positions; it is 0 outside, where `outside` says any lies."""
    rounded = [(x + 0.5).floor_().int() for x in planes]
    near = [x.clamp(0, n - 1) for x, n in zip(rounded, labels.shape, strict=True)]
    index = (near[0] * labels.shape[1] + near[1]).mul_(labels.shape[2]).add_(near[2])
    sampled = torch.from_numpy(labels.reshape(-1))[index.long()]
    if outside:
        for a, b in zip(rounded, near, strict=True):
            sampled.masked_fill_(a != b, 0)
    return sampled.numpy()


def _rotation(axis: int, angle: float) -> Matrix3:
    """Return the matrix of a rotation around an axis by an angle in radians."""
    matrix = np.eye(3)
    a, b = [k for k in range(3) if k != axis]
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def _box(start: list[int], stop: list[int]) -> Box:
    return Box(start=triple(start), stop=triple(stop))
