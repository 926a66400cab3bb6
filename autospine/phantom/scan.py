"""The scan: field of view, spacing, obliquity and the orientation in which the file stores its axes."""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from jaxtyping import Int, Integer

from autospine.core.geometry import Grid, as_direction, triple, vector
from autospine.core.types import Matrix3, Position, Shape3, Vector3
from autospine.phantom.anatomy import Spine
from autospine.phantom.shapes import Raster, rotation
from autospine.synthesis.appearance import Contrast

_LETTERS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}

ORIENTATIONS: tuple[str, ...] = tuple(
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("LR", "PA", "SI"))
    for signs in product((0, 1), repeat=3)
)
"""The 48 ways to store three axes, each as the directions in which i, j, k grow."""

# Field of view along S, P, L in mm, and the levels between which its centre lies.
_REGIONS: dict[str, tuple[tuple[tuple[float, float], ...], tuple[str, str]]] = {
    "lumbar": (((135, 185), (110, 150), (80, 130)), ("L3", "L5")),
    "thoracolumbar": (((290, 370), (130, 180), (100, 150)), ("T11", "L1")),
    "thoracic": (((200, 290), (120, 180), (90, 150)), ("T4", "T9")),
    "cervical": (((140, 190), (110, 150), (90, 140)), ("C5", "C7")),
    "whole": (((600, 700), (170, 230), (120, 190)), ("T8", "T10")),
}

# Fields of view of region `any`: share of cases, extents along S, P, L in mm, and how far to left or right
# of the spine their centre may lie, mm: a crop, a section of the body, the trunk, and the body with its arms.
_ANY: tuple[tuple[float, tuple[tuple[float, float], ...], float], ...] = (
    (0.35, ((70, 140), (70, 140), (70, 140)), 25),
    (0.30, ((110, 320), (110, 260), (100, 300)), 45),
    (0.25, ((220, 500), (240, 340), (300, 440)), 30),
    (0.10, ((500, 900), (270, 360), (400, 560)), 15),
)
_ANY_VOXELS = 5_000_000

# Factor of the distances between voxels where the field of view is large.
_COARSE = {"whole": 1.6, "thoracolumbar": 1.15, "thoracic": 1.1}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanGeometry:
    """Sampling grids and orientation of one scan."""

    raster: Raster
    """The grid of the image, axes S, P, L."""
    fine: Raster
    """The grid on which it is painted: slices that are thick are painted as three thin ones."""
    factor: Shape3
    """Samples of the fine grid per voxel along S, P, L."""
    orientation: str
    """Directions in which the file's axes i, j, k grow."""


def sample_scan(
    spine: Spine,
    region: str,
    contrast: Contrast,
    rng: np.random.Generator,
    *,
    spacing_mm: Vector3 | None,
    size_mm: Vector3 | None,
    orientation: str | None,
    oblique_deg: float | None,
) -> ScanGeometry:
    """Draw the geometry of a scan of a region; arguments that are given are kept.

    Args:
        spine: The spine that is scanned.
        region: `lumbar`, `thoracolumbar`, `thoracic`, `cervical`, `whole` or `any`.
        contrast: Kind of picture: MR is sagittal with thick slices in a share of cases.
        rng: Random generator.
        spacing_mm: Distance between voxels along S, P, L, mm.
        size_mm: Field of view along S, P, L, mm.
        orientation: Three letters, or None.
        oblique_deg: Angle of the scan to the patient's axes, degrees.
    """
    if region == "any":
        drawn_size, drawn_spacing, middle = _anywhere(spine, contrast, rng, size_mm)
    else:
        ranges, levels = _REGIONS[region]
        drawn_size = triple(float(rng.uniform(a, b)) for a, b in ranges)
        drawn_spacing = _spacing(_COARSE.get(region, 1.0), contrast, rng)
        middle = None
    drawn_orientation = ORIENTATIONS[int(rng.integers(len(ORIENTATIONS)))]
    axis, angle = rng.normal(size=3), _angle(rng)
    at, jitter = float(rng.random()), rng.uniform(-1, 1, 3)
    size, spacing = size_mm or drawn_size, spacing_mm or drawn_spacing
    turn = _turn(axis, angle if oblique_deg is None else oblique_deg)
    steps = turn[:, [2, 1, 0]] * np.asarray(spacing)
    if middle is None:
        middle = _centre(spine, *levels, at)
    centre = middle + np.array([6.0, 9.0, 8.0]) * jitter
    shape = np.maximum(np.round(np.asarray(size) / spacing).astype(int), 8)
    raster = _raster(centre, steps, shape)
    factor = tuple(3 if step > 1.8 * min(spacing) and step > 2 else 1 for step in spacing)
    fine = _raster(centre, steps / np.asarray(factor), shape * np.asarray(factor))
    return ScanGeometry(
        raster=raster,
        fine=fine,
        factor=triple(factor),
        orientation=orientation or drawn_orientation,
    )


def _raster(centre: Position, steps: Matrix3, shape: Int[np.ndarray, "3"]) -> Raster:
    """Return a grid of given steps around a centre."""
    origin = centre - steps @ ((shape - 1) / 2)
    return Raster(shape=triple(shape), origin_mm=origin, steps_mm=steps)


