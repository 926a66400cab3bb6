"""Comparison of a prediction with its labels, counted in voxels and voxel faces."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from autospine.core.labels import IGNORE_INDEX

REACH = 2
"""Distance in voxels from the foreground's border up to which voxels count as near it, on either side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchCounts:
    """Counts over one or more patches; ignored voxels are in none of them."""

    true: Int64[np.ndarray, "n"]
    """Voxels of each foreground class in the labels."""

    predicted: Int64[np.ndarray, "n"]
    """Voxels of each foreground class in the prediction."""

    overlap: Int64[np.ndarray, "n"]
    """Voxels that have the class both in the labels and in the prediction."""

    faces: Int64[np.ndarray, "n 3"]
    """Voxel faces across S, P and L between each class in the labels and other voxels."""

    foreground: tuple[int, int]
    """Voxels of any foreground class in the labels and in the prediction."""

    border: tuple[int, int, int]
    """Faces of the true foreground, background near it that is predicted as foreground, and foreground near
    the background that is predicted as background."""

    def numbers(self) -> list[int]:
        """Return all counts in one list, as `restored` takes them."""
        arrays = np.concatenate([self.true, self.predicted, self.overlap, self.faces.ravel()])
        return [*arrays.tolist(), *self.foreground, *self.border]

    @classmethod
    def restored(cls, numbers: Sequence[int]) -> "PatchCounts":
        """Make the counts from the list that `numbers` returned."""
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
        """Dice of each class; NaN for a class that is neither present nor predicted."""
        with np.errstate(invalid="ignore"):
            dice: np.ndarray = 2 * self.overlap / (self.true + self.predicted)
        return dice

    def chords(self) -> Float[np.ndarray, "n 3"]:
        """Compute the mean intercept length of each class in the labels along S, P and L, in voxels.

        Returns:
            Mean length of the straight runs through the class; infinite along an axis on which the class
            extends through every patch, NaN for a class that was in no patch.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            # Every run has two ends, and each end is a face.
            chords: np.ndarray = 2 * self.true[:, None] / self.faces
        return chords


def add(several: Iterable[PatchCounts]) -> PatchCounts:
    """Add the counts of several patches, at least one."""
    return PatchCounts.restored(np.sum([counts.numbers() for counts in several], axis=0).tolist())


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
        logits: Logits of the patch (K, S, P, L).
        labels: Stored indices (S, P, L).
        membership: Stored indices that belong to each channel (K, indices); the last column is that of
            ignored voxels.
        regions: Whether each channel is a class of its own; if not, the channels compete and the first one is
            background.
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
    sizes = torch.stack([mask.count_nonzero() for mask in (shown, over, under)])
    table = _table(column, predicted, *membership.shape, regions=regions)
    return _summed(
        (membership if regions else membership[1:]).cpu().numpy(),
        torch.stack(beside).cpu().numpy(),
        table.cpu().numpy(),
        sizes.cpu().numpy(),
    )


def _summed(
    members: Bool[np.ndarray, "n indices"],
    beside: Int64[np.ndarray, "3 indices indices"],
    table: Int64[np.ndarray, "indices columns"],
    sizes: Int64[np.ndarray, "3"],
) -> PatchCounts:
    """Turn counts by stored index into counts by class; the last index is that of ignored voxels.

    Args:
        members: Stored indices that belong to each foreground class.
        beside: Pairs of neighbouring voxels by axis and by their two indices.
        table: Voxels by their index and their predicted class; the last column has all voxels of the index.
        sizes: Voxels that are predicted as foreground, and those that lie near the border on the wrong side:
            background predicted as foreground, and foreground predicted as background.
    """
    inside: np.ndarray = np.any(members, axis=0)
    known = np.arange(members.shape[1]) < members.shape[1] - 1
    voxels, predicted = table[:, -1], table[:, :-1]
    return PatchCounts(
        true=members.astype(np.int64) @ voxels,
        predicted=predicted[known].sum(0),
        overlap=np.einsum("ci,ic->c", members.astype(np.int64), predicted),
        faces=np.array([_faces(beside, of_class, known) for of_class in members]),
        foreground=(int(voxels[inside].sum()), int(sizes[0])),
        border=(int(_faces(beside, inside, known).sum()), int(sizes[1]), int(sizes[2])),
    )


def _faces(
    beside: Int64[np.ndarray, "3 indices indices"],
    members: Bool[np.ndarray, "indices"],
    known: Bool[np.ndarray, "indices"],
) -> Int64[np.ndarray, "3"]:
    """Count by axis the faces between voxels of some indices and those of all other known indices."""
    others = known & ~members
    either_way = beside + beside.swapaxes(1, 2)
    faces: np.ndarray = either_way[:, members][:, :, others].sum((1, 2))
    return faces


def _pairs(column: Int64[Tensor, "S P L"], axis: int, indices: int) -> Int64[Tensor, "indices indices"]:
    """Count the pairs of neighbouring voxels along an axis by the indices of the lower and the upper one."""
    n = column.shape[axis] - 1
    pairs = column.narrow(axis, 0, n) * indices + column.narrow(axis, 1, n)
    return torch.bincount(pairs.flatten(), minlength=indices**2).view(indices, indices)


def _table(
    column: Int64[Tensor, "S P L"], predicted: Tensor, channels: int, indices: int, *, regions: bool
) -> Int64[Tensor, "indices columns"]:
    """Count voxels by index and predicted foreground class; the last column has all voxels of the index."""
    if regions:
        by_region = [torch.bincount(column[mask], minlength=indices) for mask in predicted]
        return torch.stack([*by_region, torch.bincount(column.flatten(), minlength=indices)], dim=1)
    pairs = (column * channels + predicted).flatten()
    table = torch.bincount(pairs, minlength=indices * channels).view(indices, channels)
    return torch.cat([table[:, 1:], table.sum(1, keepdim=True)], dim=1)


def _near(mask: Bool[Tensor, "S P L"]) -> Bool[Tensor, "S P L"]:
    """Dilate a mask by `REACH` voxels with a cube, one axis after the other."""
    near = mask
    for axis in range(3):
        grown = near.clone()
        for step in range(1, min(REACH, mask.shape[axis] - 1) + 1):
            n = mask.shape[axis] - step
            grown.narrow(axis, 0, n).logical_or_(near.narrow(axis, step, n))
            grown.narrow(axis, step, n).logical_or_(near.narrow(axis, 0, n))
        near = grown
    return near
