"""Selection, cropping and windowing of slices through a spine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer, Num

from autospine.core.colours import structure_named
from autospine.core.geometry import triple
from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.types import LabelArray, MaskArray, Modality, Shape3, Vector3

Plane = Literal["sagittal", "coronal", "axial"]
"""Plane of a slice; the axes of sagittal slices are (S, P), those of coronal ones (S, L) and of axial ones
(P, L)."""

THIN = 0.1
"""An image that is thinner than this share of its largest extent is not cut across this axis."""

MARGIN_MM = 35.0
"""Margin shown around the labelled voxels."""

MIDLINE_MM = 10.0
"""Largest distance from the midline of the voxels that decide the coronal slice."""

BEHIND = ("canal", "cord")
"""Structures that lie behind the vertebral bodies."""

CT_WINDOW_HU = (-250.0, 850.0)
"""Grey-value window of CT: it includes cortical bone, and trabecular bone (100-200 HU) stays grey."""

MR_PERCENTILES = (1.0, 99.5)
"""Grey-value window of other images, as percentiles of the slice that is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One slice: rows (H) towards superior, columns (W) towards posterior (sagittal) or left (coronal).

    In axial slices rows go towards anterior and columns towards left.
    """

    plane: Plane
    """Plane of the slice."""

    image: Float[np.ndarray, "H W"]
    """Grey values in [0, 1]."""

    prediction: Integer[np.ndarray, "H W"]
    """Predicted stored indices."""

    reference: Integer[np.ndarray, "H W"] | None
    """Stored indices of the reference; None if there is none."""

    size_mm: tuple[float, float]
    """Height and width in mm."""

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.size_mm[1] / self.size_mm[0]


def spine_views(
    image: Num[np.ndarray, "S P L"],
    prediction: LabelArray,
    reference: LabelArray | None,
    spacing_mm: Vector3,
    modality: Modality | None,
    *,
    behind: Sequence[int] = (),
) -> tuple[View, ...]:
    """Select the mid-sagittal and the mid-coronal slice through the labelled spine.

    Of an image of one slice or a few, only the plane is selected in which it extends.

    The sagittal slice passes through the median of the labelled voxels. The coronal one lies where most
    voxels are labelled, in the vertebral bodies. The labels are those of the reference, or of the prediction
    without a reference; if nothing is labelled, the slices pass through the centre of the image. With a
    reference both are cropped to the voxels that either map labels, with a margin of `MARGIN_MM`; without one
    the whole image is shown, as what a prediction has missed may lie anywhere.

    Args:
        image: Grey values (S, P, L), in HU for CT.
        prediction: Predicted stored indices (S, P, L).
        reference: Stored indices of the reference (S, P, L); None if there is none.
        spacing_mm: Voxel size (S, P, L).
        modality: Modality, which decides the grey-value window; None is treated as MR.
        behind: Stored indices of classes behind the vertebral bodies, which do not attract the coronal slice.

    Returns:
        The sagittal and the coronal slice, or the slices that are not thin.
    """
    labels = prediction if reference is None or not labelled(reference).any() else reference
    inside = labelled(labels)
    shown = np.ones_like(inside) if reference is None else inside | labelled(prediction)
    shape = triple(inside.shape)
    crop, centre = _crop(shown, spacing_mm), _middle(inside)
    cuts: dict[Plane, tuple[slice | int, ...]] = {
        "sagittal": (crop[0], crop[1], centre),
        "coronal": (crop[0], _fullest(inside & ~np.isin(labels, behind), centre, spacing_mm[2]), crop[2]),
        "axial": (_most_labelled(inside), slice(None, None, -1), slice(None)),
    }
    return tuple(
        View(
            plane=plane,
            image=windowed(image[cut], modality),
            prediction=prediction[cut],
            reference=None if reference is None else reference[cut],
            size_mm=_size_mm(cut, shape, spacing_mm),
        )
        for plane, cut in cuts.items()
        if plane in _planes(shape, spacing_mm)
    )


def index_names(labels: LabelSpace) -> tuple[str, ...]:
    """Return the class shown for each stored index from 1; with regions, the smallest that contains it."""
    classes = sorted(zip(labels.members, labels.names, strict=True), key=lambda item: len(item[0]))
    return tuple(next(name for members, name in classes if i in members) for i in labels.integers)


def stored_behind(names: Sequence[str]) -> tuple[int, ...]:
    """Return the stored indices of the classes that lie behind the vertebral bodies.

    Args:
        names: Class of each stored index from 1.
    """
    return tuple(index for index, name in enumerate(names, start=1) if structure_named(name) in BEHIND)


def _planes(shape: Shape3, spacing_mm: Vector3) -> tuple[Plane, ...]:
    """Return the planes in which an image is shown: both that hold S, unless it is thin along an axis."""
    sizes = [n * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    s, p, left = (size < THIN * max(sizes) for size in sizes)
    if s:
        return ("axial",)
    return ("coronal",) if p and not left else ("sagittal",) if left and not p else ("sagittal", "coronal")


def _most_labelled(inside: MaskArray) -> int:
    """Return the index along S of the row with most labelled voxels; of the middle if there are none."""
    along = inside.sum(axis=(1, 2))
    return int(along.argmax()) if along.any() else int(inside.shape[0] // 2)


def labelled(labels: Integer[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
    """Return the mask of the foreground in a map of stored indices."""
    inside: np.ndarray = (labels != 0) & (labels != IGNORE_INDEX)
    return inside


def _middle(inside: MaskArray) -> int:
    """Return the index along L of the median labelled voxel."""
    along = inside.sum(axis=(0, 1))
    if not along.any():
        return int(inside.shape[2] // 2)
    return int(np.searchsorted(np.cumsum(along), along.sum() / 2))


def _fullest(inside: MaskArray, centre: int, spacing_mm: float) -> int:
    """Return the index along P around which most voxels near the midline are labelled.

    Args:
        inside: Mask of the labelled voxels (S, P, L).
        centre: Index of the midline along L.
        spacing_mm: Voxel size along L.
    """
    reach = max(1, round(MIDLINE_MM / spacing_mm))
    along = inside[:, :, max(0, centre - reach) : centre + reach + 1].sum(axis=(0, 2))
    if not along.any():
        return int(inside.shape[1] // 2)
    return int(np.argmax(np.convolve(along, np.ones(5), mode="same")))


def _crop(shown: MaskArray, spacing_mm: Vector3) -> tuple[slice, slice, slice]:
    """Return the box around the labelled voxels with its margin; the whole image if there are none."""
    slices = []
    for axis, spacing in enumerate(spacing_mm):
        along = np.flatnonzero(shown.any(axis=tuple({0, 1, 2} - {axis})))
        margin = round(MARGIN_MM / spacing)
        low, high = (along[0] - margin, along[-1] + margin + 1) if along.size else (0, shown.shape[axis])
        slices.append(slice(max(0, int(low)), min(shown.shape[axis], int(high))))
    return triple(slices)


def _size_mm(cut: tuple[slice | int, ...], shape: Shape3, spacing_mm: Vector3) -> tuple[float, float]:
    """Return the height and width of a slice in mm."""
    lengths = [
        len(range(n)[part]) * spacing
        for part, n, spacing in zip(cut, shape, spacing_mm, strict=True)
        if isinstance(part, slice)
    ]
    return lengths[0], lengths[1]


def windowed(image: Num[np.ndarray, "H W"], modality: Modality | None) -> Float[np.ndarray, "H W"]:
    """Map the grey-value window of a slice to the range from black (0) to white (1)."""
    image = np.nan_to_num(np.asarray(image, dtype=np.float32))
    low, high = CT_WINDOW_HU if modality == "CT" else np.percentile(image, MR_PERCENTILES)
    grey: np.ndarray = np.clip((image - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    return grey
