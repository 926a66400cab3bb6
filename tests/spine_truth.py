"""True measures of phantoms, from the formulas of their anatomy and not from voxels."""

from dataclasses import dataclass

import numpy as np

from autospine.phantom.anatomy import Spine, Vertebra
from autospine.phantom.vertebra import body_part

STEP_MM, ACROSS_MM = 0.25, 0.5
"""Distance between samples along a height, and beside it."""

FOOTPRINT = 0.38
"""As docs/concepts/measurements.md defines the part of an endplate that counts."""


@dataclass(frozen=True)
class TrueBody:
    """A body in its own frame."""

    depth: float
    width: float
    heights: tuple[float, float, float]
    """Anterior, middle and posterior."""
    upper: np.ndarray
    lower: np.ndarray
    """Normals of the endplates in LPS."""
    upper_middle: np.ndarray
    lower_middle: np.ndarray


def inside_body(vertebra: Vertebra, points: np.ndarray) -> np.ndarray:
    """Which positions in LPS lie in a vertebra's body."""
    local = ((points - vertebra.frame.origin_mm) @ vertebra.frame.axes).astype(np.float32)
    return body_part(vertebra).shape.distance(*np.moveaxis(local, -1, 0)) < 0


def true_body(vertebra: Vertebra) -> TrueBody:
    size = vertebra.size
    reach = (0.65 * size.width, 0.65 * size.depth, 0.9 * size.height)
    x, y, z = (np.arange(-r, r, step) for r, step in zip(reach, (ACROSS_MM, ACROSS_MM, STEP_MM), strict=True))
    fields = np.meshgrid(*(axis.astype(np.float32) for axis in (x, y, z)), indexing="ij")
    inside = body_part(vertebra).shape.distance(*fields) < 0
    mid = 0.0  # of a fractured body, what is left lies lower
    for _ in range(2):
        bar = inside[np.abs(x) <= 5][:, :, np.abs(z - mid) <= 3].mean(axis=(0, 2))
        filled = y[bar > 0.5]
        depth, middle = filled[-1] - filled[0] + ACROSS_MM, (filled[-1] + filled[0]) / 2
        band = np.abs(y - middle) <= 0.15 * depth
        column = z[inside[np.abs(x) <= 5][:, band].mean(axis=(0, 1)) > 0.5]
        mid, left = (column[-1] + column[0]) / 2, column[-1] - column[0] + STEP_MM
    rows = inside[:, band][:, :, np.abs(z - mid) <= 0.4 * left].mean(axis=(1, 2))
    wide = x[rows >= 0.75]
    width = wide[-1] - wide[0] + ACROSS_MM
    top = z[inside.shape[2] - 1 - inside[:, :, ::-1].argmax(axis=2)]
    bottom = z[inside.argmax(axis=2)]
    tall = inside.sum(axis=2) * STEP_MM
    strip = np.abs(x) <= 0.15 * width
    heights = [
        float(tall[strip][:, np.abs(y - middle - at * depth) <= depth / 16].mean())
        for at in (-0.375, 0.0, 0.375)
    ]
    columns = (x[:, None] / (FOOTPRINT * width)) ** 2 + ((y - middle) / (FOOTPRINT * depth)) ** 2 <= 1
    i, j = np.nonzero(columns)
    basis = np.column_stack([np.ones(len(i)), x[i], y[j]])
    planes = [np.linalg.lstsq(basis, surface[i, j], rcond=None)[0] for surface in (top, bottom)]
    normals = [vertebra.frame.axes @ np.array([-b, -c, 1.0]) for _, b, c in planes]
    middles = [vertebra.frame.to_world((0.0, middle, float(a + c * middle))) for a, _, c in planes]
    return TrueBody(
        depth=float(depth),
        width=float(width),
        heights=(heights[0], heights[1], heights[2]),
        upper=normals[0] / np.linalg.norm(normals[0]),
        lower=normals[1] / np.linalg.norm(normals[1]),
        upper_middle=middles[0],
        lower_middle=middles[1],
    )


def true_disc_height(upper: Vertebra, lower: Vertebra) -> float:
    """Mean distance of two endplates over the middle of the disc."""
    above, below = true_body(upper), true_body(lower)
    up = above.lower + below.upper
    up /= np.linalg.norm(up)
    left = upper.frame.axes[:, 0] + lower.frame.axes[:, 0]
    left -= (left @ up) * up
    left /= np.linalg.norm(left)
    origin = (above.lower_middle + below.upper_middle) / 2
    width, depth = min(above.width, below.width), min(above.depth, below.depth)
    x, y, z = np.arange(-20, 20, 1.0), np.arange(-16, 16, 1.0), np.arange(-12, 12, STEP_MM)
    grid = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1)
    points = origin + grid @ np.stack([left, np.cross(up, left), up])
    columns = (x[:, None] / (FOOTPRINT * width)) ** 2 + (y[None] / (FOOTPRINT * depth)) ** 2 <= 1
    high, low = inside_body(upper, points), inside_body(lower, points)
    first = z[high.argmax(axis=2)]
    last = z[low.shape[2] - 1 - low[:, :, ::-1].argmax(axis=2)]
    met = columns & high.any(axis=2) & low.any(axis=2)
    return float((first - last)[met].mean()) - STEP_MM


def true_canal(vertebra: Vertebra) -> tuple[float, float]:
    """Area in mm2 and depth in mm of the canal at a vertebra, by the outline that its phantom has."""
    half_width, half_depth = vertebra.size.canal_width / 2, vertebra.size.canal_depth / 2
    x, y = np.meshgrid(np.arange(-20, 20, 0.1), np.arange(-20, 20, 0.1), indexing="ij")
    skew = 1 - 0.16 * np.clip(y / half_depth, -1, 1)
    qx, qy = x / (half_width * skew), y / half_depth
    length = np.hypot(qx, qy) + 1e-3
    inside = length * (1 - 0.10 * (2 * qx * qy / length**2) ** 2) < 1
    return float(inside.sum() * 0.1**2), 2 * half_depth


def tilt(normal: np.ndarray, plane: str) -> float:
    """Angle of a normal to the patient's axis, in degrees."""
    return float(np.degrees(np.arctan2(normal[0] if plane == "coronal" else -normal[1], normal[2])))


def true_cobb(bodies: list[TrueBody]) -> float:
    """Largest coronal angle between an upper endplate and a lower one at least two bodies below it."""
    tilts = [(tilt(body.upper, "coronal"), tilt(body.lower, "coronal")) for body in bodies]
    pairs = [(i, j) for i in range(len(tilts)) for j in range(i + 2, len(tilts))]
    return max(abs(tilts[i][0] - tilts[j][1]) for i, j in pairs)


def vertebra_of(spine: Spine, level: str) -> Vertebra:
    return next(each for each in spine.vertebrae if each.name == level)
