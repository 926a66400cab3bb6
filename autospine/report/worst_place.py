"""The place where a prediction is farthest from its reference."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt

from autospine.core.geometry import Box, triple
from autospine.core.labels import IGNORE_INDEX
from autospine.core.types import LabelArray, MaskArray, Shape3, Vector3

SEARCHED_MM = 2.0
"""Voxel size of the search: finer maps are thinned out to about this, which saves most of the time."""

Fault = Literal["missed", "extra"]
"""`missed`: the class is in the reference alone; `extra`: it is in the prediction alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorstPlace:
    """The voxel of a class in one map that is farthest from this class in the other."""

    index: Shape3
    """Voxel along S, P and L."""

    fault: Fault
    """Which of the two maps has the class there."""

    class_index: int
    """Stored index of the class."""

    other_index: int
    """Stored index that the other map has there; 0 for the background."""

    distance_mm: float
    """Distance to the class in the other map or, where that map lacks the class, to the edge of what is
    missed or extra."""

    absent: bool
    """Whether the other map lacks the class everywhere."""

    @property
    def lost(self) -> bool:
        """Whether the class is nowhere predicted."""
        return self.absent and self.fault == "missed"


def find_worst_place(prediction: LabelArray, reference: LabelArray, spacing_mm: Vector3) -> WorstPlace | None:
    """Find the voxel of a class that is farthest from the same class in the other map.

    A class that is nowhere predicted comes before all others, however far stray voxels lie; of several the
    thickest.

    Args:
        prediction: Predicted stored indices (S, P, L).
        reference: Stored indices of the reference (S, P, L); ignored voxels are left out.
        spacing_mm: Voxel size (S, P, L).

    Returns:
        The place; None if no voxel of the thinned maps differs.
    """
    steps = triple(max(1, int(SEARCHED_MM / mm)) for mm in spacing_mm)
    thinned = tuple(slice(None, None, step) for step in steps)
    found, true = prediction[thinned], reference[thinned]
    # What is ignored is neither right nor wrong.
    found = np.where(true == IGNORE_INDEX, IGNORE_INDEX, found)
    spacing = triple(step * mm for step, mm in zip(steps, spacing_mm, strict=True))
    classes = {*np.unique(found).tolist(), *np.unique(true).tolist()} - {0, IGNORE_INDEX}
    places = [place for index in sorted(classes) for place in _farthest(index, found, true, spacing)]
    if not places:
        return None
    worst = max(places, key=lambda place: (place.lost, place.distance_mm))
    return replace(worst, index=triple(at * step for at, step in zip(worst.index, steps, strict=True)))


def _farthest(index: int, found: LabelArray, true: LabelArray, spacing_mm: Vector3) -> Iterator[WorstPlace]:
    """Yield the farthest voxel of what is missed of a class, and of what is extra, where there is any."""
    box = Box.around((found == index) | (true == index))
    if box is None:
        return
    found, true = found[box.slices], true[box.slices]
    faults: tuple[tuple[Fault, LabelArray, LabelArray], ...] = (
        ("missed", true, found),
        ("extra", found, true),
    )
    for fault, own, other in faults:
        wrong = (own == index) & (other != index)
        if not wrong.any():
            continue
        distance = np.where(wrong, _distances(own == index, other == index, spacing_mm), 0)
        at = triple(int(i) for i in np.unravel_index(int(distance.argmax()), distance.shape))
        yield WorstPlace(
            index=triple(i + start for i, start in zip(at, box.start, strict=True)),
            fault=fault,
            class_index=index,
            other_index=int(other[at]),
            distance_mm=float(distance[at]),
            absent=not (other == index).any(),
        )


def _distances(own: MaskArray, other: MaskArray, spacing_mm: Vector3) -> Float[np.ndarray, "S P L"]:
    """Return the distance of each voxel to the other mask or, if that is empty, its depth in its own."""
    if other.any():
        distances: np.ndarray = distance_transform_edt(~other, sampling=spacing_mm)
        return distances
    padded = np.pad(own, 1)  # else the border of the box would not end the structure
    depths: np.ndarray = distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    return depths
