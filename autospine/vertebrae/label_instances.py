"""Vertebrae as instances of a label map: connected components, split where they touch and joined where one
vertebra has several.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Integer
from scipy import ndimage

from autospine.core.geometry import Box, Grid, triple, vector
from autospine.core.types import LabelArray, Shape3
from autospine.evaluation.components import count_shared_faces, find_components
from autospine.vertebrae.levels import INDEX, SACRUM
from autospine.vertebrae.touching_vertebrae import (
    CONTACT,
    FRAGMENT_ML,
    ONE_STEP,
    TWICE,
    VERTEBRA,
    cut_between_bodies,
    depth_inside,
    part_atlas_from_axis,
    split_components,
    surface_faces,
    usual_volumes,
)

FRAGMENT_SHARE = 0.25
"""Components of less than this share of another of the same label near by are fragments of it."""

FINEST_MM = 1.0
"""Voxel size that is fine enough to tell vertebrae apart."""

SAME_HEIGHT = 0.3
"""The same share for two pieces with one label of which the border of the image cuts the smaller, so that its
centre is not that of all of it: what is seen of a spinous process lies as high as its body."""

BEHIND_MM = 60.0
"""Distance within which a piece as high as a vertebra of its label belongs to it: the tip of a spinous
process lies up to about as far behind the middle of the body."""

NEAR_STEPS = 1.4
"""Distances of neighbours within which a fragment belongs to the vertebra of its label."""

PROCESS_SHARE = 0.4
"""Share of the volume of the vertebra that it touches below which one of several components of a label, such
as a spinous process, is a piece of it."""

PROCESS_CONTACT = 0.1
"""Share of its surface by which such a component touches the vertebra: neighbours touch by 0.02."""

SPECK_ML = 0.05
"""Volume below which a component is noise: it may belong to a vertebra, and nothing belongs to it."""

SLAB_ML = 0.3
"""Least volume of the other component: one of less is noise, and the vertebra may be all there is in view."""

UPPER_END_MM = 35.0
"""Height of the sacrum's upper end, S1, to whose centre that of the last lumbar vertebra has the distance of
neighbours; the centre of the whole sacrum lies two vertebrae below."""

SACRAL_MM = 12.0
"""Distance along the spine from the sacrum's upper end within which a piece that touches it is a part of it:
the last vertebra lies 18 mm above at least, also where a network leaves half of it out."""

STEP_OF_SIZE = 0.8
"""Distance of neighbours in parts of the cube root of a vertebra's volume."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledVertebra:
    """One vertebra, or the sacrum, of a label map."""

    pieces: tuple[int, ...]
    """Numbers of its pieces in `VertebraMap.numbers`."""

    labels: Mapping[str, float]
    """Volume in ml by the level that it is called in the map."""

    centre_mm: tuple[float, float, float]
    """Centre of its thickest part, in LPS, which is the body's; that of the sacrum's upper end."""

    ml: float
    cut: bool
    """Whether it touches the border of the image."""

    @property
    def is_sacrum(self) -> bool:
        """Whether most of it is called the sacrum: a vertebra may hold a crumb of that label."""
        return max(self.labels, key=self.labels.__getitem__) == SACRUM


class VertebraMap(NamedTuple):
    """The vertebrae of a label map, in no order."""

    vertebrae: tuple[LabelledVertebra, ...]
    numbers: Integer[np.ndarray, "s p l"]
    """Number of the piece that each voxel of `box` belongs to; 0 where there is no vertebra."""

    box: Box
    """The part of the map that holds them."""

    integers: Mapping[int, int]
    """Label value of each piece in the map."""


class _MapPiece(NamedTuple):
    level: str
    integer: int
    ml: float
    centre_mm: Float64[np.ndarray, "3"]
    cut: bool
    surface: float
    """Faces of its surface, as those of a cube of its volume."""


def find_vertebrae(labels: LabelArray, grid: Grid, levels: Mapping[int, str]) -> VertebraMap:
    """Find the vertebrae of a label map.

    In a map of finer voxels than `FINEST_MM` they are found among every second or n-th voxel; those between
    belong to the piece of their label that lies there, or to the largest of it.

    Args:
        labels: (S, P, L) label values.
        grid: Grid of the map.
        levels: Level that each label value of a vertebra, or of the sacrum, stands for; `VERTEBRA` for one
            that all vertebrae share.
    """
    steps = triple(max(1, int(FINEST_MM / spacing)) for spacing in grid.spacing_mm)
    box = _box_of(labels, levels, steps)
    labels = labels[box.slices]
    grid = replace(grid, shape=box.shape, origin_mm=vector(grid.physical(np.array(box.start))))
    thinned = labels[tuple(slice(None, None, step) for step in steps)]
    coarse = replace(
        grid,
        shape=triple(thinned.shape),
        spacing_mm=vector(np.array(grid.spacing_mm) * steps),
    )
    components = find_components(np.where(np.isin(thinned, list(levels)), thinned, 0))
    numbers = split_components(components.numbers.astype(np.int32), components.integers, coarse, levels)
    part_atlas_from_axis(numbers, thinned, levels)
    together = cut_between_bodies(numbers, thinned, coarse, levels)
    pieces = _measure(numbers, thinned, coarse, levels)
    groups = _join(pieces, numbers, together)
    integers = {number: piece.integer for number, piece in pieces.items()}
    if steps != (1, 1, 1):
        numbers = _at_every_voxel(numbers, labels, steps, pieces)
    return VertebraMap(
        vertebrae=tuple(_vertebra(group, pieces) for group in groups),
        numbers=numbers,
        box=box,
        integers=integers,
    )


