"""Overlap of two label maps: counts of voxels, and Dice, IoU and accuracy from them.

What is returned where a class is missing:

| reference | prediction | Dice | IoU | accuracy |
|---|---|---|---|---|
| empty | empty | NaN | NaN | NaN |
| empty | present | 0 | 0 | NaN |
| present | empty | 0 | 0 | 0 |

NaN stands for "absent" and is left out of every mean.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from autospine.core.errors import EvaluationError
from autospine.core.labels import IGNORE_INDEX, LabelSpace

IndexArray = Integer[np.ndarray, "..."]
"""Stored indices in an array of any shape."""

SLAB_VOXELS = 1 << 22
"""Voxels counted at once; `bincount` takes eight bytes for each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Agreement of one class in one case."""

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
    def accuracy(self) -> float:
        """Share of the reference that was found, TP / (TP + FN), 0 to 1; NaN where the reference is empty."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def scores(self) -> "Scores":
        """The three measures; `n` is 1, or 0 where the class is in neither map."""
        return Scores(
            dice=self.dice, iou=self.iou, accuracy=self.accuracy, n=int(self.tp + self.fp + self.fn > 0)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Dice, IoU and accuracy of a class, or their means over several things."""

    dice: float
    """0 to 1, NaN where undefined."""

    iou: float
    """0 to 1, NaN where undefined."""

    accuracy: float
    """TP / (TP + FN), 0 to 1, NaN where undefined."""

    n: int
    """How many values of Dice went into it."""


def count_overlap(prediction: IndexArray, reference: IndexArray, labels: LabelSpace) -> tuple[Counts, ...]:
    """Count the voxels on which two label maps agree and differ, for each foreground class.

    Both maps are read once: a table of all pairs of indices is counted, and the classes, overlapping
    regions included, are sums over it. Voxels that the reference ignores (`IGNORE_INDEX`) are left out;
    a prediction that ignores a voxel predicts nothing there.

    Args:
        prediction: stored indices, as of `LabelSpace.encode`.
        reference: stored indices of the same shape.
        labels: what the indices mean.

    Returns:
        One entry for each of `labels.names`.

    Raises:
        EvaluationError: if the shapes differ or an index is not one of the label space.
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


def mean_scores(scores: Iterable[Scores]) -> Scores:
    """The mean of each measure over those of `scores` where it is defined; NaN where it is nowhere."""
    scores = tuple(scores)
    return Scores(
        dice=_mean(score.dice for score in scores),
        iou=_mean(score.iou for score in scores),
        accuracy=_mean(score.accuracy for score in scores),
        n=sum(not math.isnan(score.dice) for score in scores),
    )


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


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
