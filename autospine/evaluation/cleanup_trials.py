"""Held-out predictions as small tables, from which every combination of cleanups is scored without the maps.

The voxels of a prediction fall into blocks: each connected component as it was predicted, and the holes that
filling would add to each component of the filled map. Whatever is filled, removed or given to a neighbour,
the voxels of a block have one label in the end. So it is enough to know of each block how many voxels the
reference gives which label, and how many faces it shares with which others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.types import LabelArray, Vector3
from autospine.evaluation.components import (
    count_shared_faces,
    fill_holes,
    find_components,
    main_neighbours,
)
from autospine.evaluation.overlap import Confusion
from autospine.evaluation.postprocessing import Cleanup, kept_components

CleanupEffect = tuple[bool, bytes, bytes, str]
"""Effect of a cleanup of one label on a case: whether it fills holes, which components it removes, which of
these are too large to become background, and the class that removed components take. Equal effects leave
equal label maps, whatever is done to the other labels."""


class CleanupRules(NamedTuple):
    """A cleanup for each stored index, as arrays; entry 0 stands for the background."""

    fill_holes: Bool[np.ndarray, " I"]
    keep_largest: Bool[np.ndarray, " I"]
    rival_limit: Float[np.ndarray, " I"]
    least_mm3: Float[np.ndarray, " I"]
    to_neighbour: Bool[np.ndarray, " I"]
    background_limit_mm3: Float[np.ndarray, " I"]

    @classmethod
    def of(cls, cleanups: Sequence[Cleanup]) -> "CleanupRules":
        """Return the rules of one cleanup for each stored index, from index 1 on."""
        every = (Cleanup(), *cleanups)
        return cls(
            fill_holes=np.asarray([each.fill_holes for each in every]),
            keep_largest=np.asarray([each.keep_largest for each in every]),
            rival_limit=np.asarray([each.rival_limit for each in every]),
            least_mm3=np.asarray([each.least_mm3 for each in every]),
            to_neighbour=np.asarray([each.removed_to == "neighbour" for each in every]),
            background_limit_mm3=np.asarray([each.background_limit_mm3 for each in every]),
        )


class _BlockNeighbours(NamedTuple):
    """Pairs of blocks that share faces, in both directions."""

    block: Integer[np.ndarray, " F"]
    other: Integer[np.ndarray, " F"]
    faces: Integer[np.ndarray, " F"]


class _BlockVoxels(NamedTuple):
    """Numbers of voxels by block and by index in the reference; ignored voxels are left out."""

    block: Integer[np.ndarray, " H"]
    reference: Integer[np.ndarray, " H"]
    voxels: Integer[np.ndarray, " H"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CaseTrial:
    """A prediction and its reference as tables of blocks. Block 0 is the background, which has no component.

    Component `b` is block `b` as it was predicted; component `n_blocks + f` is component `f` of the map in
    which all holes are filled. An entry stands for no component where its index is 0.
    """

    voxel_mm3: float
    """Volume of a voxel."""

    n_indices: int
    """Number of stored indices, background included."""

    index: Integer[np.ndarray, " B"]
    """Stored index of each block."""

    hole: Bool[np.ndarray, " B"]
    """Whether the block is what filling would add."""

    filled: Integer[np.ndarray, " B"]
    """Component of the filled map that each block is a part of."""

    sizes: Integer[np.ndarray, " K"]
    """Number of voxels of each component."""

    indices: Integer[np.ndarray, " K"]
    """Stored index of each component."""

    largest: Integer[np.ndarray, "2 I"]
    """Largest component of each stored index without and with its holes filled, 0 if there is none."""

    neighbours: _BlockNeighbours
    overlap: _BlockVoxels

    def confusion(self, rules: CleanupRules) -> Confusion:
        """Count the voxels by index in the reference and after a cleanup, as `confusion_table` does."""
        fills = rules.fill_holes[self.index]
        there = fills | ~self.hole
        component = np.where(fills, len(self.index) + self.filled, np.arange(len(self.index)))
        becomes = self._new_index(rules, component, there)
        final = np.where(there, becomes[component], 0)
        n, (block, reference, voxels) = self.n_indices, self.overlap
        table = np.bincount(reference * n + final[block], weights=voxels, minlength=n * n)
        counts: np.ndarray = table.astype(np.int64).reshape(n, n)
        return counts

    def effect(self, index: int, cleanup: Cleanup) -> CleanupEffect | None:
        """Return what a cleanup of one stored index does to this case, or None if it does nothing."""
        if not self.largest[0, index]:
            return None
        fills = cleanup.fill_holes and bool(np.any(self.index[self.hole] == index))
        own = self._components(index, fill=fills)
        removed = own[~kept_components(self.sizes[own], cleanup, self.voxel_mm3)]
        if not fills and not len(removed):
            return None
        spared = removed[self.sizes[removed] * self.voxel_mm3 > cleanup.background_limit_mm3]
        return fills, removed.tobytes(), spared.tobytes(), cleanup.removed_to if len(removed) else ""

    def _components(self, index: int, *, fill: bool) -> Integer[np.ndarray, " N"]:
        """Return the components of a stored index, without or with its holes filled."""
        n = len(self.index)
        if fill:
            filled: np.ndarray = n + np.flatnonzero(self.indices[n:] == index)
            return filled
        return np.flatnonzero((self.index == index) & ~self.hole)

    def _new_index(
        self, rules: CleanupRules, component: Integer[np.ndarray, " B"], there: Bool[np.ndarray, " B"]
    ) -> Integer[np.ndarray, " K"]:
        """Return the stored index that each component becomes.

        Args:
            rules: What is done.
            component: Component of each block.
            there: Whether the block is part of the map: holes that are not filled are not.
        """
        largest = np.where(rules.fill_holes, self.largest[1], self.largest[0])[self.indices]
        is_rival = self.sizes >= rules.rival_limit[self.indices] * np.maximum(self.sizes[largest], 1)
        kept = (self.sizes * self.voxel_mm3 >= rules.least_mm3[self.indices]) & (
            ~rules.keep_largest[self.indices] | (largest == np.arange(len(self.indices))) | is_rival
        )
        becomes: np.ndarray = np.where(kept, self.indices, 0)
        given_away = ~kept & rules.to_neighbour[self.indices]
        if given_away.any():
            block, other, faces = self.neighbours
            use = given_away[component[block]] & kept[component[other]] & there[block] & there[other]
            owners, rank = main_neighbours(component[block[use]], self.index[other[use]], faces[use])
            becomes[owners] = rank
        spared = (becomes == 0) & (self.sizes * self.voxel_mm3 > rules.background_limit_mm3[self.indices])
        becomes[spared] = self.indices[spared]
        return becomes


def try_case(
    prediction: LabelArray, reference: LabelArray, labels: LabelSpace, spacing_mm: Vector3
) -> CaseTrial:
    """Reduce a prediction and its reference to the tables that cleanups are tried on.

    Args:
        prediction: (S, P, L) label values of the dataset.
        reference: (S, P, L) label values; voxels to be ignored do not count.
        labels: The dataset's label space, without regions.
        spacing_mm: Voxel spacing of both maps along S, P and L.

    Raises:
        DatasetError: If a label value is not known to the label space.
    """
    predicted, true = labels.encode(prediction), labels.encode(reference)
    predicted[predicted == IGNORE_INDEX] = 0
    n_indices = len(labels.integers) + 1
    plain = find_components(predicted)
    filled = find_components(fill_holes(predicted, frozenset(range(1, n_indices))))
    n, parent = len(plain.sizes), np.zeros(len(plain.sizes), dtype=np.int64)
    parent[plain.component] = filled.numbers.reshape(-1)[plain.voxels]
    unfilled = np.bincount(parent, weights=plain.sizes, minlength=len(filled.sizes)).astype(np.int64)
    holed = np.flatnonzero(filled.sizes - unfilled)
    # Holes are numbered after the components as they were predicted.
    numbers_of_holes = np.zeros(len(filled.sizes), dtype=np.int32)
    numbers_of_holes[holed] = n + np.arange(len(holed))
    blocks = np.where(predicted > 0, plain.numbers.astype(np.int32), numbers_of_holes[filled.numbers])
    index = np.concatenate((plain.integers, filled.integers[holed])).astype(np.int64)
    sizes = np.concatenate((plain.sizes, np.zeros_like(holed), filled.sizes))
    indices = np.concatenate((plain.integers, np.zeros_like(holed), filled.integers)).astype(np.int64)
    return CaseTrial(
        voxel_mm3=prod(spacing_mm),
        n_indices=n_indices,
        index=index,
        hole=np.arange(len(index)) >= n,
        filled=np.concatenate((parent, holed)),
        sizes=sizes,
        indices=indices,
        largest=np.stack(
            [_largest(sizes, indices, n_indices, part) for part in (slice(0, n), slice(len(index), None))]
        ),
        neighbours=_neighbours(blocks, index),
        overlap=_block_voxels(blocks, true, n_indices),
    )


def _largest(
    sizes: Integer[np.ndarray, " K"], indices: Integer[np.ndarray, " K"], n_indices: int, part: slice
) -> Integer[np.ndarray, " I"]:
    """Return the largest component of each stored index among a part of them; 0 for none."""
    found, start = np.zeros(n_indices, dtype=np.int64), part.start
    for index in np.unique(indices[part]).tolist():
        own = np.flatnonzero(indices[part] == index)
        found[index] = start + own[np.argmax(sizes[part][own])]
    found[0] = 0
    return found


def _neighbours(blocks: Integer[np.ndarray, "S P L"], index: Integer[np.ndarray, " B"]) -> _BlockNeighbours:
    """Return which blocks of different labels share faces; a hole and what is around it count as one."""
    shared = count_shared_faces(blocks)
    differ = index[shared.first] != index[shared.second]
    first, second, faces = (part[differ] for part in shared)
    return _BlockNeighbours(
        block=np.concatenate((first, second)),
        other=np.concatenate((second, first)),
        faces=np.concatenate((faces, faces)),
    )


def _block_voxels(
    blocks: Integer[np.ndarray, "S P L"], reference: LabelArray, n_indices: int
) -> _BlockVoxels:
    """Count the voxels of each block by their index in the reference."""
    counted = reference != IGNORE_INDEX
    # The background is counted by itself, since all other voxels are sorted.
    empty = np.bincount(reference[counted & (blocks == 0)], minlength=n_indices)
    inside = counted & (blocks > 0)
    pairs = blocks[inside].astype(np.int64) * n_indices + reference[inside]
    found, voxels = np.unique(pairs, return_counts=True)
    block, true = np.divmod(found, n_indices)
    return _BlockVoxels(
        block=np.concatenate((np.zeros(n_indices, dtype=np.int64), block)),
        reference=np.concatenate((np.arange(n_indices), true)),
        voxels=np.concatenate((empty, voxels)),
    )
