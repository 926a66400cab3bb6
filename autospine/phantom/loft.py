"""A bone plate given by sections: at each height a line of points, each with half the plate's thickness."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float32

from autospine.core.geometry import vector
from autospine.phantom.shapes import FAR_MM, Field, Number, Point, smooth_max

Section = tuple[tuple[Number, Number, Number], ...]
"""Points of a section's middle line from one end to the other: x, y and half thickness, mm."""

_STEP_MM = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Loft:
    """A curved plate between sections at several heights; sections have equal numbers of points."""

    heights_mm: tuple[Number, ...]
    """Heights (z) of the sections, rising, mm."""
    sections: tuple[Section, ...]
    """The middle line at each height."""
    side: int = 1
    """1 as given, -1 mirrored from left to right."""
    gain: float = 1.0
    """Factor of all lengths."""
    rim_mm: Number = 4.0
    """Rounding of the lower and upper rim, mm."""

    def bounds(self) -> tuple[Point, Point]:
        """Return the lowest and highest corner of a box that holds the solid, mm."""
        points = np.array(self.sections, dtype=np.float64).reshape(-1, 3)
        reach = points[:, 2:]
        low, high = (points[:, :2] - reach).min(axis=0), (points[:, :2] + reach).max(axis=0)
        if self.side < 0:
            low[0], high[0] = -high[0], -low[0]
        bottom, top = self.heights_mm[0], self.heights_mm[-1]
        return (
            vector(np.append(low, bottom) * self.gain),
            vector(np.append(high, top) * self.gain),
        )

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        """Return the distance to the nearest piece of the section at each height, rounded at both ends."""
        x, y = np.asarray(x * np.float32(self.side), np.float32), np.asarray(y, np.float32)
        bottom = float(self.heights_mm[0]) * self.gain
        top = float(self.heights_mm[-1]) * self.gain
        table = self._table(bottom, top)
        rows = np.clip((z - np.float32(bottom)) / np.float32(_STEP_MM), 0, len(table) - 1).astype(np.int32)
        result = np.full(np.broadcast_shapes(x.shape, z.shape), FAR_MM, dtype=np.float32)
        lines = [
            [np.ascontiguousarray(table[:, i, j])[rows] for j in range(3)] for i in range(table.shape[1])
        ]
        for (ax, ay, ar), (bx, by, br) in pairwise(lines):
            dx, dy = bx - ax, by - ay
            t = ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy + np.float32(1e-3))
            t = np.clip(t, 0, 1)
            gap = np.hypot(x - ax - t * dx, y - ay - t * dy) - ar - t * (br - ar)
            np.minimum(result, gap, out=result)
        ends = np.maximum(z - np.float32(top), np.float32(bottom) - z)
        return smooth_max(result, np.asarray(ends, np.float32), self.rim_mm)

    def _table(self, bottom: float, top: float) -> Float32[np.ndarray, "heights points 3"]:
        """Return the sections at every half millimetre of height."""
        known = np.array(self.sections, dtype=np.float64) * self.gain
        places = np.asarray(self.heights_mm, dtype=np.float64) * self.gain
        heights = np.arange(bottom, top + _STEP_MM, _STEP_MM)
        flat = known.reshape(len(places), -1)
        columns = [np.interp(heights, places, column) for column in flat.T]
        return np.stack(columns, axis=1).reshape(len(heights), known.shape[1], 3).astype(np.float32)
