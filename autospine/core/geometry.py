"""Positions of voxels: grids, boxes, and the orientation of stored axes to canonical ones.

Physical space is LPS (x grows to the left, y to the back, z to the head), as in ITK and DICOM. Arrays
are (S, P, L), so an array's axes run along z, y, x where the direction matrix is the identity.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations, product
from types import EllipsisType
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Num

from autospine.core.errors import ImageError
from autospine.core.types import Matrix3, Shape3, Slices3, Vector3

T = TypeVar("T")

Direction = tuple[float, float, float, float, float, float, float, float, float]
"""Direction cosines, row by row; the columns are the directions of ITK's axes i, j, k."""

ROUNDING = 1e-3
"""Largest deviation of a direction matrix from orthonormal that rounding explains; beyond, it is sheared."""

SINGLE_PRECISION = 1e-6
"""Deviation from orthonormal that a header of single precision cannot avoid; no note is made of it."""

IDENTITY: Direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
"""Direction of arrays in canonical axes that lie straight in the scanner."""

SAME_GRID = 0.1
"""Largest distance between corresponding corners of two grids that count as the same, in parts of the
shortest voxel edge: headers are rounded by less, and so small a shift moves no label to another voxel."""

MOST_TILTED_DEG = 30.0
"""Largest angle between an axis of an image and the patient's that nothing is said of. Training rotates
patches by up to 15 degrees about each axis, and scans are tilted by about as much."""

FINEST_MM, COARSEST_MM = 0.05, 20.0
"""Range of voxel sizes that are accepted. Clinical scanners lie well within; a header beyond it is in metres
or micrometres, or was never filled in."""


def triple(values: Iterable[T]) -> tuple[T, T, T]:
    """Return three values, one for each axis, as a tuple.

    Args:
        values: Exactly three. An array's become Python's own numbers.
    """
    a, b, c = values.tolist() if isinstance(values, np.ndarray) else values
    return a, b, c


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A block of voxels, half open."""

    start: Shape3
    """First voxel inside, along each axis."""

    stop: Shape3
    """First voxel outside, along each axis."""

    @classmethod
    def of(cls, slices: Iterable[slice | range]) -> "Box":
        """Return the box that three slices, or ranges, with a start and a stop span."""
        spans = triple(slices)
        return cls(start=triple(span.start for span in spans), stop=triple(span.stop for span in spans))

    @classmethod
    def whole(cls, shape: Iterable[int]) -> "Box":
        """Return the box of a whole array (S, P, L)."""
        return cls(start=(0, 0, 0), stop=triple(shape))

    @classmethod
    def around(cls, mask: Iterable[np.ndarray]) -> "Box | None":
        """Return the smallest box that holds every voxel that is true, or not 0; None if there is none.

        Args:
            mask: (S, P, L), or its planes (P, L) one by one: the mask of a whole volume can take as much
                memory as the image.
        """
        rows: list[bool] = []
        columns = along = np.zeros(0, dtype=bool)
        for plane in mask:
            if not rows:
                columns, along = (np.zeros(n, dtype=bool) for n in plane.shape)
            column = plane.any(axis=1)
            rows.append(bool(column.any()))
            columns |= column
            along |= plane.any(axis=0)
        if not any(rows):
            return None
        return cls.of(_span(axis) for axis in (np.asarray(rows), columns, along))

    @classmethod
    def hull(cls, boxes: Iterable["Box"]) -> "Box":
        """Return the smallest box that holds several."""
        starts, stops = zip(*((box.start, box.stop) for box in boxes), strict=True)
        return cls(
            start=triple(min(axis) for axis in zip(*starts, strict=True)),
            stop=triple(max(axis) for axis in zip(*stops, strict=True)),
        )

    @property
    def slices(self) -> Slices3:
        """Slices that cut the box out of an array's last three axes."""
        return triple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def shape(self) -> Shape3:
        """Voxels along each axis."""
        return triple(b - a for a, b in zip(self.start, self.stop, strict=True))

    def counted_from(self, origin: Shape3) -> "Box":
        """Return the same box in coordinates whose first voxel is `origin`."""
        return self.moved(triple(-n for n in origin))

    def moved(self, by: Shape3) -> "Box":
        """Return the box moved by a number of voxels along each axis."""
        start, stop = (
            triple(a + b for a, b in zip(corner, by, strict=True)) for corner in (self.start, self.stop)
        )
        return Box(start=start, stop=stop)

    def reaches_border(self, shape: Iterable[int]) -> bool:
        """Return whether the box reaches the border of an array along an axis of several voxels."""
        ends = zip(self.start, self.stop, shape, strict=True)
        return any((start == 0 or stop == size) and size > 1 for start, stop, size in ends)


