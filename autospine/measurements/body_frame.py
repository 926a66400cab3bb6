"""The frame of a vertebral body: its centre, its axes and its endplates, found in a label map.

Everything is sampled from the mask of one label by linear interpolation in the vertebra's own frame, so that
neither the orientation of the image nor its voxels' shape matters: a length is an integral along a line,
averaged over a patch of neighbouring lines, which a staircase of voxels does not bias.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy import ndimage

from autospine.core.geometry import Box, Grid, triple
from autospine.core.types import LabelArray, MaskArray, Matrix3, Position, Shape3, Vector3

ROUNDS = 4
"""Times that the frame is fitted anew to the endplates that were found in it; more change nothing."""

DEEP = 0.6
"""Share of the greatest depth from which a voxel counts as the core of a body or of a process."""

LARGE_CORE = 0.15
"""Least size of a body's core in parts of the largest core: articular pillars of the neck have cores too."""

STEP_MM = 0.75
"""Distance between samples; half of it changes no length by more than 0.1 mm."""

COARSE_MM = 1.5
"""Distance between samples while the frame is sought."""

THINNED_MM = 1.0
"""Voxel size that is fine enough to find a body's middle."""

REACH_MM: Vector3 = (42.0, 36.0, 30.0)
"""Half of the sampled block along left, posterior and superior: the largest lumbar body is 60 mm wide."""

CORE_MM = (5.0, 3.0)
"""Half width and half height of the bar along which a body's front and back wall are sought."""

FOOTPRINT = 0.38
"""Half axes of the ellipse on an endplate that is taken for its plane, in parts of width and depth: the rim,
which spurs enlarge and labels round off, is left out."""

LEAST_FILLED = 0.75
"""Share of the ellipse's columns that must hold bone at half height."""

LEAST_MM = 4.0
"""Least depth and height of a body."""

WIDE = 0.75
"""Share of a body's height that is bone within its width: transverse processes are less high."""

FARTHEST_TURN = 0.7
"""Cosine of the largest angle of a body's axis to the spine's: endplates that lie further off are none."""

BACK = (0.2, 0.25)
"""Half width and half height of the back wall's middle, in parts of the body's: its sides meet pedicles."""

SLANTED = 0.35
"""Half of the height over which the walls' slant is measured, in parts of the height."""

ROUGH_MM = 4.0
"""Distance from the back wall's median beyond which a column has run into a pedicle or a cleft."""

LARGEST_TURN = 0.3
"""Largest tangent of the angle by which the back wall turns a frame at once."""

OUTSIDE = 0.02
"""Share of bone at or below which a sample lies outside."""

