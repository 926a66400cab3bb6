"""The space between two vertebrae, and the sacral endplate."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autospine.core.types import Position
from autospine.measurements.body_frame import (
    FOOTPRINT,
    STEP_MM,
    Axes,
    LabelCrop,
    SampledBlock,
    VertebralBody,
    axes_at,
    fitted_plane,
    inside_ellipse,
    sample_block,
    surface,
)
from autospine.measurements.body_lengths import EDGE, PATCH

REACH_MM = (30.0, 30.0, 24.0)
"""Half of the block that is sampled around a disc."""

WITHIN_MM = 6.0
"""Depth below an endplate from which its surface is sought."""

LARGEST_GAP_MM = 24.0
"""Farthest that two neighbouring endplates lie apart; beyond, a vertebra between them is not labelled."""

TOUCHING_MM = 0.5
"""Distance of endplates that touch."""

FUSED = 0.2
"""Share of an endplate that touches the next one from which the two count as fused."""

SACRAL_ROUNDS = 4
LEAST_SACRAL = 0.75
"""Share of the columns below the last vertebra that must meet the sacrum."""


class DiscSpace(NamedTuple):
    """Distances of two endplates, along the mean of their normals."""

    height_mm: float
    anterior_mm: float
    posterior_mm: float
    touching: float
    """Share of the columns in which the endplates touch."""


class Endplate(NamedTuple):
    """An endplate's plane and how large it is."""

    middle_mm: Position
    normal: Position
    """Unit vector to the head."""

    back_corner_mm: Position
    """Its posterior end in the midline."""

    front_corner_mm: Position
    depth_mm: float


def endplate_of(body: VertebralBody, *, cranial: bool) -> Endplate:
    """Return an endplate of a vertebral body."""
    middle, normal = body.endplate(cranial=cranial)
    back, front = (body.corner(anterior=anterior, cranial=cranial) for anterior in (False, True))
    return Endplate(middle, normal, back, front, body.depth_mm)


def disc_space(
    crop: LabelCrop,
    upper: tuple[int, Endplate],
    lower: tuple[Sequence[int], Endplate],
    width_mm: float,
) -> DiscSpace | None:
    """Measure the space between two endplates.

    Args:
        crop: Part of the map that holds both.
        upper: Label value of the upper vertebra, and its lower endplate.
        lower: Label values of the lower one or the sacrum, and its upper endplate.
        width_mm: Width of the narrower one.

    Returns:
        None if they lie too far apart to be neighbours, or if the upper one lies below the lower one.
    """
    (integer, above), (integers, below) = upper, lower
    between = above.middle_mm - below.middle_mm
    if float(np.linalg.norm(between)) > LARGEST_GAP_MM:
        return None
    normal = above.normal + below.normal
    back = (above.back_corner_mm - above.front_corner_mm) + (below.back_corner_mm - below.front_corner_mm)
    frame = axes_at((above.middle_mm + below.middle_mm) / 2, normal, back)
    rise = float(between @ frame.axes[:, 2])
    if rise < -WITHIN_MM:
        return None
    start = 0.5 * rise + WITHIN_MM
    high, low = (sample_block(crop, labels, frame, REACH_MM) for labels in ([integer], integers))
    gap = surface(high, start, -1) - surface(low, -start, 1)
    depth = min(above.depth_mm, below.depth_mm)
    inside = inside_ellipse(high.x, high.y, FOOTPRINT * width_mm, FOOTPRINT * depth)
    inside &= (_plane_at(high, start) > 0.5) & (_plane_at(low, -start) > 0.5)
    if inside.sum() < 9:
        return None
    wide = np.abs(high.x) <= PATCH[0] * width_mm
    at = (0.5 - EDGE) * depth
    front, back_end = (
        float(gap[wide][:, np.abs(high.y - y) <= PATCH[1] * depth + STEP_MM / 2].mean()) for y in (-at, at)
    )
    return DiscSpace(
        height_mm=float(gap[inside].mean()),
        anterior_mm=front,
        posterior_mm=back_end,
        touching=float((gap[inside] < TOUCHING_MM).mean()),
    )