def _span(inside: Bool[np.ndarray, "n"]) -> slice:
    """Return the slice from the first to the last place along an axis (n,) where something is inside."""
    places = np.flatnonzero(inside)
    return slice(int(places[0]), int(places[-1]) + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The positions of an array's voxels in physical space."""

    shape: Shape3
    """Voxels along the array's axes."""

    spacing_mm: Vector3
    """Voxel size along the array's axes."""

    origin_mm: Vector3
    """Position (x, y, z) of voxel (0, 0, 0)."""

    direction: Direction
    """Orthonormal; see `Direction`."""

    @property
    def axes_mm(self) -> Matrix3:
        """Matrix whose column a is the step in mm from one voxel to the next along array axis a."""
        directions = np.asarray(self.direction, dtype=np.float64).reshape(3, 3)[:, ::-1]
        axes: np.ndarray = directions * np.asarray(self.spacing_mm)
        return axes

    def physical(self, index: Num[np.ndarray, "*points 3"]) -> Float64[np.ndarray, "*points 3"]:
        """Convert array indices (..., 3) to positions (x, y, z) in mm."""
        points: np.ndarray = np.asarray(index, dtype=np.float64) @ self.axes_mm.T + np.asarray(self.origin_mm)
        return points

    def index(self, point_mm: Num[np.ndarray, "*points 3"]) -> Float64[np.ndarray, "*points 3"]:
        """Convert positions (x, y, z) in mm (..., 3) to continuous array indices."""
        offset = np.asarray(point_mm, dtype=np.float64) - np.asarray(self.origin_mm)
        indices: np.ndarray = np.linalg.solve(self.axes_mm, offset[..., None])[..., 0]
        return indices


@dataclass(frozen=True, kw_only=True, slots=True)
class Orientation:
    """The way from stored to canonical axes: canonical axis a is stored axis `order[a]`, perhaps reversed."""

    order: tuple[int, int, int]
    """A permutation of 0, 1, 2."""

    flipped: tuple[bool, bool, bool]
    """Whether each canonical axis runs against its stored axis."""

    def to_canonical(self, array: np.ndarray) -> np.ndarray:
        """Return a view of an array with its last three axes in canonical order."""
        leading = array.ndim - 3
        axes = (*range(leading), *(leading + axis for axis in self.order))
        return array.transpose(axes)[self._slices]

    def to_stored(self, array: np.ndarray) -> np.ndarray:
        """Return a view with the axes as stored; the inverse of `to_canonical`."""
        leading = array.ndim - 3
        back = np.argsort(self.order)
        axes = (*range(leading), *(leading + int(axis) for axis in back))
        return array[self._slices].transpose(axes)

    @property
    def _slices(self) -> tuple[EllipsisType | slice, ...]:
        return (..., *(slice(None, None, -1 if flip else 1) for flip in self.flipped))


def orientation(stored: Grid) -> Orientation:
    """Return the orientation of a stored grid: each canonical axis takes the stored axis nearest to it."""
    return _nearest_axes(_directions(stored)[::-1])


def turning(grid: Grid, target: Grid) -> Orientation:
    """Return how an array on a grid is brought to the order of axes of another grid.

    Two grids of the same voxels may have different canonical orders if they lie at 45 degrees, where
    rounding decides; so arrays that belong together are turned to each other.
    """
    return _nearest_axes(_directions(target).T @ _directions(grid))


def turned(grid: Grid, how: Orientation) -> Grid:
    """Return the grid of an array after `Orientation.to_canonical`."""
    columns = _directions(grid)
    directions = np.stack(
        [columns[:, o] * (-1 if f else 1) for o, f in zip(how.order, how.flipped, strict=True)], axis=1
    )
    corner = np.zeros(3)
    for axis, flip in zip(how.order, how.flipped, strict=True):
        corner[axis] = grid.shape[axis] - 1 if flip else 0
    return Grid(
        shape=triple(grid.shape[axis] for axis in how.order),
        spacing_mm=triple(grid.spacing_mm[axis] for axis in how.order),
        origin_mm=vector(grid.physical(corner)),
        direction=as_direction(directions[:, ::-1]),
    )


def canonical_grid(stored: Grid) -> Grid:
    """Return the grid of a stored array in canonical axes."""
    return turned(stored, orientation(stored))


def _directions(grid: Grid) -> Matrix3:
    """Return the direction (x, y, z) of each array axis as a column."""
    columns: np.ndarray = np.asarray(grid.direction, dtype=np.float64).reshape(3, 3)[:, ::-1]
    return columns


def _nearest_axes(along: Float64[np.ndarray, "3 3"]) -> Orientation:
    """Return the orientation in which each wanted axis takes the axis nearest to it.

    Args:
        along: Row a has the cosines of the angles between wanted axis a and each axis.
    """
    order = max(permutations(range(3)), key=lambda o: sum(abs(along[a, o[a]]) for a in range(3)))
    flips = [bool(along[axis, order[axis]] < 0) for axis in range(3)]
    return Orientation(order=triple(order), flipped=triple(flips))


def repaired_direction(matrix: Num[np.ndarray, "3 3"], where: str) -> tuple[Direction, str | None]:
    """Return the nearest orthonormal matrix, and a note on the repair if one was needed.

    Args:
        matrix: Direction cosines; the columns are axes i, j, k.
        where: Name of the file, for the message.

    Raises:
        ImageError: If the matrix is further from orthonormal than rounding explains, or not finite.
    """
    if not np.isfinite(matrix).all():
        raise ImageError(
            f"expected finite direction cosines in {where}, found {matrix.tolist()}; mend the header"
        )
    # The orthonormal factor U V^T of the polar decomposition is the nearest matrix (Higham, 1986).
    u, _, vh = np.linalg.svd(matrix)
    nearest = u @ vh
    off = float(np.abs(matrix - nearest).max())
    if off > ROUNDING:
        raise ImageError(
            f"expected perpendicular axes in {where}, found them sheared by {off:.2g}; "
            "resample the image to a rectangular grid first"
        )
    if off <= SINGLE_PRECISION:
        return as_direction(nearest), None
    return as_direction(nearest), f"direction matrix was off from orthonormal by {off:.1g}; repaired"


def grid_of_axes(
    shape: Shape3,
    directions: Num[np.ndarray, "3 3"],
    spacing_mm: Num[np.ndarray, "3"],
    origin_mm: Num[np.ndarray, "3"],
    where: str,
) -> tuple[Grid, tuple[str, ...]]:
    """Return the grid that a header describes in ITK's order of axes, and notes on its repair.

    Args:
        shape: Voxels along the array's axes k, j, i.
        directions: Direction cosines in LPS; the columns are axes i, j, k.
        spacing_mm: Voxel size along i, j, k.
        origin_mm: Position of the first voxel in LPS.
        where: Name of the file, for messages.

    Raises:
        ImageError: If the spacing is not positive, the origin not finite, or the axes are not perpendicular.
    """
    if not (np.isfinite(spacing_mm).all() and (spacing_mm > 0).all()):
        found = " x ".join(f"{d:g}" for d in spacing_mm)
        raise ImageError(f"expected positive spacing in {where}, found {found} mm; mend the header")
    if not np.isfinite(origin_mm).all():
        raise ImageError(f"expected a finite origin in {where}, found {vector(origin_mm)}; mend the header")
    direction, note = repaired_direction(directions, where)
    grid = Grid(
        shape=shape, spacing_mm=vector(spacing_mm[::-1]), origin_mm=vector(origin_mm), direction=direction
    )
    return grid, (note,) if note else ()


def difference(a: Grid, b: Grid) -> str | None:
    """Describe how two grids differ in physical space, whatever the order of their axes.

    Returns:
        None if no corner of one is further from that of the other than `SAME_GRID` allows.
    """
    b = turned(b, turning(b, a))
    if a.shape != b.shape:
        return f"{_times(a.shape)} against {_times(b.shape)} voxels"
    corners = np.asarray(list(product(*((0, n - 1) for n in a.shape))))
    apart = float(np.linalg.norm(a.physical(corners) - b.physical(corners), axis=1).max())
    if apart <= SAME_GRID * min(a.spacing_mm):
        return None
    return f"the same {_times(a.shape)} voxels but up to {apart:.3g} mm apart"


def as_direction(matrix: Num[np.ndarray, "3 3"]) -> Direction:
    """Return a 3x3 matrix as a tuple, row by row."""
    a, b, c, d, e, f, g, h, i = (float(x) for x in np.asarray(matrix).ravel())
    return a, b, c, d, e, f, g, h, i


def vector(values: Num[np.ndarray, "3"]) -> Vector3:
    """Return three numbers as a tuple of floats."""
    x, y, z = (float(value) for value in values)
    return x, y, z


def _times(shape: Shape3) -> str:
    return "x".join(str(n) for n in shape)


def tilt_note(grid: Grid) -> str | None:
    """Return a note on axes that lie far from the patient's; None within `MOST_TILTED_DEG`.

    Args:
        grid: Grid in canonical axes.
    """
    cosines = np.clip(np.diagonal(_directions(grid)[::-1]), -1.0, 1.0)
    angle = float(np.degrees(np.arccos(cosines)).max())
    if angle <= MOST_TILTED_DEG:
        return None
    return (
        f"its axes lie at {angle:.0f} degrees to the patient's, further than models learn to follow: look at "
        "its label map, or resample the image to straight axes"
    )


def spacing_fault(spacing_mm: Vector3) -> str | None:
    """Describe what is wrong with a voxel size that no scanner produces; None if nothing is."""
    if min(spacing_mm) >= FINEST_MM and max(spacing_mm) <= COARSEST_MM:
        return None
    found = " x ".join(f"{d:g}" for d in spacing_mm)
    return f"expected voxels of {FINEST_MM:g} to {COARSEST_MM:g} mm, found {found} mm"


def check_spacing(spacing_mm: Vector3, where: str) -> None:
    """Refuse voxels of a size that no scanner produces: there would be countless tiles, or a single one.

    Args:
        spacing_mm: Voxel size.
        where: Name of the file, for the message.

    Raises:
        ImageError: If a voxel is finer than `FINEST_MM` or coarser than `COARSEST_MM`.
    """
    if fault := spacing_fault(spacing_mm):
        raise ImageError(f"{fault} in {where}; mend the header, which may be in other units")
