"""What pictures of slices have in common: planes, the grey-value window, and the classes that they show."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer, Num

from autospine.core.colours import structure_named
from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.types import Modality, Shape3, Vector3

Plane = Literal["sagittal", "coronal", "axial"]
"""Plane of a slice; the axes of sagittal slices are (S, P), those of coronal ones (S, L) and of axial ones
(P, L)."""

PLANES: tuple[Plane, ...] = ("sagittal", "coronal", "axial")

THIN = 0.1
"""An image that is thinner than this share of its largest extent is not cut across this axis."""

MARGIN_MM = 35.0
"""Margin shown around the labelled voxels."""

BEHIND = ("canal", "cord")
"""Structures that lie behind the vertebral bodies."""

CT_WINDOW_HU = (-250.0, 850.0)
"""Grey-value window of CT: it includes cortical bone, and trabecular bone (100-200 HU) stays grey."""

MR_PERCENTILES = (1.0, 99.5)
"""Grey-value window of other images, as percentiles of the slice that is shown."""


def shown_planes(shape: Shape3, spacing_mm: Vector3) -> tuple[Plane, ...]:
    """Return the planes in which an image is shown: all, or the one in which a thin image extends."""
    sizes = [n * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    s, p, left = (size < THIN * max(sizes) for size in sizes)
    if s:
        return ("axial",)
    return ("coronal",) if p and not left else ("sagittal",) if left and not p else PLANES


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


def labelled(labels: Integer[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
    """Return the mask of the foreground in a map of stored indices."""
    inside: np.ndarray = (labels != 0) & (labels != IGNORE_INDEX)
    return inside


def windowed(image: Num[np.ndarray, "H W"], modality: Modality | None) -> Float[np.ndarray, "H W"]:
    """Map the grey-value window of a slice to the range from black (0) to white (1)."""
    image = np.nan_to_num(np.asarray(image, dtype=np.float32))
    low, high = CT_WINDOW_HU if modality == "CT" else np.percentile(image, MR_PERCENTILES)
    grey: np.ndarray = np.clip((image - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    return grey