def _anywhere(
    spine: Spine, contrast: Contrast, rng: np.random.Generator, size_mm: Vector3 | None
) -> tuple[Vector3, Vector3, Position]:
    """Draw size, spacing and centre of a field of view anywhere from the head to the hips."""
    shares, ranges, asides = zip(*_ANY, strict=True)
    kind = int(rng.choice(len(_ANY), p=shares))
    drawn = [float(rng.uniform(a, b)) for a, b in ranges[kind]]
    size = np.asarray(size_mm or drawn)
    top = float(spine.vertebrae[0].frame.origin_mm[2])
    # A tall field of view stays on the body; a short one may show the head or the hips alone.
    low, high = -110.0 + 0.4 * size[0], top + 60.0 - 0.4 * size[0]
    height = float(rng.uniform(low, high)) if low < high else (low + high) / 2
    x, y = (float(line[0]) for line in spine.curve(np.array([height])))
    # The middle of a trunk lies some 4 cm in front of the bodies' centres; a small crop looks at the spine.
    front = float(np.clip((size[1] - 100) / 180, 0, 1)) * 42.0 * float(rng.uniform(0.6, 1.2))
    behind = float(rng.uniform(-20, 20))
    middle = np.array([x + float(rng.uniform(-1, 1)) * asides[kind], y + 14.0 - front + behind, height])
    coarse = float(np.clip((np.prod(size) / 6e6) ** (1 / 3), 0.8, 2.2))
    spacing = np.asarray(_spacing(coarse, contrast, rng))
    spacing = spacing * max(1.0, float(np.prod(size / spacing) / _ANY_VOXELS) ** (1 / 3))
    return triple(drawn), triple(float(step) for step in spacing), middle


def _spacing(coarse: float, contrast: Contrast, rng: np.random.Generator) -> Vector3:
    """Draw distances between voxels along S, P, L, those within slices times a factor."""
    kind, fine, thick = rng.random(), float(rng.uniform(0.8, 1.2)), float(rng.uniform(3.3, 4.4))
    even, slices = float(rng.uniform(1.0, 2.2)), float(rng.uniform(1.2, 3.0))
    if contrast == "CT":
        if kind < 0.5:
            return (even * coarse, even * coarse, even * coarse)
        return (slices, fine * coarse, fine * coarse)
    if kind < 0.6:
        return (fine * coarse, fine * coarse, thick)
    return (min(even, 1.8) * coarse, min(even, 1.8) * coarse, min(even, 1.8) * coarse)


def _angle(rng: np.random.Generator) -> float:
    """Draw how far the scan is from the patient's axes, degrees; in four cases of ten not at all."""
    kind, small, large = rng.random(), abs(float(rng.normal(0, 3))), float(rng.uniform(5, 14))
    return 0.0 if kind < 0.4 else small if kind < 0.8 else large


def _turn(axis: Position, degrees: float) -> Matrix3:
    """Return a rotation by an angle about a random axis, composed of pitch, roll and yaw."""
    pitch, roll, yaw = axis / np.linalg.norm(axis) * degrees
    return rotation(pitch=float(pitch), roll=float(roll), yaw=float(yaw))


def _centre(spine: Spine, upper: str, lower: str, at: float) -> Position:
    """Return a point between two levels, as far behind the bodies as to hold the spinous processes."""
    frames = {v.name: v.frame for v in spine.vertebrae}
    names = [v.name for v in spine.vertebrae]
    first = frames.get(upper, spine.vertebrae[0].frame).origin_mm
    second = frames[lower if lower in frames else names[-1]].origin_mm
    point: Position = first + at * (second - first) + np.array([0.0, 14.0, -8.0])
    return point


def raster_grid(raster: Raster) -> Grid:
    """Return a raster as the grid of an image whose array axes are S, P, L."""
    return _grid(raster.shape, raster.steps_mm, raster.origin_mm)


def reoriented(
    grid: Grid,
    arrays: tuple[Integer[np.ndarray, "S P L"], ...],
    orientation: str,
) -> tuple[Grid, tuple[Integer[np.ndarray, "k j i"], ...]]:
    """Store arrays with axes S, P, L in another orientation of the file's axes, each voxel where it was.

    Args:
        grid: Grid of the arrays.
        arrays: Any number of arrays on the grid, such as image, labels and tissue map.
        orientation: Directions in which the file's axes i, j, k grow.

    Returns:
        The new grid and the arrays, whose axes are the file's k, j, i.
    """
    wanted = [_LETTERS[letter] for letter in reversed(orientation)]
    order = [2 - axis for axis, _ in wanted]
    flips = [sign < 0 for _, sign in wanted]
    steps = grid.axes_mm[:, order]
    shape = [grid.shape[axis] for axis in order]
    origin = np.asarray(grid.origin_mm, dtype=np.float64)
    turned = [np.transpose(array, order) for array in arrays]
    for axis, flip in enumerate(flips):
        if flip:
            origin = origin + steps[:, axis] * (shape[axis] - 1)
            steps[:, axis] *= -1
            turned = [np.flip(array, axis) for array in turned]
    stored = tuple(np.ascontiguousarray(array) for array in turned)
    return _grid(triple(shape), steps, origin), stored


def _grid(shape: Shape3, steps: Matrix3, origin: Position) -> Grid:
    """Return a grid from the displacement per step along each array axis."""
    spacing = np.linalg.norm(steps, axis=0)
    return Grid(
        shape=shape,
        spacing_mm=vector(spacing),
        origin_mm=vector(origin),
        direction=as_direction((steps / spacing)[:, ::-1]),
    )
