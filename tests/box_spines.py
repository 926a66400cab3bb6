"""Label maps of spines made of boxes, whose measures follow from their edges."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import makers
import numpy as np

from autospine.core.geometry import Grid
from autospine.core.labels import VERSE
from autospine.core.types import LabelArray

WIDTH_MM, DEPTH_MM = 40.0, 30.0
"""Size of a body."""

OPENING_MM = (16.0, 22.0)
"""Depth and width of the opening behind it."""

PITCH_MM = 34.0
"""Distance of two bodies."""

SIDE_MM, FRONT_MM = 70, 25
"""Extent of the map along P and L, and distance of the bodies' middle from its front."""

SPACING_MM = (0.5, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class BoxVertebra:
    """A body of flat endplates with a ring of bone behind it."""

    level: str
    front_mm: float = 26.0
    back_mm: float = 26.0
    roll_deg: float = 0.0
    """Lean to the left."""
    pitch_deg: float = 0.0
    """Lean forwards."""
    forwards_mm: float = 0.0
    """How far it lies in front of the others."""
    filled: bool = False
    """Whether the label fills the opening."""


@dataclass(frozen=True, kw_only=True)
class BoxSpine:
    """A map of box vertebrae from the head down, on the grid of a map."""

    vertebrae: Sequence[BoxVertebra]
    labels: LabelArray = field(init=False)
    grid: Grid = field(init=False)

    def __post_init__(self) -> None:
        tall = round(PITCH_MM * (len(self.vertebrae) + 1))
        sizes = zip((tall, SIDE_MM, SIDE_MM), SPACING_MM, strict=True)
        # Edges lie between voxels.
        z, y, x = np.meshgrid(
            *((np.arange(n / mm, dtype=np.float32) + 0.5) * mm for n, mm in sizes), indexing="ij"
        )
        labels = np.zeros(z.shape, dtype=np.uint8)
        for place, vertebra in enumerate(self.vertebrae):
            middle = tall - PITCH_MM * (place + 1)
            inside = _inside(vertebra, x - SIDE_MM / 2, y - FRONT_MM + vertebra.forwards_mm, z - middle)
            labels[inside] = VERSE[vertebra.level]
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "grid", makers.grid(labels.shape, SPACING_MM))


def _inside(vertebra: BoxVertebra, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return which voxels, by their place to the left, back and head of the body's centre, are bone."""
    roll, pitch = np.deg2rad((vertebra.roll_deg, vertebra.pitch_deg))
    x, z = x * np.cos(roll) - z * np.sin(roll), x * np.sin(roll) + z * np.cos(roll)
    y, z = y * np.cos(pitch) + z * np.sin(pitch), z * np.cos(pitch) - y * np.sin(pitch)
    tall = vertebra.front_mm + (vertebra.back_mm - vertebra.front_mm) * (y / DEPTH_MM + 0.5)
    wide = np.abs(x) < WIDTH_MM / 2
    body = wide & (np.abs(y) < DEPTH_MM / 2) & (np.abs(z) < tall / 2)
    behind = y - DEPTH_MM / 2
    ring = wide & (behind >= 0) & (behind < OPENING_MM[0] + 6) & (np.abs(z) < 7)
    opening = (behind < OPENING_MM[0]) & (np.abs(x) < OPENING_MM[1] / 2)
    return body | (ring if vertebra.filled else ring & ~opening)
