"""One case: everything that is measured on it, in one reading."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Num
from scipy import ndimage

from autospine.core.errors import DatasetError
from autospine.core.geometry import Box, difference, spacing_fault
from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.types import LabelArray, Vector3
from autospine.dataset.raw import Case, case_modality
from autospine.fingerprint.duplicates import ImageSignature, image_signature
from autospine.fingerprint.facts import CaseFacts, StructureFacts
from autospine.fingerprint.thickness import LATTICE_POINTS, measure_thickness
from autospine.io.images import Volume, read_labels, read_volume

SAMPLES_PER_CASE = 20_000
"""Foreground voxels drawn per case for the intensity statistics; every case weighs the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The contribution of one case to the fingerprint."""

    facts: CaseFacts
    sample: Float32[np.ndarray, "n"]
    """Foreground intensities of the first channel, at most `SAMPLES_PER_CASE`."""

    signature: ImageSignature


def measure_case(case: Case, labels: LabelSpace) -> Measured:
    """Read a case and measure it.

    Raises:
        AutospineError: If a file of the case cannot be read, or image and labels do not fit together.
    """
    if case.labels is None:
        raise DatasetError("expected a label file for a training case, found none; add it to labelsTr")
    volume = read_volume(case.images)
    _check_spacing(volume, case)
    labelled = read_labels(case.labels, labels)
    if different := difference(labelled.grid, volume.grid):
        raise DatasetError(
            f"expected labels on the image's grid in {case.labels}, found {different}; run `autospine verify`"
        )
    image, spacing = volume.array[0], volume.grid.spacing_mm
    values = labelled.turned_to(volume.grid)[0]
    box = (Box.around(values) or Box.whole((0, 0, 0))).slices
    indices = labels.encode(values[box])
    facts = CaseFacts(
        name=case.name,
        modality=case_modality(case, volume),
        site=case.site,
        subject=case.subject,
        shape=volume.grid.shape,
        spacing_mm=spacing,
        structures=tuple(_structures(indices, labels, spacing)),
        spine_mm=_spine_mm(indices, spacing),
    )
    return Measured(
        facts=facts,
        sample=_sample(image[box][(indices > 0) & (indices != IGNORE_INDEX)]),
        signature=image_signature(image, facts.size_mm),
    )


def _check_spacing(volume: Volume, case: Case) -> None:
    if fault := spacing_fault(volume.grid.spacing_mm):
        raise DatasetError(f"{fault} in {case.images[0]}; mend its header")


def _structures(
    indices: LabelArray, labels: LabelSpace, spacing_mm: Vector3
) -> Iterator[StructureFacts | None]:
    """Measure each foreground class, holding the mask of one bounding box in memory at a time."""
    rows = labels.membership if labels.regions else labels.membership[1:]
    boxes = _boxes(indices)
    members_of = [[index for index in np.flatnonzero(row).tolist() if index in boxes] for row in rows]
    points = LATTICE_POINTS // max(1, sum(map(bool, members_of)))
    for members in members_of:
        if not members:
            yield None
            continue
        box = Box.hull(boxes[index] for index in members)
        mask = np.isin(indices[box.slices], members)
        yield StructureFacts(
            voxels=int(np.count_nonzero(mask)), thickness_mm=measure_thickness(mask, spacing_mm, points)
        )


def _boxes(indices: LabelArray) -> dict[int, Box]:
    """Return the bounding box of each index that occurs."""
    # SciPy refuses an array without voxels.
    found = ndimage.find_objects(indices) if indices.size else []
    return {index: Box.of(slices) for index, slices in enumerate(found, start=1) if slices is not None}


def _spine_mm(indices: LabelArray, spacing_mm: Vector3) -> float:
    """Return the extent along S of all that is labelled but not ignored, in mm; 0 if there is nothing."""
    known = (indices > 0) & (indices != IGNORE_INDEX)
    planes = np.flatnonzero(known.any(axis=(1, 2)))
    return round(float(planes[-1] - planes[0] + 1) * spacing_mm[0], 2) if len(planes) else 0.0


def _sample(inside: Num[np.ndarray, "voxels"]) -> Float32[np.ndarray, "n"]:
    """Draw up to `SAMPLES_PER_CASE` intensities, always the same ones."""
    if inside.size > SAMPLES_PER_CASE:
        inside = inside[np.random.default_rng(0).integers(inside.size, size=SAMPLES_PER_CASE)]
    sample: np.ndarray = inside.astype(np.float32)
    return sample
