"""The slices of a case that a report shows: along the middle of the spine, and through its worst place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Integer, Num
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from autospine.core.geometry import Box, Grid, triple, vector
from autospine.core.types import LabelArray, MaskArray, Shape3, Vector3
from autospine.report.views import MARGIN_MM, Plane, labelled, shown_planes

SMOOTHING_MM = 20.0
"""Standard deviation along S of the smoothing of the spine's middle, about half a vertebra's height."""

MIDLINE_MM = 10.0
"""Largest distance from the midline of the voxels that decide the coronal slice."""

HALF_BODY_MM = 8.0
"""About half the depth of the smallest vertebral bodies, over which voxels along P are counted together."""

AXES: Mapping[Plane, tuple[int, int, int]] = {
    "sagittal": (0, 1, 2),
    "coronal": (0, 2, 1),
    "axial": (1, 2, 0),
}
"""Vertical and horizontal axis of each plane, and the third one, which it lies across."""

EDGE_STEPS = 33
"""Points by which the edge of a curved slice is told to the viewer in 3D."""

CLOSE_UP_MM = 60.0
"""Distance from the worst place to the edge of its pictures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseView:
    """One slice of a case: the first row is the top of the picture, the first column its left edge.

    Superior is up, or anterior in axial slices; anterior is at the left of sagittal slices, and the
    patient's right at the left of the others.
    """

    title: str
    """Which slice it is, in words."""

    plane: Plane
    """Plane of the slice."""

    image: Num[np.ndarray, "H W"] | None
    """Grey values; None if there is no image."""

    prediction: Integer[np.ndarray, "H W"]
    """Predicted stored indices."""

    reference: Integer[np.ndarray, "H W"] | None
    """Stored indices of the reference; None if there is none."""

    size_mm: tuple[float, float]
    """Height and width in mm."""

    marked: tuple[float, float] | None = None
    """Place that a cross marks, as shares of height and width; None for no cross."""

    edge: tuple[Vector3, ...] = ()
    """Voxels (S, P, L) at the left edge of the picture, at equal steps from its top to its bottom."""

    across: Vector3 = (0.0, 0.0, 0.0)
    """Voxels from the left edge to the right one."""

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.size_mm[1] / self.size_mm[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseMaps:
    """The image of a case and its label maps on the same grid."""

    image: Num[np.ndarray, "S P L"] | None
    """Grey values of the first channel; None if they cannot be read."""

    prediction: LabelArray
    """Predicted stored indices (S, P, L)."""

    reference: LabelArray | None
    """Stored indices of the reference (S, P, L); None if there is none."""

    grid: Grid
    """Grid of all of them, in canonical axes."""

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Planes in which the maps are shown."""
        return shown_planes(self.grid.shape, self.spacing_mm)

    @property
    def spacing_mm(self) -> Vector3:
        """Voxel size (S, P, L)."""
        return self.grid.spacing_mm

    def cut(
        self,
        title: str,
        plane: Plane,
        rows: Integer[np.ndarray, "H"],
        columns: Integer[np.ndarray, "W"],
        through: int | Integer[np.ndarray, "H"],
        marked: tuple[float, float] | None = None,
    ) -> CaseView:
        """Return a slice turned as it is shown.

        Args:
            title: Which slice it is, in words.
            plane: Its plane.
            rows: Voxels along the vertical axis of the plane, increasing.
            columns: Voxels along its horizontal axis, increasing.
            through: Voxel along the third axis, the same for all rows or one for each.
            marked: Place that a cross marks, as shares of height and width.
        """
        if (
            plane != "axial"
        ):  # S grows upwards and rows downwards; in axial slices P grows downwards as rows do
            rows, through = rows[::-1], through if isinstance(through, int) else through[::-1]
        at = np.broadcast_to(through, rows.shape)
        vertical, horizontal, third = AXES[plane]
        places = {vertical: rows[:, None], horizontal: columns[None, :], third: at[:, None]}
        index = tuple(places[axis] for axis in range(3))
        lengths = (len(rows) * self.spacing_mm[vertical], len(columns) * self.spacing_mm[horizontal])
        return CaseView(
            title=title,
            plane=plane,
            image=None if self.image is None else self.image[index],
            prediction=self.prediction[index],
            reference=None if self.reference is None else self.reference[index],
            size_mm=lengths,
            marked=marked,
            edge=_left_edge(plane, rows, columns, at),
            across=vector(len(columns) * np.eye(3)[horizontal]),
        )


def middle_views(maps: CaseMaps, behind: Sequence[int] = ()) -> tuple[CaseView, ...]:
    """Return a sagittal and a coronal slice that follow the middle of the spine, and an axial one.

    The first two are curved reformats, smoothed along S, so that a bent spine stays in view: in each row the
    sagittal one passes through the middle of what is labelled, and the coronal one where most is labelled
    near this middle, which is in the vertebral bodies. The labels are those of the reference, or of the
    prediction without a reference. The axial slice is the row with most labelled voxels. Of an image of one
    slice or a few only the plane is returned in which it extends.

    Args:
        maps: Image and label maps.
        behind: Stored indices of classes behind the vertebral bodies, which do not attract the coronal slice.
    """
    shown = (
        maps.prediction if maps.reference is None or not labelled(maps.reference).any() else maps.reference
    )
    inside = labelled(shown)
    box = shown_box(maps)
    rows, columns, across = (np.arange(part.start, part.stop) for part in box.slices)
    bodies = inside & ~np.isin(shown, behind)
    at_l = _midline(inside, maps.spacing_mm[0])
    at_p = _body_line(bodies if bodies.any() else inside, at_l, maps.spacing_mm)[rows]
    along = inside.sum(axis=(1, 2))
    level = int(along.argmax()) if along.any() else inside.shape[0] // 2
    views = (
        maps.cut("sagittal, along the middle of the spine", "sagittal", rows, columns, at_l[rows]),
        maps.cut("coronal, along the middle of the spine", "coronal", rows, across, at_p),
        maps.cut("axial, where most is labelled", "axial", columns, across, level),
    )
    return tuple(view for view in views if view.plane in maps.planes)


def close_ups(maps: CaseMaps, place: Shape3) -> tuple[CaseView, ...]:
    """Return the slices through a voxel in the planes of the maps, cut to its surroundings, with a cross."""
    reach = [round(CLOSE_UP_MM / mm) for mm in maps.spacing_mm]
    parts = [
        np.arange(max(0, at - n), min(size, at + n + 1))
        for at, n, size in zip(place, reach, maps.prediction.shape, strict=True)
    ]
    s, p, left = (float(at - part[0] + 0.5) / len(part) for at, part in zip(place, parts, strict=True))
    marks: dict[Plane, tuple[float, float]] = {
        "sagittal": (1 - s, p),
        "coronal": (1 - s, left),
        "axial": (p, left),
    }
    views = []
    for plane in maps.planes:
        vertical, horizontal, third = AXES[plane]
        title = f"{plane}, through the worst place"
        views.append(maps.cut(title, plane, parts[vertical], parts[horizontal], place[third], marks[plane]))
    return tuple(views)


def shown_box(maps: CaseMaps) -> Box:
    """Return the box around what is labelled with its margin; the whole without labels or reference.

    Without a reference all is shown, as what a prediction has missed may lie anywhere.
    """
    shown = labelled(maps.prediction)
    if maps.reference is not None:
        shown |= labelled(maps.reference)
    whole = Box.whole(shown.shape)
    box = None if maps.reference is None else Box.around(shown)
    if box is None:
        return whole
    margins = [round(MARGIN_MM / mm) for mm in maps.spacing_mm]
    return Box(
        start=triple(max(0, low - n) for low, n in zip(box.start, margins, strict=True)),
        stop=triple(
            min(size, high + n) for high, n, size in zip(box.stop, margins, shown.shape, strict=True)
        ),
    )


def _left_edge(
    plane: Plane,
    rows: Integer[np.ndarray, "H"],
    columns: Integer[np.ndarray, "W"],
    through: Integer[np.ndarray, "H"],
) -> tuple[Vector3, ...]:
    """Return the voxels at the left edge of a slice, at equal steps from its top to its bottom.

    Args:
        plane: Plane of the slice.
        rows: Voxels along its vertical axis, from the top down.
        columns: Voxels along its horizontal axis.
        through: Voxel along the third axis in each row.
    """
    vertical, horizontal, third = AXES[plane]
    steps = np.linspace(-0.5, len(rows) - 0.5, EDGE_STEPS)  # from the upper edge of the first row
    edge = np.empty((EDGE_STEPS, 3))
    edge[:, vertical] = rows[0] + (steps if plane == "axial" else -steps)
    edge[:, horizontal] = columns[0] - 0.5
    edge[:, third] = np.interp(steps, np.arange(len(rows)), through)
    return tuple(vector(row) for row in np.round(edge, 2))


def _midline(inside: MaskArray, row_mm: float) -> Integer[np.ndarray, "S"]:
    """Return the index along L of the labelled voxels' mean in every row, smoothed along S."""
    counts = inside.sum(axis=1)
    total: Float64[np.ndarray, S] = counts.sum(axis=1).astype(np.float64)
    known = np.flatnonzero(total)
    means = counts[known] @ np.arange(inside.shape[2]) / total[known]
    return _smoothed(known, means, inside.shape, 2, row_mm)


def _body_line(
    inside: MaskArray, midline: Integer[np.ndarray, "S"], spacing_mm: Vector3
) -> Integer[np.ndarray, "S"]:
    """Return the index along P around which most voxels near the midline are labelled, smoothed along S."""
    reach = max(1, round(MIDLINE_MM / spacing_mm[2]))
    columns = np.clip(midline[:, None] + np.arange(-reach, reach + 1), 0, inside.shape[2] - 1)
    near = np.take_along_axis(inside, columns[:, None, :], axis=2).sum(axis=2).astype(np.float64)
    dense = gaussian_filter(near, (SMOOTHING_MM / spacing_mm[0], HALF_BODY_MM / spacing_mm[1]))
    known = np.flatnonzero(near.any(axis=1))
    return _smoothed(known, dense[known].argmax(axis=1), inside.shape, 1, spacing_mm[0])


def _smoothed(
    rows: Integer[np.ndarray, "rows"],
    places: Num[np.ndarray, "rows"],
    shape: tuple[int, ...],
    axis: int,
    row_mm: float,
) -> Integer[np.ndarray, "S"]:
    """Return an index along an axis for every row: those of some rows, smoothed; the middle without any.

    Args:
        rows: Rows whose place is known; the others get those of their neighbours.
        places: Their indices along the axis.
        shape: Voxels of the image.
        axis: The axis.
        row_mm: Distance of the rows.
    """
    if not rows.size:
        return np.full(shape[0], shape[axis] // 2)
    filled = np.interp(np.arange(shape[0]), rows, places.astype(np.float64))
    smooth = gaussian_filter1d(filled, SMOOTHING_MM / row_mm, mode="nearest")
    return np.clip(np.rint(smooth), 0, shape[axis] - 1).astype(np.intp)
