"""Labels that do not lie where the starter finds the spine: reversed, turned, or of another case."""

from collections.abc import Mapping
from itertools import permutations, product

import numpy as np
import torch
from jaxtyping import UInt8

from autospine.core.colours import structure_of
from autospine.core.errors import DatasetError
from autospine.core.geometry import Orientation, triple, turning
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray, Modality
from autospine.dataset.raw import Case, Dataset, case_modality
from autospine.inference.predictor import Predictor
from autospine.io.images import Volume, read_labels, read_volume
from autospine.models.archive import opened_model
from autospine.prediction.build_predictor import coarse_predictor
from autospine.storage.trained_models import starter
from autospine.system.log import progress

StructureMap = UInt8[np.ndarray, "S P L"]
"""Bone, disc or canal at each voxel, as a number from `STRUCTURES`; 0 elsewhere."""

STRUCTURES: Mapping[str, int] = {"vertebra": 1, "disc": 2, "canal": 3, "cord": 3}
"""Number of each structure that labels are compared by. The cord lies in the canal; the sacrum is left out,
since the starter calls it vertebra or misses it."""

STEP = 2
"""Voxels along each axis of which one is compared."""

BETTER = 1.3
"""Factor by which labels must fit better in another orientation to seem misplaced. On 20 real scans no other
orientation fits more than 1.01 times as well as the right one."""

FITS = 0.25
"""Least share of the labelled voxels in which the starter must find the same for labels to fit an image; 0.39
to 0.74 on 20 real scans."""

ALIKE = 0.95
"""Share of the best fit from which a simpler orientation is preferred: spines are nearly symmetric."""

_AS_IS = Orientation(order=(0, 1, 2), flipped=(False, False, False))


def misplaced_labels(dataset: Dataset, device: torch.device) -> tuple[str, ...]:
    """Compare the labels of every training case with the spine that the starter finds in its image.

    Args:
        dataset: A sound dataset.
        device: Device that the starter runs on.

    Returns:
        Notes on labels that seem misplaced, as `CASE: what is the matter`.

    Raises:
        DatasetError: If cases have several channels, or no class is a structure or a level of the spine.
        ModelError: If this installation lacks the starter.
        FormatError: If the starter is damaged.
    """
    structures = _structures(dataset.labels)
    if len(dataset.channels) > 1 or not structures:
        raise DatasetError(
            "expected cases of one channel with vertebrae, discs or the canal to compare with the starter, "
            f"found {', '.join(dataset.channels)} and {', '.join(dataset.labels.names)}; leave out --starter"
        )
    notes = []
    with opened_model(starter()) as model, progress("labels and starter", len(dataset.cases)) as meter:
        predictor = coarse_predictor(model, device)
        for case in dataset.cases:
            if note := _note(case, dataset.labels, structures, predictor):
                notes.append(f"{case.name}: {note}")
            meter.advance()
    return tuple(notes)


def turned_note(fits: Mapping[Orientation, float]) -> str | None:
    """Return a note on labels that fit clearly better reversed or with other axes; None if they do not.

    Args:
        fits: How well they fit in each orientation (see `orientation_fits`).
    """
    as_is, best = fits[_AS_IS], max(fits.values())
    if best < FITS or best < BETTER * as_is:
        return None
    simplest = min((how for how in fits if fits[how] >= ALIKE * best), key=_changes)
    return (
        f"its labels fit the image better {_described(simplest)}: the starter finds the same in "
        f"{fits[simplest]:.0%} of the labelled voxels then, in {as_is:.0%} as they are; look at both"
    )


def orientation_fits(found: StructureMap, labelled: StructureMap) -> dict[Orientation, float]:
    """Return how well labels fit in each orientation that keeps their shape.

    Args:
        found: What the starter finds in the image.
        labelled: What the labels say of the same voxels.

    Returns:
        By orientation the share of the labelled voxels in which the starter finds the same, 0 to 1.
    """
    found = np.where(np.isin(found, np.unique(labelled)), found, 0)[::STEP, ::STEP, ::STEP]
    places = np.nonzero(found)
    there, whole = found[places], max(1, int(np.count_nonzero(labelled[::STEP, ::STEP, ::STEP])))
    fits = {}
    for order, flipped in product(permutations(range(3)), product((False, True), repeat=3)):
        how = Orientation(order=triple(order), flipped=triple(flipped))
        turned = how.to_canonical(labelled)
        if turned.shape == labelled.shape:
            same = turned[::STEP, ::STEP, ::STEP][places] == there
            fits[how] = min(1.0, int(np.count_nonzero(same)) / whole)
    return fits


def _note(case: Case, labels: LabelSpace, structures: Mapping[int, int], predictor: Predictor) -> str | None:
    """Return what is wrong with the place of a case's labels, or with its modality; None for nothing."""
    assert case.labels is not None
    volume, read = read_volume(case.images), read_labels(case.labels, labels)
    values: LabelArray = turning(read.grid, volume.grid).to_canonical(read.array[0])
    labelled = _as_structures(values, structures)
    if not labelled.any():
        return None
    modality = case_modality(case, volume)
    fits = orientation_fits(_found(predictor, volume, modality), labelled)
    if note := turned_note(fits):
        return note
    share = fits[_AS_IS]
    if share >= FITS:
        return None
    other: Modality = "MR" if modality == "CT" else "CT"
    as_other = orientation_fits(_found(predictor, volume, other), labelled)[_AS_IS]
    if as_other >= max(FITS, BETTER * share):
        return (
            f"it may be {other} rather than {modality}: the starter finds the same in {as_other:.0%} of the "
            f"labelled voxels then, in {share:.0%} as {modality}; state its modality in cases.csv"
        )
    return (
        f"the starter finds the same in no more than {share:.0%} of the labelled voxels: the labels may be "
        "those of another case, or the image unlike any that the starter has learnt; look at both"
    )


def _found(predictor: Predictor, volume: Volume, modality: Modality) -> StructureMap:
    """Return what the starter finds in an image; what it takes for the sacrum is bone as well."""
    structures = _structures(predictor.plan.labels, {**STRUCTURES, "sacrum": STRUCTURES["vertebra"]})
    return _as_structures(predictor.predict(volume, modality, "starter"), structures)


def _structures(labels: LabelSpace, numbers: Mapping[str, int] = STRUCTURES) -> dict[int, int]:
    """Return the number of the structure that each label value is, or is one level of."""
    named = zip(labels.names, labels.members, strict=True)
    meant = {value: structure_of(name) for name, values in named for value in values}
    return {
        value: numbers[structure]
        for value, structure in meant.items()
        if structure is not None and structure in numbers
    }


def _as_structures(values: LabelArray, structures: Mapping[int, int]) -> StructureMap:
    """Return the number of the structure at each voxel."""
    numbers = np.zeros(values.shape, dtype=np.uint8)
    for value, number in structures.items():
        numbers[values == value] = number
    return numbers


def _changes(how: Orientation) -> int:
    """Return how many axes are exchanged or reversed."""
    return sum(axis != place for place, axis in enumerate(how.order)) + sum(how.flipped)


def _described(how: Orientation) -> str:
    """Say how labels are turned, by the axes S, P and L."""
    parts = []
    if how.order != _AS_IS.order:
        parts.append(f"with their axes in the order {', '.join('SPL'[axis] for axis in how.order)}")
    if any(how.flipped):
        axes = ("SPL"[axis] for axis, against in enumerate(how.flipped) if against)
        parts.append(f"reversed along {' and '.join(axes)}")
    return " and ".join(parts)
