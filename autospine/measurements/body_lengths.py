"""Heights and bone density of a vertebral body."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Num

from autospine.core.geometry import Box, Grid
from autospine.measurements.body_frame import VertebralBody, surface

EDGE = 0.125
"""Distance of the anterior and posterior heights from the walls, in parts of the depth: nearer, rims are
round and spurs count."""

PATCH = (0.15, 1 / 16)
"""Half width of the patch over which a height is averaged, in parts of the width, and half of its depth,
in parts of the depth."""

CORE_RADII = (0.33, 0.28, 0.25)
"""Half axes of the trabecular core, in parts of width, depth and height: it keeps clear of the cortex."""

CORE_FORWARD = 0.08
"""Distance of its centre in front of the body's, in parts of the depth: the basivertebral vein
lies behind."""

LEAST_CORE_VOXELS = 10

METAL_HU = 2500.0
"""Values above are metal, or its neighbours: enamel and dense cortex stay below."""

METAL_ML = 0.03
"""Volume of it in or at a vertebra from which the vertebra holds metal."""


class BodyHeights(NamedTuple):
    """Distances of the endplates in the midline."""

    anterior_mm: float
    middle_mm: float
    posterior_mm: float

    def at_walls(self) -> "BodyHeights":
        """Return the heights with the outer ones at the walls, where radiologists read them.

        The line through the anterior and the posterior height is continued to both walls.
        """
        rise = (self.posterior_mm - self.anterior_mm) * EDGE / (1 - 2 * EDGE)
        return BodyHeights(
            max(0.0, self.anterior_mm - rise), self.middle_mm, max(0.0, self.posterior_mm + rise)
        )

    @property
    def wedge_ratio(self) -> float:
        """Anterior over posterior height at the walls."""
        walls = self.at_walls()
        return walls.anterior_mm / max(walls.posterior_mm, 0.1)


class CoreDensity(NamedTuple):
    """Values in the trabecular core."""

    mean_hu: float
    sd_hu: float


def body_heights(body: VertebralBody) -> BodyHeights:
    """Measure a body's heights, each the mean over a patch of both endplates."""
    _, y, _, _ = body.block
    tall = surface(body.block, 0.0, 1) - surface(body.block, 0.0, -1)
    wide = np.abs(body.block.x) <= PATCH[0] * body.width_mm
    offsets = (-(0.5 - EDGE) * body.depth_mm, 0.0, (0.5 - EDGE) * body.depth_mm)
    found = [
        float(tall[wide][:, np.abs(y - at) <= max(PATCH[1] * body.depth_mm, 0.5)].mean()) for at in offsets
    ]
    return BodyHeights(*found)


def core_density(
    body: VertebralBody, image: Num[np.ndarray, "s p l"], box: Box, grid: Grid
) -> CoreDensity | None:
    """Measure a CT in the trabecular core: an upright elliptic cylinder in the front of the body.

    Args:
        body: The body.
        image: (s, p, l) HU of a part of the image.
        box: Place of that part.
        grid: Grid of the whole image.

    Returns:
        None if too few voxels lie in it.
    """
    index = np.stack(
        np.meshgrid(*(np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)), indexing="ij"), -1
    )
    local = body.frame.local(grid.physical(index))
    sizes = np.array([body.width_mm, body.depth_mm, body.height_mm]) * CORE_RADII
    x, y, z = ((local + np.array([0, CORE_FORWARD * body.depth_mm, 0])) / sizes).transpose(3, 0, 1, 2)
    values = image[(x**2 + y**2 <= 1) & (np.abs(z) <= 1)].astype(np.float64)
    if len(values) < LEAST_CORE_VOXELS:
        return None
    return CoreDensity(float(values.mean()), float(values.std()))
