"""Vertebrae as instances of a label map: connected components, split where they touch and joined where one
vertebra has several.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Integer
from scipy import ndimage

from autospine.core.geometry import Box, Grid, triple, vector
from autospine.core.types import LabelArray, Shape3, Slices3
from autospine.evaluation.components import count_shared_faces, find_components
from autospine.vertebrae.levels import INDEX, SACRUM
from autospine.vertebrae.proportions import SIZES_MM, STEPS_MM

VERTEBRA = "vertebra"
"""Level of vertebrae that a map does not tell apart."""

UNNAMED_STEP_MM = 20.0
"""Distance of neighbours that is taken where the level is not known: that of the neck, the shortest."""

FRAGMENT_ML = 1.0
"""Components of less are fragments: no whole vertebra is as small."""

FRAGMENT_SHARE = 0.25
"""Components of less than this share of another of the same label near by are fragments of it."""

FINEST_MM = 1.0
"""Voxel size that is fine enough to tell vertebrae apart."""

CORES = (0.4, 0.55, 0.7)
"""Shares of a component's greatest depth: the voxels that lie deeper are the cores of bodies. The first share
is taken that leaves several."""

STEEP = 1.4
"""Least height, in parts of the distance across, between two bodies of one component; a spinous process lies
further behind than below."""

BODILESS = ("C1", "C2")
"""Levels of which one is a ring without a body, so that no core tells both together from one of them."""

TWICE = 1.5
"""Volume from which a component is both of `BODILESS`, in parts of that of one, by the size of the other
vertebrae of the neck."""

ONE_STEP = 0.6
"""Share of the distance of neighbours below which two centres belong to one vertebra."""

SAME_HEIGHT = 0.3
"""The same share for two pieces with one label of which the border of the image cuts the smaller, so that its
centre is not that of all of it: what is seen of a spinous process lies as high as its body."""

BEHIND_MM = 60.0
"""Distance within which a piece as high as a vertebra of its label belongs to it: the tip of a spinous
process lies up to about as far behind the middle of the body."""

NEAR_STEPS = 1.4
"""Distances of neighbours within which a fragment belongs to the vertebra of its label."""

CONTACT = 0.2
"""Share of its surface by which a fragment touches the vertebra that it belongs to, whatever its label."""

PROCESS_SHARE = 0.4
"""Share of the volume of the vertebra that it touches below which one of several components of a label, such
as a spinous process, is a piece of it."""

PROCESS_CONTACT = 0.1
"""Share of its surface by which such a component touches the vertebra: neighbours touch by 0.02."""

SLAB_ML = 0.3
"""Least volume of the other component: one of less is noise, and the vertebra may be all there is in view."""

UPPER_END_MM = 35.0
"""Height of the sacrum's upper end, S1, to whose centre that of the last lumbar vertebra has the distance of
neighbours; the centre of the whole sacrum lies two vertebrae below."""

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
    numbers = _split_numbers(components.numbers.astype(np.int32), components.integers, coarse, levels)
    _part_atlas_from_axis(numbers, thinned, levels)
    pieces = _measure(numbers, thinned, coarse, levels)
    groups = _join(pieces, numbers)
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


def _split_numbers(
    numbers: Integer[np.ndarray, "S P L"], integers: np.ndarray, grid: Grid, levels: Mapping[int, str]
) -> Integer[np.ndarray, "S P L"]:
    """Give each core of a component with several bodies a number of its own."""
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    following = int(numbers.max(initial=0)) + 1
    steps_mm = {**STEPS_MM, VERTEBRA: UNNAMED_STEP_MM}
    waiting = [(number, box, levels[int(integers[number])]) for number, box in _boxes_of(numbers)]
    while waiting:
        number, box, level = waiting.pop()
        inside = numbers[box] == number
        if level not in steps_mm or np.count_nonzero(inside) * voxel_ml < FRAGMENT_ML:
            continue
        parts = _parts(inside, grid, steps_mm[level])
        again = []
        for part, place in enumerate(ndimage.find_objects(parts), start=1):
            own = number if part == 1 else following
            if part > 1:
                numbers[box][parts == part] = own
                following += 1
            again.append((own, Box.of(place).moved(Box.of(box).start).slices, level))
        if level == VERTEBRA and len(again) > 1:  # many vertebrae of one label are split again and again
            waiting += again
    return numbers


def _part_atlas_from_axis(
    numbers: Integer[np.ndarray, "S P L"], labels: LabelArray, levels: Mapping[int, str]
) -> None:
    """Give the lower part a number of its own, in place, where C1 and C2 are one component of one label.

    They are parted by the plane that leaves each its usual share of the volume, so that the dens goes to C1.
    """
    neck: dict[int, tuple[str, float, Slices3]] = {}
    for number, box in _boxes_of(numbers):
        inside = numbers[box] == number
        level = levels[int(labels[box][inside][0])]
        if level in SIZES_MM and level.startswith("C"):
            neck[number] = (level, np.count_nonzero(inside) / SIZES_MM[level] ** 3, box)
    for number, (level, size, box) in neck.items():
        others = [other for each, (_, other, _) in neck.items() if each != number]
        if level not in BODILESS or not others or size < TWICE * float(np.median(others)):
            continue
        heights = np.count_nonzero(numbers[box] == number, axis=(1, 2)).cumsum()
        atlas, axis = (SIZES_MM[name] ** 3 for name in BODILESS)
        plane = int(np.searchsorted(heights, heights[-1] * axis / (atlas + axis)))
        lower = numbers[box][:plane]  # S grows towards the head
        lower[lower == number] = numbers.max() + 1


def _boxes_of(numbers: Integer[np.ndarray, "S P L"]) -> list[tuple[int, Slices3]]:
    """Return the box of each number that occurs."""
    boxes = enumerate(ndimage.find_objects(numbers), start=1)
    return [(number, Box.of(box).slices) for number, box in boxes if box is not None]


def _parts(inside: Bool[np.ndarray, "s p l"], grid: Grid, step_mm: float) -> Integer[np.ndarray, "s p l"]:
    """Number the vertebrae that one component holds: cores that lie one below the other and far apart."""
    depth = _depth(inside, grid)
    for share in CORES:
        cores, kept = _bodies(depth > share * depth.max(), grid, step_mm)
        if len(kept) > 1:
            break
    else:
        return inside.astype(np.int32)
    markers = np.zeros(inside.shape, dtype=np.int32)
    for place, core in enumerate(kept, start=1):
        markers[cores == core + 1] = place
    nearest = ndimage.distance_transform_edt(
        markers == 0, sampling=grid.spacing_mm, return_distances=False, return_indices=True
    )
    return np.where(inside, markers[tuple(nearest)], 0)


def _bodies(
    deep: Bool[np.ndarray, "s p l"], grid: Grid, step_mm: float
) -> tuple[Integer[np.ndarray, "s p l"], list[int]]:
    """Number the components of what lies deep, and tell which are bodies one below the other."""
    cores, n = ndimage.label(deep)
    at = np.asarray(ndimage.center_of_mass(deep, cores, range(1, n + 1))) * grid.spacing_mm
    kept: list[int] = []
    for core in np.argsort(-np.bincount(cores.ravel(), minlength=n + 1)[1:]).tolist():
        apart = [np.abs(at[core] - at[other]) for other in kept]
        if all(d[0] > ONE_STEP * step_mm and d[0] > STEEP * np.hypot(d[1], d[2]) for d in apart):
            kept.append(core)
    return cores, kept


def _depth(inside: Bool[np.ndarray, "s p l"], grid: Grid) -> Float64[np.ndarray, "s p l"]:
    """Return the distance in mm of each voxel inside from the surface."""
    padded = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=grid.spacing_mm)
    return np.asarray(padded[1:-1, 1:-1, 1:-1])


def _measure(
    numbers: Integer[np.ndarray, "S P L"], labels: LabelArray, grid: Grid, levels: Mapping[int, str]
) -> dict[int, _MapPiece]:
    pieces = {}
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    for number, slices in enumerate(ndimage.find_objects(numbers), start=1):
        box = Box.of(slices)
        inside = numbers[slices] == number
        weight = _depth(inside, grid) ** 2
        if levels[int(labels[slices][inside][0])] == SACRUM:
            weight[: max(0, len(weight) - round(UPPER_END_MM / grid.spacing_mm[0]))] = 0
        index = np.array([np.sum(weight * axis) for axis in np.ogrid[box.slices]]) / weight.sum()
        count = int(np.count_nonzero(inside))
        integer = int(labels[slices][inside][0])
        ends = zip(box.start, box.stop, numbers.shape, strict=True)
        pieces[number] = _MapPiece(
            level=levels[integer],
            integer=integer,
            ml=count * voxel_ml,
            centre_mm=grid.physical(index),
            cut=any((start == 0 or stop == size) and size > 1 for start, stop, size in ends),
            surface=6 * count ** (2 / 3),
        )
    return pieces


def _join(pieces: Mapping[int, _MapPiece], numbers: Integer[np.ndarray, "S P L"]) -> list[tuple[int, ...]]:
    """Return the numbers of the pieces of each vertebra; the largest of each comes first."""
    shared = count_shared_faces(numbers)
    faces = {
        (int(a), int(b)): int(n) for a, b, n in zip(shared.first, shared.second, shared.faces, strict=True)
    }
    owner: dict[int, int] = {}
    for number in sorted(pieces, key=lambda number: -pieces[number].ml):
        owner[number] = _owner(number, pieces, owner, faces)
    groups: dict[int, list[int]] = {}
    for number, main in owner.items():
        groups.setdefault(main, []).append(number)
    return [tuple(group) for group in groups.values()]


def _owner(
    number: int,
    pieces: Mapping[int, _MapPiece],
    owner: Mapping[int, int],
    faces: Mapping[tuple[int, int], int],
) -> int:
    """Return the main piece of the vertebra that a piece belongs to: itself, or a larger one."""
    piece = pieces[number]
    mains = list(dict.fromkeys(owner.values()))
    contact = {
        main: sum(
            faces.get((min(number, other), max(number, other)), 0)
            for other, its in owner.items()
            if its == main
        )
        for main in mains
    }
    down = {main: abs(float(pieces[main].centre_mm[2] - piece.centre_mm[2])) for main in mains}
    away = {main: float(np.linalg.norm(pieces[main].centre_mm - piece.centre_mm)) for main in mains}
    step = {main: STEP_OF_SIZE * 10 * np.cbrt(pieces[main].ml + piece.ml) for main in mains}
    touching = max(mains, key=lambda main: contact[main], default=number)
    same = [main for main in mains if pieces[main].level == piece.level]
    has_own = any(pieces[main].ml >= FRAGMENT_ML for main in same)
    stray = bool(mains) and _is_stray(piece, pieces[touching], has_own)
    if (
        mains
        and not piece.cut
        and contact[touching] > CONTACT * piece.surface
        and (stray if piece.ml < FRAGMENT_ML else down[touching] < ONE_STEP * step[touching])
    ):
        return touching
    if (
        mains
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
        return touching
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
