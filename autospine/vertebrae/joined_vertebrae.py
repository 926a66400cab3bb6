"""The vertebrae of a label map with names and of one without, joined: the second has seen vertebrae that the
first has missed, called by two names, or taken for one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer
from scipy import ndimage

from autospine.core.geometry import Box, Grid
from autospine.core.types import Shape3
from autospine.vertebrae.label_instances import LabelledVertebra, VertebraMap, with_one_sacrum
from autospine.vertebrae.levels import SACRUM
from autospine.vertebrae.touching_vertebrae import FRAGMENT_ML, VERTEBRA

SHARED = 0.2
"""Share of a piece with a name that lies in vertebrae without names, from which on it is a part of them."""

WHOLLY = 0.8
"""Share of that in a single vertebra from which on the whole piece belongs to it. The rest may be the border
of a map of larger voxels; with less, the piece covers several vertebrae, and is split between them."""

NAMED = 0.25
"""Share of a vertebra that a map with names labels at least: its body is about half of it. Where less has a
name, the rest counts as a vertebra of no name."""


class _NamedPiece(NamedTuple):
    """A piece with a name, and the vertebra without a name that it lies in."""

    number: int
    integer: int
    instance: int
    """Place of the vertebra in the map without names; -1 for none."""

    ml: float


def join_vertebrae(
    named: VertebraMap, nameless: VertebraMap, levels: Mapping[int, str], grid: Grid
) -> VertebraMap:
    """Return the vertebrae that either of two maps of one image has.

    A vertebra of the map without names has the names of the pieces that lie in it, if any. What has a name
    and lies in none of them stays a vertebra of its own, also within the sacrum: where one network takes L5
    for the sacrum, or the other the sacrum for L5, distances tell which is right. Of several sacra only the
    largest counts.

    Args:
        named: Vertebrae of a map whose labels are levels.
        nameless: Vertebrae of a map on the same grid with one label for all of them, and one for the sacrum.
        levels: Level that each label value of the map with names stands for.
        grid: Grid of both maps.

    Returns:
        The vertebrae; their pieces, `numbers` and `integers` are those of the map with names.
    """
    instances = with_one_sacrum(nameless.vertebrae)
    table = np.zeros(int(nameless.numbers.max(initial=0)) + 1, dtype=np.int32)
    for place, instance in enumerate(instances, start=1):
        if not instance.is_sacrum:
            table[list(instance.pieces)] = place
    seen = _within(named.box, nameless.box, table[nameless.numbers])
    numbers, pieces = _assigned(named, seen, grid)
    joined = [
        _with_names(instance, [piece for piece in pieces if piece.instance == place], levels)
        for place, instance in enumerate(instances)
    ]
    alone = {piece.number: piece for piece in pieces if piece.instance < 0}
    for vertebra in named.vertebrae:
        own = [alone[number] for number in vertebra.pieces if number in alone]
        if own and sum(piece.ml for piece in own) >= FRAGMENT_ML:
            joined.append(_of_pieces(vertebra, own, levels))
    integers = {piece.number: piece.integer for piece in pieces}
    return VertebraMap(vertebrae=tuple(joined), numbers=numbers, box=named.box, integers=integers)


def _within(box: Box, other: Box, numbers: Integer[np.ndarray, "s p l"]) -> Integer[np.ndarray, "S P L"]:
    """Return the part of an array that fills one box, as an array that fills another one."""
    shape: Shape3 = box.shape
    found = np.zeros(shape, dtype=numbers.dtype)
    starts = [max(a, b) for a, b in zip(box.start, other.start, strict=True)]
    stops = [min(a, b) for a, b in zip(box.stop, other.stop, strict=True)]
    if all(start < stop for start, stop in zip(starts, stops, strict=True)):
        here = tuple(slice(a - o, b - o) for a, b, o in zip(starts, stops, box.start, strict=True))
        there = tuple(slice(a - o, b - o) for a, b, o in zip(starts, stops, other.start, strict=True))
        found[here] = numbers[there]
    return found


def _assigned(
    named: VertebraMap, seen: Integer[np.ndarray, "s p l"], grid: Grid
) -> tuple[Integer[np.ndarray, "s p l"], list[_NamedPiece]]:
    """Return the numbers of the pieces with a name, each within one vertebra, and the pieces.

    Args:
        named: Vertebrae of the map with names.
        seen: Place of the vertebra without a name at each voxel, from 1 on; 0 for none.
        grid: Grid of both maps.
    """
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    numbers = named.numbers.astype(np.int32)
    columns = int(seen.max(initial=0)) + 1
    size = int(numbers.max(initial=0)) + 1
    counts = np.bincount((numbers * columns + seen).ravel(), minlength=size * columns).reshape(size, columns)
    boxes = ndimage.find_objects(numbers)
    pieces: list[_NamedPiece] = []
    following = size
    for number, integer in named.integers.items():
        total, inside = int(counts[number].sum()), counts[number, 1:]
        if not total:
            continue
        if inside.sum() < SHARED * total:
            pieces.append(_NamedPiece(number, integer, -1, total * voxel_ml))
            continue
        if inside.max() >= WHOLLY * inside.sum():
            pieces.append(_NamedPiece(number, integer, int(inside.argmax()), total * voxel_ml))
            continue
        box = boxes[number - 1]
        mine = numbers[box] == number
        sharing = np.flatnonzero(inside >= (1 - WHOLLY) / 2 * inside.sum())
        near = np.where(mine & np.isin(seen[box], sharing + 1), seen[box], 0)
        nearest = ndimage.distance_transform_edt(
            near == 0, sampling=grid.spacing_mm, return_distances=False, return_indices=True
        )
        parts = np.where(mine, near[tuple(nearest)], 0)
        for instance in sharing.tolist():
            part = parts == instance + 1
            numbers[box][part] = following
            pieces.append(_NamedPiece(following, integer, instance, int(np.count_nonzero(part)) * voxel_ml))
            following += 1
    return numbers, pieces


def _with_names(
    instance: LabelledVertebra, pieces: list[_NamedPiece], levels: Mapping[int, str]
) -> LabelledVertebra:
    """Return a vertebra of the map without names with those of the pieces that lie in it."""
    labels = _volumes(pieces, levels)
    ml = sum(labels.values())
    if instance.is_sacrum:
        labels[SACRUM] = instance.ml
    elif ml < NAMED * instance.ml:
        labels[VERTEBRA] = instance.ml - ml
    return replace(instance, pieces=tuple(piece.number for piece in pieces), labels=labels)


def _of_pieces(
    vertebra: LabelledVertebra, pieces: list[_NamedPiece], levels: Mapping[int, str]
) -> LabelledVertebra:
    labels = _volumes(pieces, levels)
    numbers = tuple(piece.number for piece in pieces)
    return replace(vertebra, pieces=numbers, labels=labels, ml=sum(labels.values()))


def _volumes(pieces: list[_NamedPiece], levels: Mapping[int, str]) -> dict[str, float]:
    """Return the volume in ml of pieces by their level."""
    labels: dict[str, float] = {}
    for piece in pieces:
        level = levels[piece.integer]
        labels[level] = labels.get(level, 0.0) + piece.ml
    return labels
