"""Area and diameters of the spinal canal at a vertebra."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from autospine.measurements.body_frame import STEP_MM, Axes, LabelCrop, VertebralBody, axes_at, sample_block

REACH_MM = (22.0, 22.0, 15.0)
"""Half of the block in which a canal is sampled."""

SLAB = 0.25
"""Half of the slab over which the area is averaged, in parts of the body's height."""

FARTHEST_MM = 30.0
"""Distance from the body's centre beyond which voxels of the canal are no longer those of this level."""

LEAST_MM2 = 30.0
"""No canal of an adult is as narrow; a smaller area is a piece of a label."""

MIDLINE_MM = 1.5
"""Half width of the strip in which the anteroposterior diameter is measured."""

PLAUSIBLE_DEPTH_MM = (10.0, 27.0)
"""Anteroposterior diameters between which no doubt is noted: below the first a canal counts as stenosed
(Verbiest, J Bone Joint Surg Br 36, 1954), and hardly any is as deep as the second."""

LEAST_RINGS = 3
"""Planes in which the vertebra has to close a ring."""


class CanalSize(NamedTuple):
    """The canal at one vertebra."""

    area_mm2: float
    depth_mm: float
    """Anteroposterior diameter in the midline."""

    width_mm: float


def canal_at(crop: LabelCrop, integers: Sequence[int], body: VertebralBody) -> CanalSize | None:
    """Measure a labelled canal across its own axis, at the middle of a body.

    Args:
        crop: Part of the map around the vertebra.
        integers: Label values of the canal, and of what lies in it.
        body: The vertebra's body.

    Returns:
        None if the canal is not labelled there from wall to wall.
    """
    frame = _canal_frame(crop, integers, body)
    if frame is None:
        return None
    block = sample_block(crop, integers, frame, REACH_MM)
    planes = block.values[:, :, np.abs(block.z) <= SLAB * body.height_mm]
    areas = planes.sum(axis=(0, 1)) * STEP_MM**2
    if areas.min() < LEAST_MM2:
        return None
    return _size(planes.mean(axis=2), block.x)


def ring_at(body: VertebralBody) -> CanalSize | None:
    """Measure the opening that a whole vertebra encloses behind its body; None if it closes no ring."""
    x, y, z, values = body.block
    behind = int(np.abs(y - body.depth_mm / 2 - 4).argmin())
    middle = int(np.abs(x).argmin())
    holes = []
    for k in np.flatnonzero(np.abs(z) < 0.75 * body.height_mm):
        bone = values[:, :, k] > 0.5
        hole = ndimage.binary_fill_holes(bone) & ~bone
        numbers, n = ndimage.label(hole)
        number = numbers[middle, behind]
        if n and number:
            own = (numbers == number).astype(np.float32)
            edge = ndimage.binary_dilation(own > 0) & (own == 0)
            own[edge] = 1 - values[:, :, k][edge]
            holes.append(own)
    sized = [each for each in holes if each.sum() * STEP_MM**2 > LEAST_MM2]
    if len(sized) < LEAST_RINGS:
        return None
    found = sorted((_size(each, x) for each in sized), key=lambda size: size.area_mm2)
    return found[len(found) // 2]


def _canal_frame(crop: LabelCrop, integers: Sequence[int], body: VertebralBody) -> Axes | None:
    """Return the frame at the canal's centre behind a body, upright along the canal."""
    index = np.argwhere(np.isin(crop.labels, integers)) + crop.box.start
    local = body.frame.local(crop.grid.physical(index))
    half = max(body.height_mm / 2, max(crop.grid.spacing_mm))
    near = local[
        (np.abs(local[:, 2]) < 1.5 * half)
        & (np.linalg.norm(local[:, :2], axis=1) < FARTHEST_MM + body.depth_mm / 2)
    ]
    if len(near) < 8:
        return None
    # The canal's axis is the line through the centres of its slices.
    z = near[:, 2]
    basis = np.column_stack([np.ones(len(z)), z])
    lines = np.linalg.lstsq(basis, near[:, :2], rcond=None)[0]
    centre = body.frame.at(lines[0, 0], lines[0, 1], 0.0)
    up = body.frame.axes @ np.array([lines[1, 0], lines[1, 1], 1.0])
    return axes_at(centre, up, body.frame.axes[:, 1])


def _size(plane: Float32[np.ndarray, "X Y"], x: np.ndarray) -> CanalSize:
    """Return the size of a cross-section (left, posterior), whose samples are parts of 1."""
    across = float((plane.sum(axis=1) * x).sum() / plane.sum())
    depth = float(plane[np.abs(x - across) <= MIDLINE_MM].mean(axis=0).sum()) * STEP_MM
    widths = plane.sum(axis=0) * STEP_MM
    return CanalSize(float(plane.sum()) * STEP_MM**2, depth, float(np.sort(widths)[-5:].mean()))