BEHIND = 0.15
"""Share of a vertebra's volume behind its body from which it is a whole vertebra and not a body alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCrop:
    """The part of a label map around one label."""

    labels: LabelArray
    """(s, p, l) label values, a view of the map."""

    box: Box
    """Place of the part in the map."""

    grid: Grid
    """Grid of the whole map."""

    def sampled(
        self, integers: Sequence[int], frame: "Axes", counts: Shape3, step_mm: float
    ) -> Float32[np.ndarray, "X Y Z"]:
        """Return how much of each point of a block belongs to labels, 0 to 1, by linear interpolation.

        Args:
            integers: Label values.
            frame: Frame of the block, whose middle is the frame's origin.
            counts: Samples along left, posterior and superior, odd numbers.
            step_mm: Distance between them.
        """
        to_index = np.linalg.inv(self.grid.axes_mm)
        steps = to_index @ frame.axes * step_mm
        middle = to_index @ (frame.origin_mm - np.asarray(self.grid.origin_mm)) - self.box.start
        corner = middle - steps @ ((np.array(counts) - 1) / 2)
        inside = _mask_of(self.labels, integers).view(np.uint8)
        values: np.ndarray = ndimage.affine_transform(
            inside, steps, corner, output_shape=counts, output=np.float32, order=1, prefilter=False
        )
        return values


def _mask_of(labels: LabelArray, integers: Sequence[int]) -> MaskArray:
    """Return where a map has one of a few labels."""
    inside: np.ndarray = labels == integers[0]
    for integer in integers[1:]:
        inside |= labels == integer
    return inside


def crop_around(labels: LabelArray, grid: Grid, boxes: Sequence[Box], margin_mm: float) -> LabelCrop:
    """Return the part of a map that holds some boxes, with a margin where there is room."""
    hull = Box.hull(boxes)
    margins = [int(np.ceil(margin_mm / spacing)) for spacing in grid.spacing_mm]
    box = Box(
        start=triple(max(0, a - n) for a, n in zip(hull.start, margins, strict=True)),
        stop=triple(min(size, b + n) for b, n, size in zip(hull.stop, margins, labels.shape, strict=True)),
    )
    return LabelCrop(labels=labels[box.slices], box=box, grid=grid)


class Axes(NamedTuple):
    """A right-handed frame in LPS."""

    origin_mm: Position
    axes: Matrix3
    """Columns: left, posterior and superior direction."""

    def at(self, x: float, y: float, z: float) -> Position:
        """Return the position in LPS of coordinates in mm."""
        world: Position = self.origin_mm + self.axes @ np.array([x, y, z], dtype=np.float64)
        return world

    def points(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Float64[np.ndarray, "*points 3"]:
        """Return positions in LPS of coordinates in mm, which are broadcast against each other."""
        local = np.stack(np.broadcast_arrays(x, y, z), axis=-1)
        world: np.ndarray = np.asarray(self.origin_mm + local @ self.axes.T)
        return world

    def local(self, points_mm: Float64[np.ndarray, "*points 3"]) -> Float64[np.ndarray, "*points 3"]:
        """Return coordinates in mm along left, posterior and superior of positions in LPS."""
        coordinates: np.ndarray = np.asarray((points_mm - self.origin_mm) @ self.axes)
        return coordinates


def axes_at(origin_mm: Position, superior: Position, posterior: Position | None = None) -> Axes:
    """Return the frame of a superior direction; back is `posterior`, or else that of the patient."""
    up = superior / np.linalg.norm(superior)
    left = np.array([1.0, 0.0, 0.0]) if posterior is None else np.cross(posterior, up)
    left = left - (left @ up) * up
    left = left / np.linalg.norm(left)
    return Axes(origin_mm=origin_mm, axes=np.column_stack([left, np.cross(up, left), up]))


class SampledBlock(NamedTuple):
    """Samples of a mask in a frame, with their coordinates."""

    x: Float64[np.ndarray, " X"]
    y: Float64[np.ndarray, " Y"]
    z: Float64[np.ndarray, " Z"]
    values: Float32[np.ndarray, "X Y Z"]

    @property
    def step_mm(self) -> float:
        """Distance between samples."""
        return float(self.x[1] - self.x[0])


def sample_block(
    crop: LabelCrop, integers: Sequence[int], axes: Axes, reach_mm: Vector3, step_mm: float = STEP_MM
) -> SampledBlock:
    """Sample labels in a block around a frame's origin."""
    halves = [round(reach / step_mm) for reach in reach_mm]
    x, y, z = (np.arange(-half, half + 1) * step_mm for half in halves)
    return SampledBlock(
        x, y, z, crop.sampled(integers, axes, triple(2 * half + 1 for half in halves), step_mm)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class VertebralBody:
    """A vertebral body, measured in its own frame."""

    frame: Axes
    """Origin at the middle of the body; superior is the mean of both endplates' normals."""

    width_mm: float
    depth_mm: float
    """Distance of front and back wall at half height, in the midline."""

    upper: Float64[np.ndarray, "3"]
    """Upper endplate as z = a + b x + c y in the frame, mm."""

    lower: Float64[np.ndarray, "3"]
    """Lower endplate likewise."""

    slant: float
    """Distance to the back per mm upwards by which both walls slant against the endplates' normal."""

    centroid_mm: Position
    """Centroid of the body."""

    body_ml: float
    whole: bool
    """Whether the label holds the posterior elements too."""

    block: SampledBlock
    """Samples of the label in the frame."""

    @property
    def height_mm(self) -> float:
        """Distance of the endplates' planes at the middle."""
        return float(self.upper[0] - self.lower[0])

    def endplate(self, *, cranial: bool) -> tuple[Position, Position]:
        """Return middle and normal, pointing to the head, of an endplate in LPS."""
        a, b, c = self.upper if cranial else self.lower
        normal = self.frame.axes @ np.array([-b, -c, 1.0])
        middle = self.frame.at(0.0, 0.0, a)
        return middle, normal / np.linalg.norm(normal)

    def corner(self, *, anterior: bool, cranial: bool) -> Position:
        """Return a corner of the body in the midline, in LPS."""
        a, _, c = self.upper if cranial else self.lower
        y = (-0.5 if anterior else 0.5) * self.depth_mm + self.slant * a
        return self.frame.at(0.0, y, a + c * y)


def body_centre(inside: MaskArray, box: Box, grid: Grid) -> Position:
    """Return the middle of a vertebra's foremost deep part, in LPS, which lies in its body.

    Args:
        inside: (s, p, l) mask of the vertebra.
        box: Place of the mask in the map.
        grid: Grid of the map.
    """
    steps = [max(1, int(THINNED_MM / spacing)) for spacing in grid.spacing_mm]
    inside = inside[tuple(slice(None, None, step) for step in steps)]
    spacing = np.array(grid.spacing_mm) * steps
    depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    cores, n = ndimage.label(depth > DEEP * depth.max(), structure=np.ones((3, 3, 3)))
    numbers = np.arange(1, n + 1)
    sizes = ndimage.sum_labels(depth > 0, cores, numbers)
    middles = np.array(ndimage.center_of_mass(depth, cores, numbers)).reshape(-1, 3) * steps + box.start
    world = grid.physical(middles)
    large = np.flatnonzero(sizes >= LARGE_CORE * sizes.max())
    middle: Position = world[large[world[large, 1].argmin()]]
    return middle


def find_body(
    crop: LabelCrop, integer: int, centre_mm: Position, superior: Position, *, upright: bool = True
) -> VertebralBody | None:
    """Find a vertebral body in its label; None if the label has no two endplates there.

    Args:
        crop: Part of the map that holds the label.
        integer: Label value.
        centre_mm: A point within the body; see `body_centre`.
        superior: Direction to the head along the spine, roughly.
        upright: Whether it stands upright between both endplates; False for the axis, which has the lower one
            alone.
    """
    frame, found = axes_at(centre_mm, superior), None
    for step_mm in (*(COARSE_MM,) * (ROUNDS - 1), STEP_MM):
        found = _fitted(sample_block(crop, [integer], frame, REACH_MM, step_mm), frame, upright)
        if found is None:
            return None
        frame = _refined(found, upright)
        if frame.axes[:, 2] @ superior < FARTHEST_TURN * np.linalg.norm(superior):
            return None
    return found


def _fitted(block: SampledBlock, frame: Axes, upright: bool) -> VertebralBody | None:
    """Measure a body in a frame, whose middle becomes the origin of a new one."""
    x, y, z, values = block
    bar = values[np.abs(x) <= CORE_MM[0]][:, :, np.abs(z) <= CORE_MM[1]].mean(axis=(0, 2))
    front, back = _run(bar, y)
    depth, middle = back - front, (front + back) / 2
    if depth < LEAST_MM:
        return None
    band = np.abs(y - middle) <= 0.15 * depth
    height = _run(values[np.abs(x) <= CORE_MM[0]][:, band].mean(axis=(0, 1)), z)
    if not upright:  # the dens stands on the body of the axis, which is about as tall as deep
        height = (height[0], min(height[1], height[0] + depth))
    tall = height[1] - height[0]
    if tall < LEAST_MM:
        return None
    mid = sum(height) / 2
    left, right = _run(values[:, band][:, :, np.abs(z - mid) <= 0.4 * tall].mean(axis=(1, 2)), x, WIDE)
    width, across = right - left, (left + right) / 2
    columns = inside_ellipse(x - across, y - middle, width * FOOTPRINT, depth * FOOTPRINT)
    planes = [_plane(block, columns, mid, sign) for sign in (1, -1)]
    if planes[0] is None or planes[1] is None:
        return None
    upper, lower = (_moved(plane, across, middle) for plane in planes if plane is not None)
    up = (upper[0] + lower[0]) / 2
    origin = frame.at(across, middle, up)
    in_body = values * ((y < back) & (y > front - block.step_mm))[None, :, None]
    in_body = in_body * (np.abs(x - across) < width / 2 + 1.5)[:, None, None]
    in_body = in_body * (np.abs(z - up) < 0.75 * tall)[None, None, :]
    mass = float(in_body.sum())
    centroid = np.array(
        [
            (in_body.sum(axis=(1, 2)) * x).sum() / mass,
            (in_body.sum(axis=(0, 2)) * y).sum() / mass,
            (in_body.sum(axis=(0, 1)) * z).sum() / mass,
        ]
    )
    behind = float(values[:, y > back + 2].sum())
    return VertebralBody(
        frame=Axes(origin, frame.axes),
        width_mm=width,
        depth_mm=depth,
        upper=upper - [up, 0, 0],
        lower=lower - [up, 0, 0],
        slant=_slant(block, middle, up, tall),
        centroid_mm=frame.at(*centroid),
        body_ml=mass * block.step_mm**3 / 1000,
        whole=behind > BEHIND * (behind + mass),
        block=SampledBlock(x - across, y - middle, z - up, values),
    )


def _refined(body: VertebralBody, upright: bool) -> Axes:
    """Return the frame that stands upright between a body's endplates, its back parallel to the back wall."""
    up = body.endplate(cranial=False)[1]
    if upright:
        up = up + body.endplate(cranial=True)[1]
    slope = np.clip(_back_slope(body), -LARGEST_TURN, LARGEST_TURN)
    return axes_at(body.frame.origin_mm, up, body.frame.axes @ np.array([-slope, 1.0, 0.0]))


def _back_slope(body: VertebralBody) -> float:
    """Return the slope of a body's back wall, in mm to the back per mm to the left."""
    x, y, z, values = body.block
    plane = values[:, :, np.abs(z) <= BACK[1] * body.height_mm].mean(axis=2)
    behind = plane[:, y >= 0]
    walls = _half_run(behind) * body.block.step_mm
    inside = np.abs(x) <= BACK[0] * body.width_mm
    near = inside & (np.abs(walls - np.median(walls[inside])) <= ROUGH_MM)
    basis = np.column_stack([np.ones(int(near.sum())), x[near]])
    return float(np.linalg.lstsq(basis, walls[near], rcond=None)[0][1])


def _slant(block: SampledBlock, middle: float, up: float, tall: float) -> float:
    """Return by how much the middle between front and back wall moves to the back on its way upwards."""
    x, y, z, values = block
    strip = values[np.abs(x) <= CORE_MM[0]].mean(axis=0)[:, np.abs(z - up) <= SLANTED * tall].T
    behind, before = _half_run(strip[:, y >= middle]), _half_run(strip[:, y < middle][:, ::-1])
    heights = z[np.abs(z - up) <= SLANTED * tall]
    sound = np.minimum(behind, before) > 0
    if sound.sum() < 3:
        return 0.0
    walls = (behind - before) / 2 * block.step_mm
    near = sound & (np.abs(walls - np.median(walls[sound])) <= ROUGH_MM)
    return float(np.polyfit(heights[near], walls[near], 1)[0]) if near.sum() >= 3 else 0.0


def _half_run(lines: Float32[np.ndarray, "n m"]) -> Float64[np.ndarray, " n"]:
    """Return how many samples each line of means has before it first falls below a half."""
    joined: np.ndarray = np.cumprod(lines > 0.5, axis=1).sum(axis=1, dtype=np.float64)
    return joined


def block_run(lines: Float32[np.ndarray, "*lines n"]) -> Float64[np.ndarray, "*lines"]:
    """Return how many samples each line has from its beginning to where it first leaves the bone."""
    # Bone beyond a gap does not count.
    joined = np.cumprod(lines > OUTSIDE, axis=-1)
    length: np.ndarray = (lines * joined).sum(axis=-1, dtype=np.float64)
    return length


def _run(
    profile: Float32[np.ndarray, " n"], at: Float64[np.ndarray, " n"], share: float = 0.5
) -> tuple[float, float]:
    """Return where the run of more than a share around 0 begins and ends, between samples."""
    start = int(np.abs(at).argmin())
    ends = []
    for step in (-1, 1):
        i = start
        while 0 <= i + step < len(at) and profile[i] >= share:
            i += step
        inner, outer = float(profile[i - step]), float(profile[i])
        part = (inner - share) / (inner - outer) if inner > outer else 0.0
        ends.append(float(at[i - step] + (at[i] - at[i - step]) * np.clip(part, 0, 1)))
    return ends[0], ends[1]


def inside_ellipse(
    x: Float64[np.ndarray, " X"], y: Float64[np.ndarray, " Y"], a: float, b: float
) -> Bool[np.ndarray, "X Y"]:
    """Return which columns lie in an ellipse around the origin.

    Args:
        x: Coordinates of the columns to the left, mm.
        y: Coordinates of the columns to the back, mm.
        a: Half axis along x, mm.
        b: Half axis along y, mm.
    """
    inside: np.ndarray = (x[:, None] / a) ** 2 + (y[None, :] / b) ** 2 <= 1
    return inside


def surface(block: SampledBlock, start_mm: float, sign: int) -> Float64[np.ndarray, "X Y"]:
    """Return the height of the surface that each column reaches from a height on, up (1) or down (-1)."""
    z = block.z
    ordered = block.values[:, :, z >= start_mm] if sign > 0 else block.values[:, :, z < start_mm][:, :, ::-1]
    half = block.step_mm / 2
    first = float(z[z >= start_mm][0] - half) if sign > 0 else float(z[z < start_mm][-1] + half)
    reached: np.ndarray = first + sign * block.step_mm * block_run(ordered)
    return reached


def fitted_plane(
    heights: Float64[np.ndarray, "X Y"], columns: np.ndarray, x: np.ndarray, y: np.ndarray
) -> Float64[np.ndarray, "3"]:
    """Return the plane z = a + b x + c y of least squares through the heights of columns."""
    i, j = np.nonzero(columns)
    basis = np.column_stack([np.ones(len(i)), x[i], y[j]])
    plane: np.ndarray = np.linalg.lstsq(basis, heights[i, j], rcond=None)[0]
    return plane


def _plane(block: SampledBlock, columns: np.ndarray, start_mm: float, sign: int) -> np.ndarray | None:
    """Return an endplate's plane; None where too few columns hold bone."""
    middle = block.values[:, :, int(np.abs(block.z - start_mm).argmin())]
    filled = columns & (middle > 0.5)
    if filled.sum() < max(6.0, LEAST_FILLED * columns.sum()):
        return None
    return fitted_plane(surface(block, start_mm, sign), filled, block.x, block.y)


def _moved(plane: Float64[np.ndarray, "3"], x: float, y: float) -> Float64[np.ndarray, "3"]:
    """Return a plane seen from another origin."""
    a, b, c = plane
    return np.array([a + b * x + c * y, b, c])
