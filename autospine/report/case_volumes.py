"""Image and label maps of a case as small volumes inside a page, for its viewer in 3D."""

import base64
import gzip
from dataclasses import dataclass, replace
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Num, UInt8

from autospine.core.geometry import Box, triple, vector
from autospine.core.labels import IGNORE_INDEX
from autospine.core.types import Modality, Shape3, Vector3
from autospine.report.case_views import CaseMaps, shown_box
from autospine.report.views import windowed

VOLUME_MM = 2.0
"""Voxel size that volumes are thinned to; coarser where the budget asks for it."""

COARSER = 1.3
"""Factor by which voxels grow until a volume fits its budget."""

COARSEST_VOLUME_MM = 5.0
"""Voxel size beyond which a volume shows nothing any more and is left out."""

ALL_VOLUMES_BYTES = 20_000_000
"""Most bytes of the volumes of a page, as text."""

CASE_VOLUMES_BYTES = 1_000_000
"""Most bytes of the volumes of a case, as text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseVolumes:
    """Volumes of a case as NIfTI, packed with gzip and written as base64."""

    image: str
    """Grey values in 8 bits, after the grey-value window."""

    prediction: str
    """Predicted stored indices."""

    reference: str
    """Stored indices of the reference; empty if there is none."""

    place: Shape3 | None
    """Voxel of the whole image (S, P, L) that the crosshair begins at; None for the middle."""

    start: Shape3
    """First voxel of the whole image that the volumes have."""

    step: Shape3
    """Voxels of the whole image from one voxel of the volumes to the next."""

    count: Shape3
    """Voxels of the volumes along S, P and L."""

    origin_mm: Vector3
    """Position of the whole image's first voxel in LPS."""

    axes_mm: tuple[Vector3, Vector3, Vector3]
    """Step from one voxel of the whole image to the next along S, P and L, in LPS."""

    note: str
    """How the volumes were reduced, in words."""


def volume_budget(cases: int) -> int:
    """Return the bytes that the volumes of each of so many cases may have."""
    return min(CASE_VOLUMES_BYTES, ALL_VOLUMES_BYTES // max(1, cases))


def reduce_volumes(
    maps: CaseMaps, modality: Modality | None, budget: int, place: Shape3 | None = None
) -> CaseVolumes | None:
    """Thin the volumes of a case out until they fit a budget.

    Args:
        maps: Image and label maps.
        modality: Modality, which decides the grey-value window; None is treated as MR.
        budget: Most bytes of the volumes.
        place: Voxel along S, P and L that the crosshair begins at; None for the middle.

    Returns:
        The volumes; None if there is no image, or they do not fit at `COARSEST_VOLUME_MM`.
    """
    if maps.image is None:
        return None
    box = shown_box(maps)
    target = VOLUME_MM
    while target <= COARSEST_VOLUME_MM:
        volumes = _thinned(maps, maps.image, modality, box, target)
        if len(volumes.image) + len(volumes.prediction) + len(volumes.reference) <= budget:
            return replace(volumes, place=place)
        target *= COARSER
    return None


def _thinned(
    maps: CaseMaps, image: Num[np.ndarray, "S P L"], modality: Modality | None, box: Box, target_mm: float
) -> CaseVolumes:
    steps = triple(max(1, round(target_mm / mm)) for mm in maps.spacing_mm)
    part = tuple(slice(a, b, n) for a, b, n in zip(box.start, box.stop, steps, strict=True))
    spacing = triple(n * mm for n, mm in zip(steps, maps.spacing_mm, strict=True))
    grey = image[part]
    flat = windowed(grey.reshape(grey.shape[0], -1), modality).reshape(grey.shape)
    size = " × ".join(f"{mm:.3g}" for mm in spacing)
    reference = None if maps.reference is None else maps.reference[part]
    origin = maps.grid.physical(np.zeros(3))
    return CaseVolumes(
        image=_nifti(np.rint(255 * flat).astype(np.uint8), spacing),
        prediction=_nifti(_indices(maps.prediction[part]), spacing),
        reference="" if reference is None else _nifti(_indices(reference), spacing),
        place=None,
        start=triple(box.start),
        step=steps,
        count=triple(grey.shape),
        origin_mm=vector(origin),
        axes_mm=triple(vector(maps.grid.physical(axis) - origin) for axis in np.eye(3)),
        note=f"reduced for this page: voxels of {size} mm (S P L), 8 bits, cut to what is shown",
    )


def _indices(labels: Num[np.ndarray, "S P L"]) -> UInt8[np.ndarray, "S P L"]:
    shown: np.ndarray = np.where(labels == IGNORE_INDEX, 0, labels).astype(np.uint8)
    return shown


def _nifti(array: UInt8[np.ndarray, "S P L"], spacing_mm: Vector3) -> str:
    """Return an array as packed NIfTI whose axes grow to the right, to the front and to the head."""
    turned = np.ascontiguousarray(array.transpose(2, 1, 0)[::-1, ::-1])
    affine = np.diag([*spacing_mm[::-1], 1.0])
    image_of: Any = nibabel.Nifti1Image  # its constructor is not annotated
    content: bytes = image_of(turned, affine).to_bytes()
    return base64.b64encode(gzip.compress(content, compresslevel=9, mtime=0)).decode("ascii")
