"""Slices through a spine, ready to be drawn: chosen, cropped and windowed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Num

from autospine.core.labels import IGNORE_INDEX
from autospine.core.types import LabelArray, MaskArray, Modality, Shape3, Vector3

Plane = Literal["sagittal", "coronal"]
"""Sagittal slices are (S, P), coronal ones (S, L)."""

MARGIN_MM = 35.0
"""Surroundings shown beyond what is labelled."""

MIDLINE_MM = 10.0
"""Half the width about the midline in which the coronal slice is sought."""

CT_WINDOW_HU = (-250.0, 850.0)
"""Black and white of CT: wide enough for cortical bone, and trabecular bone (100-200 HU) stays grey."""

MR_PERCENTILES = (1.0, 99.5)
"""Black and white of other images, over the slice that is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One slice: rows towards superior, columns towards posterior (sagittal) or left (coronal)."""

    plane: Plane
    image: np.ndarray
    """Grey values, 0 to 1."""

    prediction: np.ndarray
    """Stored indices."""

    reference: np.ndarray | None
    """Stored indices, where there is a reference."""

    size_mm: tuple[float, float]
    """Height and width."""

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
) -> tuple[View, View]:
    """The mid-sagittal and the mid-coronal slice through the labelled spine.

    The sagittal slice passes the middle of what is labelled, the coronal one lies where most is labelled:
    in the vertebral bodies. The reference decides, or the prediction where there is no reference, or the
    middle of the image where nothing is labelled. Both are cropped to all that either map labels, with
    `MARGIN_MM` around.

    Args:
        image: grey values, HU in CT.
        prediction: stored indices.
        reference: stored indices, or None.
        spacing_mm: (S, P, L).
        modality: decides the window; None as MR.
        behind: indices of what lies behind the vertebral bodies and does not attract the coronal slice.
    """
    labels = prediction if reference is None or not labelled(reference).any() else reference
    inside = labelled(labels)
    shown = inside | labelled(prediction)
    shape = (inside.shape[0], inside.shape[1], inside.shape[2])
    crop, centre = _crop(shown, spacing_mm), _middle(inside)
    cuts: dict[Plane, tuple[slice | int, ...]] = {
        "sagittal": (crop[0], crop[1], centre),
        "coronal": (crop[0], _fullest(inside & ~np.isin(labels, behind), centre, spacing_mm[2]), crop[2]),
    }
    sagittal, coronal = (
        View(
            plane=plane,
            image=_windowed(image[cut], modality),
            prediction=prediction[cut],
            reference=None if reference is None else reference[cut],
            size_mm=_size_mm(cut, shape, spacing_mm),
        )
        for plane, cut in cuts.items()
    )
    return sagittal, coronal


def labelled(labels: np.ndarray) -> np.ndarray:
    """Where a stored label map says foreground."""
    inside: np.ndarray = (labels != 0) & (labels != IGNORE_INDEX)
    return inside


def _middle(inside: MaskArray) -> int:
    """The index along L that halves what is labelled."""
    along = inside.sum(axis=(0, 1))
    if not along.any():
        return int(inside.shape[2] // 2)
    return int(np.searchsorted(np.cumsum(along), along.sum() / 2))


def _fullest(inside: MaskArray, centre: int, spacing_mm: float) -> int:
    """The index along P around which most is labelled near the midline: in the vertebral bodies."""
    reach = max(1, round(MIDLINE_MM / spacing_mm))
    along = inside[:, :, max(0, centre - reach) : centre + reach + 1].sum(axis=(0, 2))
    if not along.any():
        return int(inside.shape[1] // 2)
    return int(np.argmax(np.convolve(along, np.ones(5), mode="same")))


def _crop(shown: MaskArray, spacing_mm: Vector3) -> tuple[slice, slice, slice]:
    """The box around what is labelled with its margin, inside the image; all of it if nothing is."""
    slices = []
    for axis, spacing in enumerate(spacing_mm):
        along = np.flatnonzero(shown.any(axis=tuple({0, 1, 2} - {axis})))
        margin = round(MARGIN_MM / spacing)
        low, high = (along[0] - margin, along[-1] + margin + 1) if along.size else (0, shown.shape[axis])
        slices.append(slice(max(0, int(low)), min(shown.shape[axis], int(high))))
    first, second, third = slices
    return first, second, third


def _size_mm(cut: tuple[slice | int, ...], shape: Shape3, spacing_mm: Vector3) -> tuple[float, float]:
    """Height and width of a slice."""
    lengths = [
        len(range(n)[part]) * spacing
        for part, n, spacing in zip(cut, shape, spacing_mm, strict=True)
        if isinstance(part, slice)
    ]
    return lengths[0], lengths[1]


def _windowed(image: np.ndarray, modality: Modality | None) -> np.ndarray:
    """Grey values from black (0) to white (1)."""
    image = np.nan_to_num(np.asarray(image, dtype=np.float32))
    low, high = CT_WINDOW_HU if modality == "CT" else np.percentile(image, MR_PERCENTILES)
    grey: np.ndarray = np.clip((image - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    return grey
