"""Prediction and reference of a case as metrics see them, class by class, cut to boxes and measured once."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from scipy import ndimage

from autospine.core.geometry import Box
from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.types import LabelArray, MaskArray, Vector3
from autospine.evaluation.centroids import CaseCentroids, vertebrae_among
from autospine.evaluation.components import number_components
from autospine.evaluation.instances import InstanceMatches, match_instances
from autospine.evaluation.surface import SurfaceDistances, surface_distances

_ANY_VOXEL = Box(start=(0, 0, 0), stop=(1, 1, 1))
"""Box of a class that is in neither map."""


@dataclass(frozen=True, kw_only=True)
class ClassPair:
    """A class in prediction and reference, cut to the box around both, without voxels that are ignored.

    What several metrics need is measured when the first one asks for it.
    """

    predicted: UInt8[np.ndarray, "S P L"]
    """0 outside the class in the prediction. Where several classes count as one, each has its number."""

    true: UInt8[np.ndarray, "S P L"]
    """The same in the reference."""

    spacing_mm: Vector3
    """Distance between the centres of neighbouring voxels along S, P and L."""

    position: int | None
    """Position of the class in `LabelSpace.names`; None if several classes count as one."""

    case: "CasePair"
    """The case with all classes."""

    @cached_property
    def prediction(self) -> MaskArray:
        """Mask of the class in the prediction."""
        mask: np.ndarray = self.predicted != 0
        return mask

    @cached_property
    def reference(self) -> MaskArray:
        """Mask of the class in the reference."""
        mask: np.ndarray = self.true != 0
        return mask

    @cached_property
    def distances(self) -> SurfaceDistances:
        """Distances between the surfaces of both masks."""
        return surface_distances(self.prediction, self.reference, self.spacing_mm)

    @cached_property
    def reference_instances(self) -> Integer[np.ndarray, "S P L"]:
        """Number of the connected component that each voxel of the reference belongs to."""
        return number_components(self.true)

    @cached_property
    def matches(self) -> InstanceMatches:
        """Connected components of prediction and reference that are the same."""
        return match_instances(number_components(self.predicted), self.reference_instances)

    @property
    def identified(self) -> float:
        """Whether the vertebra was identified, 0 or 1; NaN for what is no vertebra, and absent ones."""
        return math.nan if self.position is None else self.case.centroids.identified(self.position)

    @property
    def centroid_distance_mm(self) -> float:
        """Distance between both centroids; NaN if a mask is empty, and for several classes."""
        return math.nan if self.position is None else self.case.centroids.distance_mm(self.position)


class CasePair:
    """Prediction and reference of a case.

    Args:
        prediction: (S, P, L) stored indices, as `LabelSpace.encode` returns them.
        reference: Stored indices of the same shape.
        labels: The label space that the indices belong to.
        spacing_mm: Distance between the centres of neighbouring voxels along S, P and L.
    """

    def __init__(
        self, prediction: LabelArray, reference: LabelArray, labels: LabelSpace, spacing_mm: Vector3
    ) -> None:
        self._labels = labels
        self._spacing_mm = spacing_mm
        self._maps = _without_ignored(prediction, reference)
        self._boxes = tuple(_boxes(each) for each in self._maps)

    @property
    def classes(self) -> Iterator[ClassPair]:
        """The classes, in the order of `LabelSpace.names`, each read from the maps as it is asked for."""
        for position, members in enumerate(self._members):
            inside = members.astype(np.uint8)
            box = self._box(np.flatnonzero(members).tolist())
            predicted, true = (inside[each[box.slices]] for each in self._maps)
            yield self._pair(predicted, true, position)

    @property
    def foreground(self) -> ClassPair:
        """All classes taken as one."""
        box = self._box(range(1, self._members.shape[1]))
        predicted, true = (each[box.slices] for each in self._maps)
        return self._pair(predicted, true, None)

    @cached_property
    def centroids(self) -> CaseCentroids:
        """Centroids of all classes."""
        predicted, true = (
            np.asarray([self._centroid(each, members) for members in self._members]) for each in (0, 1)
        )
        return CaseCentroids(predicted=predicted, true=true, vertebrae=vertebrae_among(self._labels.names))

    @property
    def _members(self) -> Bool[np.ndarray, "classes indices"]:
        """Table of which stored indices belong to which class."""
        return self._labels.membership[-len(self._labels.names) :]

    def _pair(
        self, predicted: UInt8[np.ndarray, "S P L"], true: UInt8[np.ndarray, "S P L"], position: int | None
    ) -> ClassPair:
        return ClassPair(
            predicted=predicted, true=true, spacing_mm=self._spacing_mm, position=position, case=self
        )

    def _box(self, indices: Sequence[int]) -> Box:
        """Return the box around some stored indices in both maps."""
        return _hull(boxes[index] for boxes in self._boxes for index in indices if index in boxes)

    def _centroid(self, which: int, members: Bool[np.ndarray, " indices"]) -> Float[np.ndarray, "3"]:
        """Return the centroid of a class in one of the maps in mm; NaN if it is absent."""
        boxes = self._boxes[which]
        box = _hull(boxes[index] for index in np.flatnonzero(members).tolist() if index in boxes)
        mask = members[self._maps[which][box.slices]]
        total = int(np.count_nonzero(mask))
        if not total:
            return np.full(3, np.nan)
        # Sums over planes take less than the positions of all voxels.
        sums = (np.count_nonzero(mask, axis=axes) for axes in ((1, 2), (0, 2), (0, 1)))
        inside = [float(np.arange(each.size) @ each) / total for each in sums]
        centroid: np.ndarray = (np.asarray(box.start) + inside) * np.asarray(self._spacing_mm)
        return centroid


def _without_ignored(
    prediction: LabelArray, reference: LabelArray
) -> tuple[UInt8[np.ndarray, "S P L"], UInt8[np.ndarray, "S P L"]]:
    """Return both maps with background where the reference ignores a voxel or the prediction says nothing."""
    ignored = reference == IGNORE_INDEX
    silent = ignored | (prediction == IGNORE_INDEX)
    return _blanked(prediction, silent), _blanked(reference, ignored)


def _blanked(indices: LabelArray, hidden: MaskArray) -> UInt8[np.ndarray, "S P L"]:
    shown: np.ndarray = indices.astype(np.uint8, copy=False)
    if hidden.any():
        shown = np.where(hidden, np.uint8(0), shown)
    return shown


def _boxes(indices: UInt8[np.ndarray, "S P L"]) -> dict[int, Box]:
    """Return the box around each stored index that occurs."""
    found = ndimage.find_objects(indices)
    return {index: Box.of(slices) for index, slices in enumerate(found, start=1) if slices is not None}


def _hull(boxes: Iterable[Box]) -> Box:
    """Return the box around several, or that of any voxel if there are none."""
    found = tuple(boxes)
    return Box.hull(found) if found else _ANY_VOXEL