def _plane_at(block: SampledBlock, z_mm: float) -> np.ndarray:
    """Return the samples of the plane next to a height."""
    plane: np.ndarray = block.values[:, :, int(np.abs(block.z - z_mm).argmin())]
    return plane


def sacral_endplate(crop: LabelCrop, integers: Sequence[int], last: VertebralBody) -> Endplate | None:
    """Find the upper endplate of the sacrum below the last vertebra; None where the sacrum is not there.

    Args:
        crop: Part of the map that holds both.
        integers: Label values of the sacrum.
        last: Body of the vertebra above.
    """
    above = endplate_of(last, cranial=False)
    frame = axes_at(above.middle_mm - 12.0 * above.normal, above.normal, last.frame.axes[:, 1])
    depth, width = last.depth_mm, last.width_mm
    found = None
    for _ in range(SACRAL_ROUNDS):
        block = sample_block(crop, integers, frame, REACH_MM)
        tops = _tops(block)
        columns = inside_ellipse(block.x, block.y, FOOTPRINT * width, FOOTPRINT * depth)
        met = columns & np.isfinite(tops)
        if met.sum() < max(9.0, LEAST_SACRAL * columns.sum()):
            return None
        plane = fitted_plane(np.where(met, tops, 0), met, block.x, block.y)
        off = np.abs(tops - plane[0] - plane[1] * block.x[:, None] - plane[2] * block.y[None, :])
        kept = met & (np.where(met, off, np.inf) <= max(3.0, 2.5 * float(np.median(off[met]))))
        plane = fitted_plane(np.where(kept, tops, 0), kept, block.x, block.y)
        normal = frame.axes @ np.array([-plane[1], -plane[2], 1.0])
        middle, front, back = _sacral_extent(block, frame, plane, depth)
        found = Endplate(
            middle, normal / np.linalg.norm(normal), back, front, float(np.linalg.norm(back - front))
        )
        frame = axes_at(middle, normal, last.frame.axes[:, 1])
    return found


def _tops(block: SampledBlock) -> np.ndarray:
    """Return the height at which each column meets bone from above; infinite where it meets none."""
    bone = block.values > 0.5
    place = bone.shape[2] - 1 - bone[:, :, ::-1].argmax(axis=2)
    i, j = np.indices(place.shape)
    inner = block.values[i, j, place]
    outer = block.values[i, j, np.minimum(place + 1, bone.shape[2] - 1)]
    part = np.clip((inner - 0.5) / np.maximum(inner - outer, 1e-6), 0, 1)
    return np.where(bone.any(axis=2), block.z[place] + part * STEP_MM, np.inf)


def _sacral_extent(
    block: SampledBlock, frame: Axes, plane: np.ndarray, depth_mm: float
) -> tuple[Position, Position, Position]:
    """Return the middle, front and back of the sacral endplate in the midline, just below its plane."""
    a, _, c = plane
    heights = a + c * block.y - 2.0
    column = np.array(
        [
            np.interp(h, block.z, row)
            for h, row in zip(heights, block.values[np.abs(block.x) <= 4].mean(axis=0), strict=True)
        ]
    )
    bone = np.flatnonzero(column > 0.5)
    near = bone[np.abs(block.y[bone]) <= 0.75 * depth_mm]
    front = float(block.y[near[0]]) if len(near) else -depth_mm / 2
    # Behind the endplate the sacral canal begins; where its roof is joined, the vertebra's depth holds.
    gaps = np.flatnonzero(np.diff(near) > 1)
    back = float(block.y[near[gaps[0]] if len(gaps) else near[-1]]) if len(near) else depth_mm / 2
    back = min(back, front + 1.15 * depth_mm)
    at = [frame.at(0.0, y, a + c * y) for y in ((front + back) / 2, front, back)]
    return at[0], at[1], at[2]
