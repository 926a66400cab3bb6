"""The slices of a case that a report shows: along the middle of the spine, and through its worst place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Integer, Num
from scipy.ndimage import gaussian_filter1d

from autospine.core.geometry import Box, Grid, triple
from autospine.core.types import LabelArray, MaskArray, Shape3, Vector3
from autospine.report.views import MARGIN_MM, Plane, labelled

SMOOTHING_MM = 20.0
"""Standard deviation along S of the smoothing of the spine's middle, about half a vertebra's height."""

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
    def spacing_mm(self) -> Vector3:
        """Voxel size (S, P, L)."""
        return self.grid.spacing_mm

    def cut(
        self,
        title: str,
        plane: Plane,
        index: tuple[Any, ...],
        size_mm: tuple[float, float],
        marked: tuple[float, float] | None = None,
    ) -> CaseView:
        """Return the slice that a numpy index of (S, P, L) cuts out, turned as it is shown."""

        def turned(array: np.ndarray) -> np.ndarray:
            # S grows upwards and rows downwards; in axial slices P grows downwards as rows do.
            shown: np.ndarray = array[index]
            return shown if plane == "axial" else shown[::-1]

        return CaseView(
            title=title,
            plane=plane,
            image=None if self.image is None else turned(self.image),
            prediction=turned(self.prediction),
            reference=None if self.reference is None else turned(self.reference),
            size_mm=size_mm,
            marked=marked,
        )


def middle_views(maps: CaseMaps, behind: Sequence[int] = ()) -> tuple[CaseView, ...]:
    """Return a sagittal and a coronal slice that follow the middle of the spine, and an axial one.

    The first two are curved reformats: in each row along S they pass through the smoothed middle of what is
    labelled there, so that a bent spine stays in view. The middle is that of the reference, or of the
    prediction without a reference. The axial slice is the row with most labelled voxels.

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
    at_l = _middles(inside, 2, maps.spacing_mm[0])[rows]
    at_p = _middles(bodies if bodies.any() else inside, 1, maps.spacing_mm[0])[rows]
    height, depth, width = (n * mm for n, mm in zip(box.shape, maps.spacing_mm, strict=True))
    along = inside.sum(axis=(1, 2))
    level = int(along.argmax()) if along.any() else inside.shape[0] // 2
    return (
        maps.cut(
            "sagittal, along the middle of the spine",
            "sagittal",
            (rows[:, None], columns[None, :], at_l[:, None]),
            (height, depth),
        ),
        maps.cut(
            "coronal, along the middle of the spine",
            "coronal",
            (rows[:, None], at_p[:, None], across[None, :]),
            (height, width),
        ),
        maps.cut("axial, where most is labelled", "axial", (level, *box.slices[1:]), (depth, width)),
    )


def close_ups(maps: CaseMaps, place: Shape3) -> tuple[CaseView, ...]:
    """Return the three slices through a voxel, cut to its surroundings, with a cross on it."""
    reach = [round(CLOSE_UP_MM / mm) for mm in maps.spacing_mm]
    parts = [
        slice(max(0, at - n), min(size, at + n + 1))
        for at, n, size in zip(place, reach, maps.prediction.shape, strict=True)
    ]
    sizes = [(part.stop - part.start) * mm for part, mm in zip(parts, maps.spacing_mm, strict=True)]
    shares = [
        (at - part.start + 0.5) / (part.stop - part.start) for at, part in zip(place, parts, strict=True)
    ]
    s, p, l = place  # noqa: E741
    title = "{}, through the worst place"
    return (
        maps.cut(
            title.format("sagittal"),
            "sagittal",
            (parts[0], parts[1], l),
            (sizes[0], sizes[1]),
            (1 - shares[0], shares[1]),
        ),
        maps.cut(
            title.format("coronal"),
            "coronal",
            (parts[0], p, parts[2]),
            (sizes[0], sizes[2]),
            (1 - shares[0], shares[2]),
        ),
        maps.cut(
            title.format("axial"),
            "axial",
            (s, parts[1], parts[2]),
            (sizes[1], sizes[2]),
            (shares[1], shares[2]),
        ),
    )


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


def _middles(inside: MaskArray, axis: int, row_mm: float) -> Integer[np.ndarray, "S"]:
    """Return the index along P (1) or L (2) of the labelled voxels' mean in every row, smoothed along S.

    Rows without labels get those of their neighbours; without any label it is the middle of the image.
    """
    counts = inside.sum(axis=3 - axis)
    total: Float64[np.ndarray, S] = counts.sum(axis=1).astype(np.float64)
    if not total.any():
        return np.full(inside.shape[0], inside.shape[axis] // 2)
    known = np.flatnonzero(total)
    means = counts[known] @ np.arange(inside.shape[axis]) / total[known]
    filled = np.interp(np.arange(inside.shape[0]), known, means)
    smooth = gaussian_filter1d(filled, SMOOTHING_MM / row_mm, mode="nearest")
    return np.clip(np.rint(smooth), 0, inside.shape[axis] - 1).astype(np.intp)
