"""Overlap of two label maps: counts of voxels, and Dice, IoU and recall computed from them.

Values for a class that is missing from one map or both:

| reference | prediction | Dice | IoU | recall |
|---|---|---|---|---|
| empty | empty | NaN | NaN | NaN |
| empty | present | 0 | 0 | NaN |
| present | empty | 0 | 0 | 0 |

NaN stands for "absent" and is left out of every mean.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer

from autospine.core.errors import EvaluationError
from autospine.core.labels import IGNORE_INDEX, LabelSpace

IndexArray = Integer[np.ndarray, "..."]
"""Stored indices in an array of any shape."""

SLAB_VOXELS = 1 << 22
"""Voxels counted at once; `bincount` takes eight bytes for each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Numbers of voxels on which two label maps agree and differ about one class in one case."""

    tp: int
    """Voxels in the prediction and in the reference."""

    fp: int
    """Voxels in the prediction alone."""

    fn: int
    """Voxels in the reference alone."""

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN), 0 to 1; NaN where the class is in neither map."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """Intersection over union, TP / (TP + FP + FN), 0 to 1; NaN where the class is in neither map."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def recall(self) -> float:
        """Share of the reference that was found, TP / (TP + FN), 0 to 1; NaN where the reference is empty."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def occurs(self) -> bool:
        """Whether the class is in the prediction or in the reference."""
        return self.tp + self.fp + self.fn > 0


def count_overlap(prediction: IndexArray, reference: IndexArray, labels: LabelSpace) -> tuple[Counts, ...]:
    """Count the voxels on which two label maps agree and differ, for each foreground class.

    Both maps are read once: a table of all pairs of indices is counted, and the classes, overlapping
    regions included, are sums over it. Voxels that the reference ignores (`IGNORE_INDEX`) are left out;
    a prediction that ignores a voxel predicts nothing there.

    Args:
        prediction: Stored indices, as `LabelSpace.encode` returns them.
        reference: Stored indices of the same shape.
        labels: The label space that the indices belong to.

    Returns:
        One entry for each of `labels.names`.

    Raises:
        EvaluationError: If the shapes differ or an index is not one of the label space.
    """
    if prediction.shape != reference.shape:
        raise EvaluationError(
            f"expected a prediction of the reference's shape {reference.shape}, found {prediction.shape}"
        )
    n = len(labels.integers) + 1
    # The last row and column hold what is ignored.
    pairs = _pairs(_packed(prediction, n), _packed(reference, n), n + 1)[:n]
    inside = labels.membership[-len(labels.names) :].astype(np.int64)
    hits = np.einsum("ci,ij,cj->c", inside, pairs[:, :n], inside)
    predicted = inside @ pairs[:, :n].sum(axis=0)
    present = inside @ pairs.sum(axis=1)
    return tuple(
        Counts(tp=int(tp), fp=int(p - tp), fn=int(r - tp))
        for tp, p, r in zip(hits, predicted, present, strict=True)
    )


def class_mask(indices: IndexArray, labels: LabelSpace, position: int) -> Bool[np.ndarray, "..."]:
    """Return the mask of one foreground class; voxels that are `IGNORE_INDEX` are outside it.

    Args:
        indices: Stored indices that `count_overlap` accepts.
        labels: The label space that they belong to.
        position: Position of the class in `labels.names`.
    """
    table = np.zeros(IGNORE_INDEX + 1, dtype=bool)
    members = labels.membership[-len(labels.names) :][position]
    table[: len(members)] = members
    mask: np.ndarray = table[indices]
    return mask


def _packed(indices: IndexArray, n: int) -> np.ndarray:
    """Indices 0 to n - 1 as they are and `IGNORE_INDEX` as n, so that pairs fit into 16 bits."""
    strange = np.uint16(IGNORE_INDEX + 1)
    table = np.full(IGNORE_INDEX + 1, strange)
    table[:n] = np.arange(n)
    table[IGNORE_INDEX] = n
    low, high = (int(indices.min()), int(indices.max())) if indices.size else (0, 0)
    packed: np.ndarray | None = table[indices].reshape(-1) if low >= 0 and high <= IGNORE_INDEX else None
    if packed is None or np.any(packed == strange):
        raise EvaluationError(
            f"expected stored indices from 0 to {n - 1} or {IGNORE_INDEX}, found values from {low} to "
            f"{high}; pass labels through LabelSpace.encode first"
        )
    return packed


def _pairs(prediction: np.ndarray, reference: np.ndarray, width: int) -> np.ndarray:
    """Table (reference, prediction) of how often two packed indices meet; `width` is at most 256."""
    counts = np.zeros(width * width, dtype=np.int64)
    for start in range(0, reference.size, SLAB_VOXELS):
        slab = slice(start, start + SLAB_VOXELS)
        counts += np.bincount(reference[slab] * np.uint16(width) + prediction[slab], minlength=width * width)
    return counts.reshape(width, width)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
