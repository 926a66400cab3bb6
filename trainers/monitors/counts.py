"""What a prediction and its labels have in common, counted in voxels and faces."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from autospine.core.labels import IGNORE_INDEX

REACH = 2
"""Voxels on either side of the foreground's border that count as near it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchCounts:
    """PatchCounts over one or more patches; ignored voxels are in none of them."""

    true: Int64[np.ndarray, "n"]
    """Voxels of each foreground class in the labels."""

    predicted: Int64[np.ndarray, "n"]
    """The same in the prediction."""

    overlap: Int64[np.ndarray, "n"]
    """Voxels that are of a class in both."""

    faces: Int64[np.ndarray, "n 3"]
    """Faces of each true class across S, P and L."""

    foreground: tuple[int, int]
    """Voxels of any class: in the labels, in the prediction."""

    border: tuple[int, int, int]
    """Faces of the true foreground, background near it that is predicted as foreground, and foreground near
    the background that is predicted as background."""

    def numbers(self) -> list[int]:
        """All counts in a row, as `restored` takes them."""
        arrays = np.concatenate([self.true, self.predicted, self.overlap, self.faces.ravel()])
        return [*arrays.tolist(), *self.foreground, *self.border]

    @classmethod
    def restored(cls, numbers: Sequence[int]) -> "PatchCounts":
        """The counts that `numbers` were taken of."""
        *arrays, true, predicted, faces, over, under = numbers
        by_class = np.array(arrays, dtype=np.int64).reshape(6, -1)
        return cls(
            true=by_class[0],
            predicted=by_class[1],
            overlap=by_class[2],
            faces=by_class[3:].reshape(-1, 3),
            foreground=(true, predicted),
            border=(faces, over, under),
        )

    @property
    def dice(self) -> Float[np.ndarray, "n"]:
        """Dice of each class, NaN where it is neither there nor predicted."""
        with np.errstate(invalid="ignore"):
            dice: np.ndarray = 2 * self.overlap / (self.true + self.predicted)
        return dice

    def chords(self) -> Float[np.ndarray, "n 3"]:
        """Mean length in voxels of the straight runs through each true class along S, P and L.

        Infinite along an axis on which the class passes through every patch, NaN for classes not seen.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            chords: np.ndarray = 2 * self.true[:, None] / self.faces
        return chords


def add(several: Iterable[PatchCounts]) -> PatchCounts:
    """The counts of all patches together; at least one."""
    return PatchCounts.restored(np.sum([one.numbers() for one in several], axis=0).tolist())


@torch.no_grad()
def count(
    logits: Float[Tensor, "K S P L"],
    labels: UInt8[Tensor, "S P L"],
    membership: Bool[Tensor, "K indices"],
    *,
    regions: bool,
) -> PatchCounts:
    """Compare the prediction for one patch with its labels.

    Args:
        logits: of each channel.
        labels: stored indices.
        membership: which stored indices belong to which channel; its last column is that of ignored voxels.
        regions: whether every channel is a class of its own, else they compete and the first is background.
    """
    valid = labels != IGNORE_INDEX
    column = torch.where(valid, labels.long(), membership.shape[1] - 1)
    # Regions are predicted one by one; plain classes compete, and the first channel is background.
    predicted = logits > 0 if regions else logits.argmax(0)
    shown = (predicted.any(0) if regions else predicted > 0) & valid
    inside = (membership if regions else membership[1:]).any(0)[column]
    outside = valid & ~inside
    over, under = _near(inside) & outside & shown, _near(outside) & inside & ~shown
    beside = [_pairs(column, axis, membership.shape[1]) for axis in range(3)]
    found = torch.stack([mask.count_nonzero() for mask in (shown, over, under)])
    table = _table(column, predicted, *membership.shape, regions=regions)
    return _summed(
        (membership if regions else membership[1:]).cpu().numpy(),
        torch.stack(beside).cpu().numpy(),
        table.cpu().numpy(),
        found.cpu().numpy(),
    )


def _summed(
    members: Bool[np.ndarray, "n indices"],
    beside: Int64[np.ndarray, "3 indices indices"],
    table: Int64[np.ndarray, "indices columns"],
    found: Int64[np.ndarray, "3"],
) -> PatchCounts:
    """PatchCounts by class from counts by stored index; the last index is that of ignored voxels."""
    inside: np.ndarray = np.any(members, axis=0)
    known = np.arange(members.shape[1]) < members.shape[1] - 1
    voxels, predicted = table[:, -1], table[:, :-1]
    return PatchCounts(
        true=members.astype(np.int64) @ voxels,
        predicted=predicted[known].sum(0),
        overlap=np.einsum("ci,ic->c", members.astype(np.int64), predicted),
        faces=np.array([_faces(beside, one, known) for one in members]),
        foreground=(int(voxels[inside].sum()), int(found[0])),
        border=(int(_faces(beside, inside, known).sum()), int(found[1]), int(found[2])),
    )


def _faces(
    beside: Int64[np.ndarray, "3 indices indices"],
    members: Bool[np.ndarray, "indices"],
    known: Bool[np.ndarray, "indices"],
) -> Int64[np.ndarray, "3"]:
    """Faces by axis between some indices and the other known ones."""
    others = known & ~members
    either_way = beside + beside.swapaxes(1, 2)
    faces: np.ndarray = either_way[:, members][:, :, others].sum((1, 2))
    return faces


def _pairs(column: Int64[Tensor, "S P L"], axis: int, indices: int) -> Int64[Tensor, "indices indices"]:
    """How often each index lies below each other one along an axis."""
    n = column.shape[axis] - 1
    pairs = column.narrow(axis, 0, n) * indices + column.narrow(axis, 1, n)
    return torch.bincount(pairs.flatten(), minlength=indices**2).view(indices, indices)


def _table(
    column: Int64[Tensor, "S P L"], predicted: Tensor, channels: int, indices: int, *, regions: bool
) -> Int64[Tensor, "indices columns"]:
    """Voxels of each index that are predicted as each class, and all of that index in the last column."""
    if regions:
        each = [torch.bincount(column[mask], minlength=indices) for mask in predicted]
        return torch.stack([*each, torch.bincount(column.flatten(), minlength=indices)], dim=1)
    pairs = (column * channels + predicted).flatten()
    table = torch.bincount(pairs, minlength=indices * channels).view(indices, channels)
    return torch.cat([table[:, 1:], table.sum(1, keepdim=True)], dim=1)


def _near(mask: Bool[Tensor, "S P L"]) -> Bool[Tensor, "S P L"]:
    """Voxels with a voxel of the mask within `REACH`, along the axes one after the other."""
    near = mask
    for axis in range(3):
        grown = near.clone()
        for step in range(1, min(REACH, mask.shape[axis] - 1) + 1):
            n = mask.shape[axis] - step
            grown.narrow(axis, 0, n).logical_or_(near.narrow(axis, step, n))
            grown.narrow(axis, step, n).logical_or_(near.narrow(axis, 0, n))
        near = grown
    return near
