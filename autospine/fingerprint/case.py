"""One case: everything that is measured on it, in one reading."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from autospine.core.errors import DatasetError
from autospine.core.geometry import difference, spacing_fault
from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.types import MaskArray, Modality, Vector3
from autospine.dataset.raw import Case, case_modality
from autospine.fingerprint.duplicates import Likeness, likeness
from autospine.fingerprint.facts import CaseFacts, StructureFacts
from autospine.fingerprint.noise import noise_level
from autospine.fingerprint.thickness import LATTICE_POINTS, measure_thickness
from autospine.io.images import Volume, read_labels, read_volume

SAMPLES_PER_CASE = 20_000
"""Foreground voxels drawn per case for the intensity statistics; every case weighs the same."""

MARGIN = 2
"""Voxels around the labelled ones in which noise is looked for too: even a single plane has neighbours
then."""

TOUCHING = np.ones((3, 3, 3), dtype=bool)
"""26 neighbours: pieces that touch by a corner are one."""

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a case contributes to the fingerprint."""

    facts: CaseFacts
    sample: np.ndarray
    """Foreground intensities of the first channel, float32, at most `SAMPLES_PER_CASE`."""

    likeness: Likeness


def measure_case(case: Case, labels: LabelSpace) -> Measured:
    """Read a case and measure it.

    Raises:
        AutospineError: if it cannot be read, or what it holds cannot be.
    """
    if case.labels is None:
        raise DatasetError("expected a label file for a training case, found none; add it to labelsTr")
    volume = read_volume(case.images)
    _check_spacing(volume, case)
    labelled = read_labels(case.labels)
    if different := difference(labelled.grid, volume.grid):
        raise DatasetError(
            f"expected labels on the image's grid in {case.labels}, found {different}; run `autospine verify`"
        )
    image, spacing = volume.array[0], volume.grid.spacing_mm
    box = _box_around(labelled.array[0])
    indices = labels.encode(labelled.array[0][box])
    modality = case_modality(case, volume)
    sample = _sample(image[box][(indices > 0) & (indices != IGNORE_INDEX)])
    facts = CaseFacts(
        name=case.name,
        modality=modality,
        site=case.site,
        subject=case.subject,
        shape=volume.grid.shape,
        spacing_mm=spacing,
        structures=tuple(_structures(indices, labels, spacing)),
        spine_mm=_spine_mm(indices, spacing),
        noise=_noise(image[_grown(box)], sample, modality),
        repairs=volume.notes,
    )
    return Measured(facts=facts, sample=sample, likeness=likeness(image, facts.size_mm))


def _check_spacing(volume: Volume, case: Case) -> None:
    if fault := spacing_fault(volume.grid.spacing_mm):
        raise DatasetError(f"{fault} in {case.images[0]}; mend its header")


def _box_around(labels: np.ndarray) -> Slices:
    """Where anything is labelled; nothing where nothing is."""
    spans = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(labels.any(axis=others))
        spans.append(slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0))
    return spans[0], spans[1], spans[2]


def _grown(box: Slices) -> Slices:
    """The box with `MARGIN` voxels more on every side; beyond the image, indexing cuts it."""
    s, p, l = (slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in box)  # noqa: E741
    return s, p, l


def _structures(
    indices: np.ndarray, labels: LabelSpace, spacing_mm: Vector3
) -> Iterator[StructureFacts | None]:
    """Each foreground class, with one mask of its own bounding box in memory at a time."""
    rows = labels.membership if labels.regions else labels.membership[1:]
    boxes = _boxes(indices)
    own = [[index for index in np.flatnonzero(row).tolist() if index in boxes] for row in rows]
    points = LATTICE_POINTS // max(1, sum(map(bool, own)))
    for members in own:
        if members:
            box = _hull([boxes[index] for index in members])
            yield _structure(np.isin(indices[box], members), spacing_mm, points)
        else:
            yield None


def _boxes(indices: np.ndarray) -> dict[int, Slices]:
    """The bounding box of each index that occurs."""
    # SciPy refuses an array without voxels.
    found = ndimage.find_objects(indices) if indices.size else []
    return {index: (box[0], box[1], box[2]) for index, box in enumerate(found, start=1) if box is not None}


def _hull(boxes: list[Slices]) -> Slices:
    """The smallest box around several."""
    s, p, l = (  # noqa: E741
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes))
        for axis in range(3)
    )
    return s, p, l


def _structure(mask: MaskArray, spacing_mm: Vector3, points: int) -> StructureFacts:
    """Measure a mask that is cut to its bounding box."""
    thickness = measure_thickness(mask, spacing_mm, points)
    s, p, l = (round(n * d, 2) for n, d in zip(mask.shape, spacing_mm, strict=True))  # noqa: E741
    return StructureFacts(
        voxels=int(np.count_nonzero(mask)),
        components=int(ndimage.label(mask, TOUCHING)[1]),
        extent_mm=(s, p, l),
        thickness_mm=thickness.typical_mm,
        local_thickness_mm=thickness.local_mm,
    )


def _spine_mm(indices: np.ndarray, spacing_mm: Vector3) -> float:
    known = (indices > 0) & (indices != IGNORE_INDEX)
    planes = np.flatnonzero(known.any(axis=(1, 2)))
    return round(float(planes[-1] - planes[0] + 1) * spacing_mm[0], 2) if len(planes) else 0.0


def _sample(inside: np.ndarray) -> np.ndarray:
    if inside.size > SAMPLES_PER_CASE:
        inside = inside[np.random.default_rng(0).integers(inside.size, size=SAMPLES_PER_CASE)]
    sample: np.ndarray = inside.astype(np.float32)
    return sample


def _noise(image: np.ndarray, sample: np.ndarray, modality: Modality) -> float | None:
    """In HU for CT; MR has no unit, so there it is a share of the labelled voxels' median."""
    level = noise_level(image)
    if level is None or not sample.size:
        return None
    if modality == "CT":
        return round(level, 2)
    median = float(np.median(sample))
    return round(level / median, 4) if median > 0 else None
