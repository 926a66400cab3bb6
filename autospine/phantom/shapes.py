"""Signed distances of simple solids, and the raster on which they are evaluated.

Distances are in mm, negative inside, and exact to first order at the surface, which is all that partial
volume and cortical shells need. A shape knows its bounds in its own frame, so that it is evaluated in the
few voxels around it only.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from autospine.core.geometry import Box, triple, vector
from autospine.core.types import Matrix3, Position, Shape3, Slices3, Vector3

Field = Float32[np.ndarray, "S P L"]
"""A number for each voxel of a raster, or of a box in it: a signed distance in mm, or an intensity."""

Number = float | int
Point = tuple[Number, Number, Number]

FAR_MM = np.float32(60.0)
"""Distance given to voxels that no shape has come near."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A right-handed coordinate frame of a structure, in LPS space."""

    origin_mm: Position
    """Origin in LPS (x left, y posterior, z superior), mm."""
    axes: Matrix3
    """3x3 matrix; its columns are the structure's left, posterior and superior directions in LPS."""

    def to_world(self, point: Point) -> Position:
        """Return the LPS position in mm of a point given in this frame in mm."""
        position: Position = self.origin_mm + self.axes @ np.asarray(point, dtype=np.float64)
        return position

    def moved(self, point: Point) -> "Frame":
        """Return this frame with its origin at a point given in this frame."""
        return Frame(origin_mm=self.to_world(point), axes=self.axes)

    def pitched(self, degrees: float) -> "Frame":
        """Return this frame turned about its left axis; positive brings its superior axis forward."""
        return Frame(origin_mm=self.origin_mm, axes=self.axes @ rotation(pitch=degrees))


def rotation(*, pitch: float = 0.0, roll: float = 0.0, yaw: float = 0.0) -> Matrix3:
    """Return the rotation by three angles in degrees.

    Args:
        pitch: About the left axis; positive brings the superior axis forward.
        roll: About the posterior axis; positive brings the superior axis to the left.
        yaw: About the superior axis.
    """
    a, b, c = np.deg2rad([pitch, roll, yaw])
    about_left = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_back = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_up = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    matrix: Matrix3 = about_back @ about_left @ about_up
    return matrix


