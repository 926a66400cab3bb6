"""Cutting patches, exactly or turned, scaled and bent.

Only the box of the case that a patch needs is read, and only the patch itself is interpolated.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Float64, UInt8

from autospine.core.geometry import Box
from autospine.core.types import ImageArray, LabelArray, Shape3, Vector3
from autospine.plan import Augmentation
from autospine.preprocessing.normalise import IntensityTransform
from autospine.preprocessing.store import StoredCase

CONTROL_MM = 32.0
"""Distance, about, of the elastic displacement's control points: more than a vertebra is high."""

STEEPEST = 2.5
"""Control points move by at most this many standard deviations, so that space is never folded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deformation:
    """From a position in the patch to the one in the case that is seen there, about the patch's centre."""

    matrix: Float64[np.ndarray, "3 3"]
    """Acts on offsets in mm."""

    displacement: Float32[np.ndarray, "3 s p l"] | None
    """Added to that, in mm: values at control points that span the patch."""


def draw_deformation(
    rng: np.random.Generator, strength: Augmentation, patch_size: Shape3, spacing_mm: Vector3
) -> Deformation:
    """A random rotation, zoom and elastic displacement.

    Args:
        rng: the patch's own.
        strength: largest angles, range of the zoom (drawn evenly on a logarithmic scale), and the standard
            deviation of the displacement.
        patch_size: voxels.
        spacing_mm: voxel size.
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
    """An exact part of a case.

    Args:
        case: where to cut.
        start: first voxel, possibly outside.
        size: voxels of the patch.
        transform: to normalise with instead of the case's own.

    Returns:
        Normalised image (C, *size), outside the case as dark as the clipping range allows, and stored label
        indices of `size`, outside the case 0.
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


def warp(
    case: StoredCase,
    start: Shape3,
    size: Shape3,
    deformation: Deformation,
    spacing_mm: Vector3,
    transform: IntensityTransform | None = None,
) -> tuple[ImageArray, LabelArray]:
    """Like `cut`, seen through a deformation: linear for the image, nearest for the labels."""
    planes = _coordinates(start, size, deformation, spacing_mm)
    extremes = [(int(x.min().floor()), int(x.max().ceil()) + 1) for x in planes]
    # A box of at least one voxel, wherever the patch lies.
    first = [min(max(a, 0), n - 1) for (a, _), n in zip(extremes, case.shape, strict=True)]
    last = [max(min(b, n), a + 1) for (_, b), n, a in zip(extremes, case.shape, first, strict=True)]
    box = _box(first, last)
    planes = [x - a for x, a in zip(planes, box.start, strict=True)]
    outside = any(a < 0 or b > n for (a, b), n in zip(extremes, case.shape, strict=True))
    transform = transform or case.record.transform
    image = _linear(case.image(box, transform), planes, transform.background)
    return image, _nearest(case.labels(box), planes, outside)


def _coordinates(
    start: Shape3, size: Shape3, deformation: Deformation, spacing_mm: Vector3
) -> list[torch.Tensor]:
    """For each axis, the position in case voxels that is seen at each patch voxel."""
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


def _spread(control: Float32[np.ndarray, "s p l"], size: Shape3) -> torch.Tensor:
    """Values at control points, the outermost at the patch's outermost voxels, interpolated linearly."""
    field = torch.from_numpy(control)
    for n in size:
        # The first axis goes last; after three turns the axes are in order again.
        field = torch.tensordot(field, _between(field.shape[0], n), dims=([0], [1]))
    return field


def _between(points: int, n: int) -> torch.Tensor:
    position = torch.linspace(0, points - 1, n) if n > 1 else torch.full((1,), (points - 1) / 2)
    return (1 - (position[:, None] - torch.arange(points)).abs()).clamp_(min=0)


def _linear(
    image: ImageArray, planes: list[torch.Tensor], background: tuple[float, ...]
) -> Float32[np.ndarray, "C s p l"]:
    dark = np.asarray(background, dtype=np.float32).reshape(-1, 1, 1, 1)
    source = torch.from_numpy(image - dark)[None]
    grid = torch.stack(
        [(2 * x + 1) / n - 1 for x, n in zip(planes, source.shape[2:], strict=True)][::-1], dim=-1
    )
    # Zeros outside are the background once it is added again.
    values = F.grid_sample(source, grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)
    sampled: np.ndarray = values[0].numpy() + dark
    return sampled


def _nearest(labels: LabelArray, planes: list[torch.Tensor], outside: bool) -> UInt8[np.ndarray, "s p l"]:
    rounded = [(x + 0.5).floor_().int() for x in planes]
    near = [x.clamp(0, n - 1) for x, n in zip(rounded, labels.shape, strict=True)]
    index = (near[0] * labels.shape[1] + near[1]).mul_(labels.shape[2]).add_(near[2])
    found = torch.from_numpy(labels.reshape(-1))[index.long()]
    if outside:
        for a, b in zip(rounded, near, strict=True):
            found.masked_fill_(a != b, 0)
    return found.numpy()


def _rotation(axis: int, angle: float) -> np.ndarray:
    matrix = np.eye(3)
    a, b = [k for k in range(3) if k != axis]
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def _box(start: list[int], stop: list[int]) -> Box:
    return Box(start=(start[0], start[1], start[2]), stop=(stop[0], stop[1], stop[2]))
