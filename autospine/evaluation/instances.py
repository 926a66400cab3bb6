"""Instances of prediction and reference that are the same, and the metrics made of them.

Recognition, segmentation and panoptic quality are those of Kirillov et al. 2019 (arXiv:1801.00868): a
predicted instance and one of the reference are the same if their IoU exceeds one half, so that none has two
partners. Instances of label maps are their connected components (see `autospine.evaluation.components`).
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from autospine.core.types import MaskArray, Vector3

LEAST_IOU = 0.5
"""IoU that two instances must exceed in order to be the same."""

SMALL_MM3 = 1000.0
"""Largest volume of a small structure: less than a tenth of C1, the smallest vertebra."""


class InstanceMatches(NamedTuple):
    """Instances of a prediction and a reference that are the same."""

    predicted: int
    """Number of instances in the prediction."""

    present: int
    """Number of instances in the reference."""

    ious: Float[np.ndarray, " N"]
    """IoU of each pair of instances that are the same."""

    @property
    def recognition(self) -> float:
        """Recognition quality, the F1 score of the instances, 0 to 1; NaN if there are none at all."""
        whole = self.predicted + self.present
        return 2 * self.ious.size / whole if whole else math.nan

    @property
    def segmentation(self) -> float:
        """Segmentation quality, the mean IoU of the pairs, 0 to 1; NaN if there is none."""
        return float(self.ious.mean()) if self.ious.size else math.nan

    @property
    def panoptic(self) -> float:
        """Panoptic quality, the product of both, 0 to 1: 0 if no pair is the same, NaN without instances."""
        whole = self.predicted + self.present
        return 2 * float(self.ious.sum()) / whole if whole else math.nan


def match_instances(
    prediction: Integer[np.ndarray, "S P L"], reference: Integer[np.ndarray, "S P L"]
) -> InstanceMatches:
    """Match the instances of two maps, whatever their numbers are.

    Args:
        prediction: Number of the instance that each voxel belongs to in the prediction, 0 for none.
        reference: The same in the reference.
    """
    predicted, true = _sizes(prediction), _sizes(reference)
    meet = (prediction != 0) & (reference != 0)
    pairs = reference[meet].astype(np.int64) * predicted.size + prediction[meet]
    met, voxels = np.unique(pairs, return_counts=True)
    of_reference, of_prediction = np.divmod(met, predicted.size)
    ious = voxels / (true[of_reference] + predicted[of_prediction] - voxels)
    return InstanceMatches(
        predicted=int(np.count_nonzero(predicted)),
        present=int(np.count_nonzero(true)),
        ious=ious[ious > LEAST_IOU],
    )


def small_recall(
    prediction: MaskArray,
    instances: Integer[np.ndarray, "S P L"],
    spacing_mm: Vector3,
    largest_mm3: float = SMALL_MM3,
) -> float:
    """Return the mean recall of the small structures of a reference, 0 to 1; NaN if it has none.

    Args:
        prediction: (S, P, L) predicted mask.
        instances: Number of the reference's instance that each voxel belongs to, 0 for none.
        spacing_mm: Distance between the centres of neighbouring voxels along S, P and L.
        largest_mm3: Largest volume of a small structure.
    """
    sizes = _sizes(instances)
    small = (sizes > 0) & (sizes * math.prod(spacing_mm) <= largest_mm3)
    if not small.any():
        return math.nan
    found = np.bincount(instances[prediction & (instances != 0)], minlength=sizes.size)
    return float((found[small] / sizes[small]).mean())


def _sizes(instances: Integer[np.ndarray, "S P L"]) -> Integer[np.ndarray, " N"]:
    """Return the number of voxels of each instance by its number; entry 0 is 0."""
    return np.bincount(instances[instances != 0], minlength=1)