@dataclass(frozen=True, kw_only=True, slots=True)
class Raster:
    """The sampling grid of a picture: axes superior, posterior, left, possibly oblique to the patient."""

    shape: Shape3
    """Number of samples along S, P, L."""
    origin_mm: Position
    """LPS position of sample (0, 0, 0), mm."""
    steps_mm: Matrix3
    """3x3 matrix; column a is the LPS displacement in mm of one step along array axis a (S, P, L)."""

    @property
    def spacing_mm(self) -> Vector3:
        """Distance in mm between samples along S, P, L."""
        return triple(np.linalg.norm(self.steps_mm, axis=0))

    @property
    def voxel_mm(self) -> float:
        """Edge in mm of the cube that has a voxel's volume: the width of partial volume at a surface."""
        return float(np.prod(self.spacing_mm) ** (1 / 3))

    def everywhere(self) -> Slices3:
        """Return the slices of the whole raster."""
        return Box.whole(self.shape).slices

    def near(self, frame: Frame, low: Point, high: Point, pad_mm: Number) -> Slices3 | None:
        """Return the part of the raster that holds a box given in a frame, or None where they do not meet."""
        ends = np.stack([np.asarray(low) - pad_mm, np.asarray(high) + pad_mm])
        corners = np.array(
            [[ends[i, 0], ends[j, 1], ends[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
        )
        world = frame.origin_mm + corners @ frame.axes.T
        index = (world - self.origin_mm) @ np.linalg.inv(self.steps_mm).T
        start = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
        stop = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, self.shape)
        if np.any(start >= stop):
            return None
        return Box(start=triple(start), stop=triple(stop)).slices

    def coordinates(self, frame: Frame, box: Slices3) -> tuple[Field, Field, Field]:
        """Return x (left), y (posterior), z (superior) in mm in a frame, for each voxel of a box."""
        gain = frame.axes.T @ self.steps_mm
        offset = frame.axes.T @ (self.origin_mm - frame.origin_mm)
        index = [np.arange(part.start, part.stop) for part in box]
        result = []
        for row, shift in zip(gain, offset, strict=True):
            s, p, q = (np.asarray(g * i, dtype=np.float32) for g, i in zip(row, index, strict=True))
            result.append((s[:, None, None] + np.float32(shift)) + p[None, :, None] + q[None, None, :])
        return triple(result)


@runtime_checkable
class Shape(Protocol):
    """A solid in its structure's frame."""

    def bounds(self) -> tuple[Point, Point]:
        """Return the lowest and highest corner of a box that holds the solid, mm."""

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        """Return the signed distance in mm at points given in the structure's frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ellipsoid:
    """An ellipsoid along the frame's axes."""

    centre_mm: Point
    """Centre, mm."""
    radii_mm: Point
    """Half axes, mm."""

    def bounds(self) -> tuple[Point, Point]:
        """Return the lowest and highest corner of a box that holds the solid, mm."""
        return _around([self.centre_mm], self.radii_mm)

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        """Return |q| (|q| - 1) / |q / r| with q = p / r, the usual first-order distance of an ellipsoid."""
        (cx, cy, cz), (rx, ry, rz) = self.centre_mm, self.radii_mm
        qx, qy, qz = (x - cx) / rx, (y - cy) / ry, (z - cz) / rz
        length = np.sqrt(qx * qx + qy * qy + qz * qz) + np.float32(1e-4)
        slope = np.sqrt((qx / rx) ** 2 + (qy / ry) ** 2 + (qz / rz) ** 2) + np.float32(1e-5)
        return np.asarray(length * (length - 1) / slope, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capsule:
    """A tapered rod with round ends; stretched along the frame's axes it becomes a bar or a blade."""

    start_mm: Point
    """One end of the axis, mm."""
    end_mm: Point
    """Other end of the axis, mm."""
    radius_mm: tuple[Number, Number]
    """Radius at start and end before stretching, mm."""
    stretch: Point = (1.0, 1.0, 1.0)
    """Factor by which the cross-section is stretched along x, y, z."""
    slant: float = 0.0
    """Displacement of y to the back per mm that z falls below the axis (the slope of a lamina)."""

    def bounds(self) -> tuple[Point, Point]:
        """Return the lowest and highest corner of a box that holds the solid, mm."""
        radius = max(self.radius_mm)
        sx, sy, sz = self.stretch
        reach = (radius * sx, radius * sy + abs(self.slant) * radius * sz, radius * sz)
        return _around([self.start_mm, self.end_mm], reach)

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        """Return the distance in stretched space over the length of its gradient: exact to first order."""
        scale = np.asarray(self.stretch)
        start, end = np.asarray(self.start_mm) / scale, np.asarray(self.end_mm) / scale
        if self.slant:
            along = (self.start_mm[2] + self.end_mm[2]) / 2
            y = y + np.float32(self.slant) * (z - np.float32(along))
        q = [
            np.asarray(v / np.float32(s) - np.float32(o), np.float32)
            for v, s, o in zip((x, y, z), scale, start, strict=True)
        ]
        axis = (end - start).astype(np.float32)
        square = float(axis @ axis) or 1.0
        t = np.clip((q[0] * axis[0] + q[1] * axis[1] + q[2] * axis[2]) / np.float32(square), 0, 1)
        q = [v - t * a for v, a in zip(q, axis, strict=True)]
        length = np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2]) + np.float32(1e-4)
        radius = np.float32(self.radius_mm[0]) + t * np.float32(self.radius_mm[1] - self.radius_mm[0])
        if self.stretch == (1.0, 1.0, 1.0):
            return np.asarray(length - radius, dtype=np.float32)
        slope = np.sqrt(sum((v / np.float32(s)) ** 2 for v, s in zip(q, scale, strict=True))) / length
        return np.asarray((length - radius) / (slope + np.float32(1e-4)), dtype=np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plate:
    """A blade in the sagittal plane: a convex polygon in (y, z), thicker towards its posterior edge."""

    corners_mm: tuple[tuple[Number, Number], ...]
    """Corners (y, z) in mm, counter-clockwise when y points right and z up."""
    half_thickness_mm: tuple[Number, Number]
    """Half of the thickness at the lowest and highest y, mm."""
    lean: float = 0.0
    """Sideways displacement per mm of y (spinous processes are seldom quite straight)."""

    def bounds(self) -> tuple[Point, Point]:
        """Return the lowest and highest corner of a box that holds the solid, mm."""
        ys, zs = zip(*self.corners_mm, strict=True)
        wide = max(self.half_thickness_mm) + abs(self.lean) * (max(ys) - min(ys))
        return (-wide, min(ys), min(zs)), (wide, max(ys), max(zs))

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        """Return the rounded intersection of the polygon's edges and the two faces."""
        low, high = min(c[0] for c in self.corners_mm), max(c[0] for c in self.corners_mm)
        inside = np.full(np.broadcast_shapes(x.shape, y.shape), -FAR_MM, dtype=np.float32)
        for (y0, z0), (y1, z1) in zip(
            self.corners_mm, self.corners_mm[1:] + self.corners_mm[:1], strict=True
        ):
            length = float(np.hypot(y1 - y0, z1 - z0))
            normal = ((z1 - z0) / length, -(y1 - y0) / length)
            edge = (y - np.float32(y0)) * np.float32(normal[0]) + (z - np.float32(z0)) * np.float32(normal[1])
            inside = smooth_max(inside, edge, 2.0)
        back = np.clip((y - np.float32(low)) / np.float32(high - low), 0, 1)
        thin, thick = self.half_thickness_mm
        face = np.abs(x - np.float32(self.lean) * (y - np.float32(low))) - (
            thin + (thick - thin) * back * back
        )
        return smooth_max(inside, face.astype(np.float32), 3.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Custom:
    """A solid given by a function, for what the other shapes do not cover."""

    low_mm: Point
    """Lowest corner of a box that holds the solid, mm."""
    high_mm: Point
    """Highest corner of that box, mm."""
    function: Callable[[Field, Field, Field], Field] = field(repr=False)
    """Signed distance in mm from x, y, z in mm."""

    def bounds(self) -> tuple[Point, Point]:
        """Return the lowest and highest corner of a box that holds the solid, mm."""
        return self.low_mm, self.high_mm

    def distance(self, x: Field, y: Field, z: Field) -> Field:
        """Return the signed distance in mm."""
        return self.function(x, y, z)


def smooth_min(a: Field, b: Field, blend_mm: Number) -> Field:
    """Return the polynomial smooth minimum (Quilez) of two distances that differ by less than the blend."""
    result: Field = np.minimum(a, b)
    if blend_mm > 0:
        result -= _fillet(a, b, blend_mm)
    return result


def smooth_max(a: Field, b: Field, blend_mm: Number) -> Field:
    """Return the polynomial smooth maximum of two distances."""
    result: Field = np.maximum(a, b)
    if blend_mm > 0:
        result += _fillet(a, b, blend_mm)
    return result


def _fillet(a: Field, b: Field, blend_mm: Number) -> Field:
    """Return max(blend - |a - b|, 0)^2 / (4 blend), computed in place to save memory passes."""
    gap: Field = np.subtract(a, b)
    np.abs(gap, out=gap)
    np.subtract(np.float32(blend_mm), gap, out=gap)
    np.maximum(gap, 0, out=gap)
    gap *= gap
    gap *= np.float32(0.25 / blend_mm)
    return gap


def coverage(distance: Field, width_mm: Number) -> Field:
    """Return the share (0 to 1) of a voxel that lies inside a surface: analytic partial volume."""
    return np.asarray(np.clip(np.float32(0.5) - distance / np.float32(width_mm), 0, 1), dtype=np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A shape, and how it joins the shapes drawn before it."""

    shape: Shape
    """The solid."""
    blend_mm: Number = 2.0
    """Radius of the fillet where it joins, mm."""
    carve: bool = False
    """Whether the shape is subtracted from what was drawn before instead of added to it."""


def render(
    raster: Raster, frame: Frame, parts: tuple[Part, ...], *, margin_mm: Number
) -> tuple[Slices3, Field] | None:
    """Evaluate the union of parts around it.

    Args:
        raster: Where to sample.
        frame: The structure's frame.
        parts: Solids, in order.
        margin_mm: Distance from the surface up to which results must be right, mm.

    Returns:
        The part of the raster and the signed distances in it, or None where the structure is out of view.
    """
    limits = [part.shape.bounds() for part in parts if not part.carve]
    low, high = np.min([a for a, _ in limits], axis=0), np.max([b for _, b in limits], axis=0)
    box = raster.near(frame, vector(low), vector(high), margin_mm)
    if box is None:
        return None
    result = np.full([part.stop - part.start for part in box], FAR_MM, dtype=np.float32)
    for part in parts:
        _join(result, raster, frame, part, box, margin_mm)
    return box, result


def _join(result: Field, raster: Raster, frame: Frame, part: Part, box: Slices3, margin_mm: Number) -> None:
    """Add or carve one part in place."""
    here = raster.near(frame, *part.shape.bounds(), margin_mm + part.blend_mm)
    here = None if here is None else intersection(here, box)
    if here is None:
        return
    inner = inside(here, box)
    distance = part.shape.distance(*raster.coordinates(frame, here))
    if part.carve:
        result[inner] = smooth_max(result[inner], -distance, part.blend_mm)
    else:
        result[inner] = smooth_min(result[inner], distance, part.blend_mm)


def intersection(a: Slices3, b: Slices3) -> Slices3 | None:
    """Return the common part of two boxes, or None."""
    parts = [slice(max(u.start, v.start), min(u.stop, v.stop)) for u, v in zip(a, b, strict=True)]
    return None if any(part.start >= part.stop for part in parts) else triple(parts)


def inside(box: Slices3, outer: Slices3) -> Slices3:
    """Return a box relative to the start of another that holds it."""
    return triple(slice(u.start - v.start, u.stop - v.start) for u, v in zip(box, outer, strict=True))


def _around(points: list[Point], reach: Point) -> tuple[Point, Point]:
    """Return the box around points, extended by a reach along each axis."""
    array = np.asarray(points)
    return vector(array.min(axis=0) - reach), vector(array.max(axis=0) + reach)
