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
from jaxtyping import Integer

from autospine.core.errors import EvaluationError
from autospine.core.labels import IGNORE_INDEX, LabelSpace

IndexArray = Integer[np.ndarray, "..."]
"""Stored indices in an array of any shape."""

Confusion = Integer[np.ndarray, "I I"]
"""Numbers of voxels by stored index in the reference (rows) and in the prediction (columns)."""

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
    def volume_error(self) -> float:
        """Difference of the volumes as a share of the reference's, |FP - FN| / (TP + FN), 0 to infinity; NaN
        where the reference is empty.
        """
        return _ratio(abs(self.fp - self.fn), self.tp + self.fn)

    @property
    def occurs(self) -> bool:
        """Whether the class is in the prediction or in the reference."""
        return self.tp + self.fp + self.fn > 0


def count_overlap(prediction: IndexArray, reference: IndexArray, labels: LabelSpace) -> tuple[Counts, ...]:
    """Count the voxels on which two label maps agree and differ, for each foreground class.

    Args:
        prediction: Stored indices, as `LabelSpace.encode` returns them.
        reference: Stored indices of the same shape.
        labels: The label space that the indices belong to.

    Returns:
        One entry for each of `labels.names`.

    Raises:
        EvaluationError: If the shapes differ or an index is not one of the label space.
    """
    return class_counts(confusion_table(prediction, reference, labels), labels)


def confusion_table(prediction: IndexArray, reference: IndexArray, labels: LabelSpace) -> Confusion:
    """Count how often each pair of stored indices meets; both maps are read once.

    Voxels that the reference ignores (`IGNORE_INDEX`) are left out; a prediction that ignores a voxel
    predicts nothing there.

    Args:
        prediction: Stored indices, as `LabelSpace.encode` returns them.
        reference: Stored indices of the same shape.
        labels: The label space that the indices belong to.

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
    table = pairs[:, :n].copy()
    table[:, 0] += pairs[:, n]
    return table


def class_counts(confusion: Confusion, labels: LabelSpace) -> tuple[Counts, ...]:
    """Return the counts of each of `labels.names`, overlapping regions included, as sums over the table."""
    inside = labels.membership[-len(labels.names) :].astype(np.int64)
    hits = np.einsum("ci,ij,cj->c", inside, confusion, inside)
    predicted = inside @ confusion.sum(axis=0)
    present = inside @ confusion.sum(axis=1)
    return tuple(
        Counts(tp=int(tp), fp=int(p - tp), fn=int(r - tp))
        for tp, p, r in zip(hits, predicted, present, strict=True)
    )


def in_class_order(confusion: Confusion, labels: LabelSpace) -> Confusion | None:
    """Return a table whose rows and columns are the background and then `labels.names`.

    None for regions: a voxel that lies in several has no single name.
    """
    if labels.regions:
        return None
    order = [0, *(1 + labels.integers.index(integer) for integer in labels.painted)]
    return confusion[np.ix_(order, order)]


def foreground_counts(confusion: Confusion) -> Counts:
    """Return the counts of all labels taken as one: bone of a wrong name is found all the same."""
    found, predicted, present = (
        int(part.sum()) for part in (confusion[1:, 1:], confusion[:, 1:], confusion[1:])
    )
    return Counts(tp=found, fp=predicted - found, fn=present - found)


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
