"""Vertebrae that touch or share a label, told apart: by their bodies, or by their usual sizes."""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Bool, Float64, Integer
from scipy import ndimage

from autospine.core.geometry import Box, Grid
from autospine.core.types import LabelArray, Slices3
from autospine.evaluation.components import count_shared_faces
from autospine.vertebrae.proportions import SIZES_MM, STEPS_MM

VERTEBRA = "vertebra"
"""Level of vertebrae that a map does not tell apart."""

UNNAMED_STEP_MM = 20.0
"""Distance of neighbours that is taken where the level is not known: that of the neck, the shortest."""

FRAGMENT_ML = 1.0
"""Components of less are fragments: no whole vertebra is as small."""

CORES = (0.4, 0.55, 0.7)
"""Shares of a component's greatest depth: the voxels that lie deeper are the cores of bodies. The first share
is taken that leaves several."""

STEEP = 1.4
"""Least height, in parts of the distance across, between two bodies of one component; a spinous process lies
further behind than below."""

ONE_STEP = 0.6
"""Share of the distance of neighbours below which two centres belong to one vertebra."""

BODILESS = ("C1", "C2")
"""Levels of which one is a ring without a body, so that no core tells both together from one of them."""

TWICE = 1.5
"""Volume from which what is labelled is two vertebrae, in parts of that of one by the size of the others."""

CONTACT = 0.2
"""Share of its surface by which a fragment touches the vertebra that it belongs to, whatever its label."""

PART_SHARE = 0.15
"""Share of a component in a second body from which on it is cut between both."""


def split_components(
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


def part_atlas_from_axis(
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


def cut_between_bodies(
    numbers: Integer[np.ndarray, "S P L"], labels: LabelArray, grid: Grid, levels: Mapping[int, str]
) -> list[set[int]]:
    """Cut components in two bodies between them, in place, and return which pieces are one vertebra each.

    Two labels that meet within a vertebra touch by far more than neighbours do. Both together are split where
    their bodies are, whatever their labels: if one of them has a good part of its volume in each body, as L1
    with the upper half of L2, it is cut. Where there is one body alone, the smaller is a piece of the larger.
    """
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    sizes = (np.bincount(numbers.ravel()) * voxel_ml).tolist()
    boxes = {number: Box.of(box) for number, box in _boxes_of(numbers)}
    level_of = {
        number: levels[int(labels[box.slices][numbers[box.slices] == number][0])]
        for number, box in boxes.items()
        if sizes[number] >= FRAGMENT_ML
    }
    usual_ml = usual_volumes({number: (level, sizes[number]) for number, level in level_of.items()})
    together: list[set[int]] = []
    nearest: dict[int, tuple[float, int]] = {}
    shared = count_shared_faces(numbers)
    for first, second, faces in np.stack(shared, axis=1).tolist():
        small, large = pair = sorted((first, second), key=sizes.__getitem__)
        contact = faces / surface_faces(sizes[small], grid)
        if not {small, large} <= set(usual_ml) or contact < CONTACT or level_of[small] == level_of[large]:
            continue
        if not {level_of[small], level_of[large]}.isdisjoint(BODILESS):
            continue
        box = Box.hull((boxes[small], boxes[large]))
        step_mm = min(STEPS_MM[level_of[small]], STEPS_MM[level_of[large]])
        parts = _parts(np.isin(numbers[box.slices], pair), grid, step_mm)
        largest_ml = np.bincount(parts.ravel())[1:].max() * voxel_ml
        if largest_ml > TWICE * max(usual_ml[small], usual_ml[large]):
            continue
        if parts.max() > 1:
            groups = _cut_by_parts(numbers, box, parts, pair)
            together += groups if any(len(group) > 1 for group in groups) else []
        elif not boxes[small].reaches_border(numbers.shape):
            nearest[small] = max(nearest.get(small, (0.0, 0)), (contact, large))
    return _merged([*together, *({small, large} for small, (_, large) in nearest.items())])


def _cut_by_parts(
    numbers: Integer[np.ndarray, "S P L"],
    box: Box,
    parts: Integer[np.ndarray, "s p l"],
    pair: Iterable[int],
) -> list[set[int]]:
    """Cut two components between the parts of a box, in place, and return the pieces of each part."""
    pieces: dict[int, set[int]] = {}
    here = numbers[box.slices]
    for number in pair:
        mine = here == number
        shares = np.bincount(parts[mine])
        pieces.setdefault(int(shares.argmax()), set()).add(number)
        for part in np.flatnonzero(shares >= PART_SHARE * shares.sum()).tolist():
            if part != shares.argmax():
                new = int(numbers.max()) + 1
                here[mine & (parts == part)] = new
                pieces.setdefault(part, set()).add(new)
    return list(pieces.values())


def usual_volumes(found: Mapping[int, tuple[str, float]]) -> dict[int, float]:
    """Return the usual volume in ml of the level of each component, for a spine of the size of this one.

    Args:
        found: Level and volume in ml of each; those whose level has no usual size have no usual volume.
    """
    volumes: dict[str, float] = {}
    for level, ml in found.values():
        if level in SIZES_MM and ml >= FRAGMENT_ML:
            volumes[level] = volumes.get(level, 0.0) + ml
    scale = float(np.median([ml / SIZES_MM[level] ** 3 for level, ml in volumes.items()])) if volumes else 0.0
    return {number: scale * SIZES_MM[level] ** 3 for number, (level, _) in found.items() if level in volumes}


def _merged(groups: Iterable[set[int]]) -> list[set[int]]:
    """Return groups of which no two have a member in common."""
    merged: list[set[int]] = []
    for group in groups:
        apart = [other for other in merged if other.isdisjoint(group)]
        merged = [*apart, group.union(*(other for other in merged if not other.isdisjoint(group)))]
    return merged


def _boxes_of(numbers: Integer[np.ndarray, "S P L"]) -> list[tuple[int, Slices3]]:
    """Return the box of each number that occurs."""
    boxes = enumerate(ndimage.find_objects(numbers), start=1)
    return [(number, Box.of(box).slices) for number, box in boxes if box is not None]


def _parts(inside: Bool[np.ndarray, "s p l"], grid: Grid, step_mm: float) -> Integer[np.ndarray, "s p l"]:
    """Number the vertebrae that one component holds: cores that lie one below the other and far apart."""
    depth = depth_inside(inside, grid)
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


def depth_inside(inside: Bool[np.ndarray, "s p l"], grid: Grid) -> Float64[np.ndarray, "s p l"]:
    """Return the distance in mm of each voxel inside from the surface."""
    padded = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=grid.spacing_mm)
    return np.asarray(padded[1:-1, 1:-1, 1:-1])


def surface_faces(ml: float, grid: Grid) -> float:
    """Return the faces of the surface of a cube of a volume."""
    return float(6 * (1000 * ml / np.prod(grid.spacing_mm)) ** (2 / 3))