def with_one_sacrum(vertebrae: Iterable[LabelledVertebra]) -> list[LabelledVertebra]:
    """Return what is no fragment, with the largest sacrum alone: the others are pieces of it."""
    large = [each for each in vertebrae if each.ml >= FRAGMENT_ML]
    largest = max((each for each in large if each.is_sacrum), key=lambda each: each.ml, default=None)
    return [each for each in large if not each.is_sacrum or each is largest]


def _box_of(labels: LabelArray, levels: Mapping[int, str], margins: Shape3) -> Box:
    """Return the box of what has a level, with a margin, so that it touches no border but the image's."""
    wanted = list(levels)
    found = Box.around(np.isin(plane, wanted) for plane in labels)
    if found is None:
        return Box.whole(triple(min(1, size) for size in labels.shape))
    ends = zip(found.start, found.stop, margins, labels.shape, strict=True)
    return Box.of(slice(max(0, a - n), min(size, b + n)) for a, b, n, size in ends)


def _at_every_voxel(
    numbers: Integer[np.ndarray, "s p l"], labels: LabelArray, steps: Shape3, pieces: Mapping[int, _MapPiece]
) -> Integer[np.ndarray, "S P L"]:
    """Return the number of the piece of each voxel of the whole map."""
    table = np.zeros(int(numbers.max(initial=0)) + 1, dtype=labels.dtype)
    largest: dict[int, int] = {}
    for number, piece in sorted(pieces.items(), key=lambda item: item[1].ml):
        table[number] = piece.integer
        largest[piece.integer] = number
    places = [np.arange(n) // step for n, step in zip(labels.shape, steps, strict=True)]
    whole = np.empty(labels.shape, dtype=np.int32)
    for plane, found, row in zip(whole, labels, places[0], strict=True):
        plane[...] = numbers[row][np.ix_(places[1], places[2])]
        other = table[plane] != found
        plane[other] = 0
        for integer in np.unique(found[other]).tolist():
            plane[other & (found == integer)] = largest.get(integer, 0)
    return whole


def _measure(
    numbers: Integer[np.ndarray, "S P L"], labels: LabelArray, grid: Grid, levels: Mapping[int, str]
) -> dict[int, _MapPiece]:
    pieces = {}
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    for number, slices in enumerate(ndimage.find_objects(numbers), start=1):
        box = Box.of(slices)
        inside = numbers[slices] == number
        speck = np.count_nonzero(inside) * voxel_ml < SPECK_ML
        weight = inside.astype(float) if speck else depth_inside(inside, grid) ** 2
        if levels[int(labels[slices][inside][0])] == SACRUM:
            weight[: max(0, len(weight) - round(UPPER_END_MM / grid.spacing_mm[0]))] = 0
        index = np.array([np.sum(weight * axis) for axis in np.ogrid[box.slices]]) / weight.sum()
        count = int(np.count_nonzero(inside))
        integer = int(labels[slices][inside][0])
        pieces[number] = _MapPiece(
            level=levels[integer],
            integer=integer,
            ml=count * voxel_ml,
            centre_mm=grid.physical(index),
            cut=box.reaches_border(numbers.shape),
            surface=surface_faces(count * voxel_ml, grid),
        )
    return pieces


def _join(
    pieces: Mapping[int, _MapPiece], numbers: Integer[np.ndarray, "S P L"], together: Iterable[set[int]]
) -> list[tuple[int, ...]]:
    """Return the numbers of the pieces of each vertebra; the largest of each comes first.

    Args:
        pieces: Every piece by its number.
        numbers: Number of the piece of each voxel.
        together: Numbers of pieces of which it is known that they are one vertebra.
    """
    shared = count_shared_faces(numbers)
    neighbours: dict[int, dict[int, int]] = {number: {} for number in pieces}
    for one, other, faces in np.stack(shared, axis=1).tolist():
        neighbours[one][other] = neighbours[other][one] = faces
    usual_ml = usual_volumes({number: (piece.level, piece.ml) for number, piece in pieces.items()})
    by_size = sorted(pieces, key=lambda number: -pieces[number].ml)
    owner: dict[int, int] = {}
    for group in together:
        owner |= dict.fromkeys(group, max(group, key=lambda number: pieces[number].ml))
    mains = sorted(set(owner.values()), key=lambda number: -pieces[number].ml)
    for number in by_size:
        if number in owner:
            continue
        owner[number] = _owner(number, pieces, owner, mains, neighbours[number], usual_ml)
        if owner[number] == number and pieces[number].ml >= SPECK_ML:
            mains.append(number)
    groups: dict[int, list[int]] = {}
    for number in by_size:
        groups.setdefault(owner[number], []).append(number)
    return [tuple(group) for group in groups.values()]


def _owner(
    number: int,
    pieces: Mapping[int, _MapPiece],
    owner: Mapping[int, int],
    mains: Sequence[int],
    neighbours: Mapping[int, int],
    usual_ml: Mapping[int, float],
) -> int:
    """Return the main piece of the vertebra that a piece belongs to: itself, or a larger one."""
    piece = pieces[number]
    contact = dict.fromkeys(mains, 0)
    for other, faces in neighbours.items():
        if owner.get(other) in contact:
            contact[owner[other]] += faces
    away = {main: float(np.linalg.norm(pieces[main].centre_mm - piece.centre_mm)) for main in mains}
    step = {main: STEP_OF_SIZE * 10 * np.cbrt(pieces[main].ml + piece.ml) for main in mains}
    down = {main: abs(float(pieces[main].centre_mm[2] - piece.centre_mm[2])) for main in mains}
    # What lies well above the sacrum's upper end is the last vertebra, however much both touch.
    bones = [
        main
        for main in mains
        if pieces[main].level != SACRUM
        or piece.level == SACRUM
        or piece.ml < FRAGMENT_ML
        or down[main] < SACRAL_MM
    ]
    touching = max(bones, key=lambda main: contact[main], default=number)
    same = [main for main in mains if pieces[main].level == piece.level]
    has_own = any(pieces[main].ml >= FRAGMENT_ML for main in same)
    stray = bool(bones) and _is_stray(piece, pieces[touching], has_own)
    if (
        bones
        and (not piece.cut or pieces[touching].level == SACRUM)
        and contact[touching] > CONTACT * piece.surface
        and (
            stray
            if piece.ml < FRAGMENT_ML
            else down[touching] < ONE_STEP * step[touching]
            and piece.ml + pieces[touching].ml < TWICE * usual_ml.get(touching, math.inf)
        )
    ):
        return touching
    if (
        bones
        and not piece.cut
        and contact[touching] > PROCESS_CONTACT * piece.surface
        and piece.level != VERTEBRA
        and FRAGMENT_ML <= piece.ml < PROCESS_SHARE * pieces[touching].ml
        and down[touching] < step[touching]
        and any(
            other != number and each.level == piece.level and each.ml >= SLAB_ML
            for other, each in pieces.items()
        )
    ):
        # Where the body has another label, what is left of its own shows which one it is.
        own = {
            main
            for other, main in owner.items()
            if other != main and pieces[other].level == piece.level and pieces[other].ml >= SLAB_ML
        }
        near = [main for main in own if main in away and away[main] < NEAR_STEPS * step[main]]
        return min(near, key=lambda main: away[main], default=touching)
    for main in sorted(same, key=lambda main: away[main]):
        small = piece.ml < max(FRAGMENT_ML, FRAGMENT_SHARE * pieces[main].ml)
        beside = down[main] < (SAME_HEIGHT if piece.cut else ONE_STEP) * step[main]
        if (beside and away[main] < BEHIND_MM) or (small and away[main] < NEAR_STEPS * step[main]):
            return main
    return number


def _is_stray(piece: _MapPiece, touching: _MapPiece, has_own: bool) -> bool:
    """Return whether a fragment belongs to what it touches: not if it is all of the next vertebra."""
    next_to = VERTEBRA not in (piece.level, touching.level) and (
        abs(INDEX[piece.level] - INDEX[touching.level]) == 1
    )
    return has_own or not next_to


def _vertebra(group: tuple[int, ...], pieces: Mapping[int, _MapPiece]) -> LabelledVertebra:
    main = pieces[group[0]]
    labels: dict[str, float] = {}
    for number in group:
        labels[pieces[number].level] = labels.get(pieces[number].level, 0.0) + pieces[number].ml
    weights = np.array([pieces[number].ml for number in group])
    large = weights > FRAGMENT_SHARE * weights.max()
    centre = np.average([pieces[number].centre_mm for number in group], axis=0, weights=weights * large)
    x, y, z = (float(value) for value in centre)
    return LabelledVertebra(
        pieces=group,
        labels=labels,
        centre_mm=(x, y, z),
        ml=float(weights.sum()),
        cut=main.cut,
    )
