"""Slices that are no straight, regular stack: brought onto a straight grid, and results brought back.

A tilted gantry shifts each slice within its own plane against the one below, and a protocol may change the
step between slices where it changes their thickness. Networks see a straight grid instead: its axes are the
rows and columns of the slices and their normal. Shifts are undone by linear interpolation within each slice;
where the step changes, slices are interpolated linearly between their neighbours.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import atan2, ceil, degrees, floor
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Num
from scipy import ndimage

from autospine.core.errors import ImageError, listed
from autospine.core.geometry import ROUNDING, Grid, as_direction, vector
from autospine.core.types import Vector3
from autospine.io.dicom_header import SliceHeader
from autospine.io.voxel_data import empty_array

SHIFT_TOLERANCE = 1e-6
"""A shift by less than this share of a pixel, or of a step, is none."""

STEP_TOLERANCE = 0.05
"""Steps between slices may differ by this share of the median step ..."""

STEP_TOLERANCE_MM = 0.02
"""... or by this much: positions are often written with two decimals."""

TILT_TOLERANCE_MM = 0.1
"""Slices may lie beside the normal through the first one, or beside a tilted line, by this much ..."""

TILT_TOLERANCE = 1e-3
"""... and by this share of their distance from it: direction cosines may have three decimals."""

LARGEST_TILT = 45.0
"""Largest angle in degrees between the normal and the line through the slices; gantries tilt by up to 30."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceStack:
    """The places of parallel slices of one size, in the order of their positions along the normal."""

    positions_mm: tuple[Vector3, ...]
    """Position (x, y, z) of the first pixel of each slice."""

    row: Vector3
    """Unit vector along a row."""

    column: Vector3
    """Unit vector along a column."""

    pixel_mm: tuple[float, float]
    """Width and height of a pixel."""

    size: tuple[int, int]
    """Columns and rows."""

    step_mm: float
    """Distance along the normal of the slices of a straight grid."""

    regular: bool
    """Whether every step between slices is of this length."""

    tilted: bool
    """Whether slices are shifted within their planes, so that the line through them is not their normal."""

    @property
    def straight(self) -> bool:
        """Whether the slices make up a grid with perpendicular axes as they are."""
        return self.regular and not self.tilted

    @property
    def axes(self) -> Float64[np.ndarray, "3 3"]:
        """Matrix whose columns are the directions of a row, of a column, and of their normal."""
        axes: np.ndarray = np.stack([self.row, self.column, np.cross(self.row, self.column)], axis=1)
        return axes

    @property
    def shifts(self) -> Float64[np.ndarray, "n 3"]:
        """Place of each slice against the first: in columns, in rows, and in steps of a straight grid."""
        offsets = np.asarray(self.positions_mm) - np.asarray(self.positions_mm[0])
        shifts: np.ndarray = offsets @ self.axes / (*self.pixel_mm, self.step_mm)
        if not self.tilted:
            shifts[:, :2] = 0  # no more than rounding
        return shifts

    def grid(self) -> Grid:
        """Return the grid of regular slices as they are; its third axis is oblique if they are tilted."""
        n, step, axes = len(self.positions_mm), self.step_mm, self.axes
        if self.tilted:
            span = np.subtract(self.positions_mm[-1], self.positions_mm[0]) / (n - 1)
            step = float(np.linalg.norm(span))
            axes[:, 2] = span / step
        return Grid(
            shape=(n, self.size[1], self.size[0]),
            spacing_mm=(step, self.pixel_mm[1], self.pixel_mm[0]),
            origin_mm=self.positions_mm[0],
            direction=as_direction(axes),
        )

    def straight_grid(self) -> "StraightenedGrid":
        """Return a straight grid around all slices."""
        shifts = self.shifts
        low = [floor(shift + SHIFT_TOLERANCE) for shift in shifts[:, :2].min(axis=0)]
        more = [
            ceil(shift - SHIFT_TOLERANCE) - start
            for shift, start in zip(shifts[:, :2].max(axis=0), low, strict=True)
        ]
        n = len(shifts) if self.regular else 1 + ceil(shifts[-1, 2] - SHIFT_TOLERANCE)
        corner = self.axes @ (low[0] * self.pixel_mm[0], low[1] * self.pixel_mm[1], 0)
        return StraightenedGrid(
            shape=(n, self.size[1] + more[1], self.size[0] + more[0]),
            spacing_mm=(self.step_mm, self.pixel_mm[1], self.pixel_mm[0]),
            origin_mm=vector(np.asarray(self.positions_mm[0]) + corner),
            direction=as_direction(self.axes),
            slices=self,
            first_pixel=(low[0], low[1]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StraightenedGrid(Grid):
    """A straight grid that an image was brought onto, and the slices that it was stored in."""

    slices: SliceStack
    first_pixel: tuple[int, int]
    """Column and row of the first voxel, counted from the first pixel of the first slice."""

    def straightened(self, voxels: Num[np.ndarray, "n rows columns"], name: str) -> Num[np.ndarray, "k j i"]:
        """Bring the voxels of the slices onto the grid; around them is their smallest value.

        Args:
            voxels: Voxels of the slices.
            name: Name of the series in messages.

        Raises:
            ImageError: If there is no memory for it.
        """
        result = empty_array(self.shape, voxels.dtype, name)
        fill = voxels.min()
        shifts = self.slices.shifts
        places = np.arange(len(voxels)) if self.slices.regular else shifts[:, 2]
        held: dict[int, np.ndarray] = {}
        for k in range(self.shape[0]):
            below = int(np.searchsorted(places, k + SHIFT_TOLERANCE, side="right")) - 1
            above = min(below + 1, len(voxels) - 1)
            held = {
                index: held[index] if index in held else self._shifted(voxels[index], shifts[index], fill)
                for index in (below, above)
            }
            gap = places[above] - places[below]
            share = min(1.0, (k - places[below]) / gap) if gap > 0 else 0.0
            plane = (
                held[below] if share < SHIFT_TOLERANCE else (1 - share) * held[below] + share * held[above]
            )
            result[k] = np.rint(plane) if result.dtype.kind in "iu" else plane
        return result

    def on_slices(self, values: Num[np.ndarray, "k j i"]) -> Num[np.ndarray, "n rows columns"]:
        """Return, for every pixel of every slice, the value of the nearest voxel of the grid."""
        columns, rows = self.slices.size
        shifts = self.slices.shifts
        result = np.empty((len(shifts), rows, columns), dtype=values.dtype)
        for index, (i, j, k) in enumerate(shifts):
            plane = values[index if self.slices.regular else min(round(k), self.shape[0] - 1)]
            # The nearest voxel lies within the grid, which spans all slices.
            row, column = round(j) - self.first_pixel[1], round(i) - self.first_pixel[0]
            result[index] = plane[row : row + rows, column : column + columns]
        return result

    def _shifted(
        self, plane: Num[np.ndarray, "rows columns"], shift: Float64[np.ndarray, "3"], fill: np.generic
    ) -> Num[np.ndarray, "j i"]:
        """Bring one slice to its place within the plane."""
        offset = (self.first_pixel[1] - shift[1], self.first_pixel[0] - shift[0])
        moved: np.ndarray = ndimage.affine_transform(
            plane.astype(np.float64),
            (1.0, 1.0),
            offset=offset,
            output_shape=self.shape[1:],
            order=1,
            mode="grid-constant",
            cval=float(fill),
        )
        return moved


def for_file(values: Num[np.ndarray, "k j i"], grid: Grid) -> tuple[np.ndarray, Grid]:
    """Return values and grid as files of images hold them, whose slices have one common step.

    Args:
        values: Values on the grid.
        grid: Grid of the image, `Volume.stored`.

    Returns:
        The values on the slices that the image was stored in, and their grid, which is oblique where they are
        tilted. A grid cannot hold steps that change: then both stay as they are.
    """
    if not isinstance(grid, StraightenedGrid) or not grid.slices.regular:
        return values, grid
    return grid.on_slices(values), grid.slices.grid()


def is_oblique(grid: Grid) -> bool:
    """Return whether a grid's axes are not perpendicular, as those of tilted slices."""
    axes = np.asarray(grid.direction).reshape(3, 3)
    return not np.allclose(axes.T @ axes, np.eye(3), atol=ROUNDING)


def stack_of(slices: Sequence[SliceHeader], path: Path) -> SliceStack:
    """Return the places of slices.

    Raises:
        ImageError: If slices are missing or double, or are not on one line.
    """
    first = slices[0]
    step, regular = _checked_steps(slices, path)
    row = np.asarray(first.orientation[:3]) / np.linalg.norm(first.orientation[:3])
    return SliceStack(
        positions_mm=tuple(s.position_mm for s in slices),
        row=vector(row),
        column=vector(np.cross(first.normal, row)),  # exactly perpendicular, as rounded cosines are not
        pixel_mm=first.pixel_mm,
        size=first.size,
        step_mm=step,
        regular=regular,
        tilted=_checked_tilt(slices, path),
    )


def _checked_steps(slices: Sequence[SliceHeader], path: Path) -> tuple[float, bool]:
    """Return the step between slices, and whether all are equal; else it is the smallest common one.

    Steps may change only where the stated thickness of slices does; elsewhere slices are missing.
    """
    if len(slices) < 2:
        raise ImageError(
            f"expected a series of at least two slices in {path}, found {len(slices)}; add the others"
        )
    steps = np.diff([s.along_mm for s in slices])
    typical = float(np.median(steps))
    double = [slices[int(i) + 1].name for i in np.flatnonzero(steps < STEP_TOLERANCE * max(typical, 1e-6))]
    if double:
        raise ImageError(
            f"expected one slice per position in {path}, found {len(double)} at the position of another "
            f"({listed(double)}); remove the copies, or give each acquisition its own folder"
        )
    wide = np.flatnonzero(np.abs(steps - typical) > _step_tolerance(typical))
    if not len(wide):
        return float(steps.mean()), True
    common = _common_steps(slices, steps)
    if common is None:
        place = slices[int(wide[0])]
        raise ImageError(
            f"expected slices {typical:.3g} mm apart in {path}, found a step of {steps[wide[0]]:.3g} mm "
            f"after {place.name}; add the missing slices"
        )
    return min(common), False


def _step_tolerance(step: float) -> float:
    return max(STEP_TOLERANCE * step, STEP_TOLERANCE_MM)


def _common_steps(slices: Sequence[SliceHeader], steps: Float64[np.ndarray, "n"]) -> list[float] | None:
    """Return the step between slices of each thickness; None if it varies within one or they lie apart."""
    by_thickness: dict[float, list[float]] = defaultdict(list)
    for (below, above), step in zip(pairwise(slices), steps, strict=True):
        if below.thickness_mm and below.thickness_mm == above.thickness_mm:
            by_thickness[below.thickness_mm].append(float(step))
    common = {thickness: float(np.median(same)) for thickness, same in by_thickness.items()}
    if len(common) < 2 or {s.thickness_mm for s in slices} != common.keys():
        return None
    for (below, above), step in zip(pairwise(slices), steps, strict=True):
        ends = [common[s.thickness_mm] for s in (below, above) if s.thickness_mm]
        wanted = max(ends)
        too_wide = step - wanted > _step_tolerance(wanted)
        if too_wide or (ends[0] == ends[1] and wanted - step > _step_tolerance(wanted)):
            return None
    return list(common.values())


def _checked_tilt(slices: Sequence[SliceHeader], path: Path) -> bool:
    """Return whether slices are shifted within their planes, as those of a tilted gantry are.

    Raises:
        ImageError: If they are not on one line, or further from their normal than a gantry tilts.
    """
    offsets = np.asarray([s.position_mm for s in slices]) - np.asarray(slices[0].position_mm)
    normal = slices[0].normal
    along = offsets @ normal
    beside = offsets - along[:, None] * normal
    tolerance = TILT_TOLERANCE_MM + TILT_TOLERANCE * along
    if (np.linalg.norm(beside, axis=1) <= tolerance).all():
        return False
    off_line = np.linalg.norm(beside - along[:, None] / along[-1] * beside[-1], axis=1)
    worst = int(np.argmax(off_line - tolerance))
    if off_line[worst] > tolerance[worst]:
        raise ImageError(
            f"expected slices on one line in {path}, found {slices[worst].name} {off_line[worst]:.3g} mm "
            "beside it; give each stack of slices its own folder"
        )
    if (angle := degrees(atan2(float(np.linalg.norm(beside[-1])), float(along[-1])))) > LARGEST_TILT:
        raise ImageError(
            f"expected slices tilted by up to {LARGEST_TILT:g} degrees against their stack in {path}, found "
            f"{angle:.0f}; export the series again"
        )
    return True


def tilt(stack: SliceStack) -> float:
    """Return the angle in degrees between the normal of slices and the line through them."""
    span = np.subtract(stack.positions_mm[-1], stack.positions_mm[0])
    i, j, k = stack.axes.T @ span
    return degrees(atan2(float(np.hypot(i, j)), float(k)))
