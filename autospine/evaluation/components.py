"""Connected components of label maps: their numbers, holes and shared faces, and pieces that lie apart."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import cc3d
import fill_voids
import numpy as np
from jaxtyping import Bool, Integer
from scipy import ndimage

from autospine.core.types import LabelArray, MaskArray, Vector3

_CONNECTIVITY: Final = 26
"""Voxels that share a corner belong to one component. Background that they enclose is connected by faces."""

_LEAST_SHELL = 6
"""Number of voxels that it takes to enclose one."""

PIECE_CELL_MM = 6.0
"""Edge of the cells in which the foreground is looked at, where voxels are not larger: pieces less than this
apart lie in cells that touch, and are one."""

STRAY_SHARE = 0.25
"""Share of the largest piece's volume below which every other piece is a stray."""

BESIDE = 0.5
"""Share of a piece's height at which the largest piece is found too, from which it lies beside the column."""


class Components(NamedTuple):
    """The connected components of a label map: voxels of one label value that touch one another."""

    voxels: Integer[np.ndarray, " V"]
    """Flat indices of the foreground voxels."""

    component: Integer[np.ndarray, " V"]
    """Number, from 1 on, of the component that each foreground voxel belongs to."""

    integers: Integer[np.ndarray, " N"]
    """Label value of each component by its number; entry 0 stands for no component."""

    sizes: Integer[np.ndarray, " N"]
    """Number of voxels of each component; entry 0 is 0."""

    numbers: Integer[np.ndarray, "S P L"]
    """Number of the component of each voxel, 0 in the background."""


class SharedFaces(NamedTuple):
    """Pairs of numbered regions that share faces of voxels, each pair once."""

    first: Integer[np.ndarray, " F"]
    """Smaller number of each pair."""

    second: Integer[np.ndarray, " F"]
    """Larger number of each pair."""

    faces: Integer[np.ndarray, " F"]
    """Number of faces that the pair shares."""


def find_components(labels: LabelArray) -> Components:
    """Find the connected components of every label value in one pass, numbered by their first voxels."""
    numbers = number_components(labels)
    n = int(numbers.max(initial=0))
    voxels = np.flatnonzero(labels)
    component = numbers.reshape(-1)[voxels]
    integers = np.zeros(n + 1, dtype=labels.dtype)
    integers[component] = labels.reshape(-1)[voxels]
    sizes = np.bincount(component, minlength=n + 1)
    return Components(voxels=voxels, component=component, integers=integers, sizes=sizes, numbers=numbers)


def number_components(labels: LabelArray) -> Integer[np.ndarray, "S P L"]:
    """Return the number of each voxel's connected component, from 1 on by first voxels; 0 is the background.

    Voxels of different label values never belong to one component.
    """
    # cc3d numbers voxels in the order of the memory, and takes no arrays that must not be written to (4.1.1).
    readable = np.require(labels, requirements=["C_CONTIGUOUS", "WRITEABLE"])
    numbers: np.ndarray = cc3d.connected_components(readable, connectivity=_CONNECTIVITY)
    return numbers


def fill_holes(labels: LabelArray, integers: frozenset[int]) -> LabelArray:
    """Return a copy in which background that a component of these label values encloses belongs to it.

    Of several components around it the innermost counts, whatever its label value: so the holes that are
    filled with one label value do not depend on which others are filled.
    """
    filled = labels.copy()
    components = find_components(labels)
    boxes = ndimage.find_objects(components.numbers)
    large = np.flatnonzero(components.sizes >= _LEAST_SHELL).tolist()
    # From the outside in: the box of a component within another is smaller.
    for number in sorted(large, key=lambda number: -_volume(boxes[number - 1])):
        integer, box = int(components.integers[number]), boxes[number - 1]
        region, empty = filled[box], labels[box] == 0
        if integer in integers or np.any(region[empty]):
            enclosed = _without_holes(components.numbers[box] == number) & empty
            region[enclosed] = integer if integer in integers else 0
    return filled


def without_strays(labels: LabelArray, spacing_mm: Vector3, least_share: float = STRAY_SHARE) -> LabelArray:
    """Return a label map without its stray pieces, or the map itself if it has none.

    All classes together are one column. A piece of the foreground beside it is an arm, a rib or the table; a
    large one above or below it may be the rest of a column that metal or a poor image has cut in two.

    Args:
        labels: (S, P, L) label values.
        spacing_mm: Voxel spacing along S, P and L.
        least_share: Share of the largest piece's volume, 0 to 1, below which every other piece is a stray.
    """
    widths = [max(1, round(PIECE_CELL_MM / each)) for each in spacing_mm]
    volumes = _volumes_of_cells(labels > 0, widths)
    pieces = number_components((volumes > 0).astype(np.uint8))
    sizes = np.bincount(pieces.reshape(-1), weights=volumes.reshape(-1))
    stray = (sizes < least_share * sizes.max()) | _beside(pieces, int(sizes.argmax()))
    stray[0] = False  # cells without foreground
    if not stray.any():
        return labels
    cleared = labels.copy()
    cleared[_spread(stray[pieces], widths, labels.shape)] = 0
    return cleared


def count_shared_faces(numbers: Integer[np.ndarray, "S P L"]) -> SharedFaces:
    """Count the faces between voxels of different regions; what is numbered 0 is no region."""
    width = int(numbers.max(initial=0)) + 1
    met = [np.zeros(0, dtype=np.int64)]
    # Plane by plane, as the pairs of a whole image take eight bytes for each.
    for position, plane in enumerate(numbers):
        met.append(_meetings(plane[:-1], plane[1:], width))
        met.append(_meetings(plane[:, :-1], plane[:, 1:], width))
        if position + 1 < len(numbers):
            met.append(_meetings(plane, numbers[position + 1], width))
    pairs, faces = np.unique(np.concatenate(met), return_counts=True)
    first, second = np.divmod(pairs, width)
    return SharedFaces(first=first, second=second, faces=faces)


def main_neighbours(
    components: Integer[np.ndarray, " F"], ranks: Integer[np.ndarray, " F"], faces: Integer[np.ndarray, " F"]
) -> tuple[Integer[np.ndarray, " N"], Integer[np.ndarray, " N"]]:
    """Return the label that each component shares most faces with; of equal ones the first.

    Args:
        components: Number of a component in each entry; it may have several, also of one label.
        ranks: Place of its neighbour's label among all labels.
        faces: Number of faces that they share.

    Returns:
        The components that occur, ascending, and the rank of the label for each.
    """
    width = int(ranks.max(initial=0)) + 1
    pairs, place = np.unique(components.astype(np.int64) * width + ranks, return_inverse=True)
    total = np.bincount(place.reshape(-1), weights=faces, minlength=len(pairs))
    owners, rank = np.divmod(pairs, width)
    order = np.lexsort((rank, -total, owners))
    found, first = np.unique(owners[order], return_index=True)
    return found, rank[order][first]


def _meetings(
    before: Integer[np.ndarray, "A B"], after: Integer[np.ndarray, "A B"], width: int
) -> Integer[np.ndarray, " M"]:
    """Return a number for each place where two regions meet, which says which they are."""
    meet = (before != after) & (before != 0) & (after != 0)
    one, other = before[meet].astype(np.int64), after[meet].astype(np.int64)
    numbers: np.ndarray = np.minimum(one, other) * width + np.maximum(one, other)
    return numbers


def _without_holes(mask: MaskArray) -> MaskArray:
    """Return a copy of a mask with the background that it encloses."""
    # Without a rim of background fill_voids takes single voxels at the border for holes (2.1.2).
    whole: MaskArray = fill_voids.fill(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    return whole


def _volume(box: tuple[slice, ...]) -> int:
    return math.prod(span.stop - span.start for span in box)


def _volumes_of_cells(foreground: MaskArray, widths: Sequence[int]) -> Integer[np.ndarray, "s p l"]:
    """Count the voxels of the foreground in cells of some voxels along each axis."""
    counts: np.ndarray = foreground
    # The widest cells first: what is kept becomes small at once.
    for axis in sorted(range(3), key=lambda axis: -widths[axis]):
        starts = np.arange(0, counts.shape[axis], widths[axis])
        counts = np.add.reduceat(counts, starts, axis=axis, dtype=np.int32)
    return counts


def _beside(pieces: Integer[np.ndarray, "s p l"], main: int) -> Bool[np.ndarray, " N"]:
    """Tell, by number, which pieces lie beside the main one along S."""
    heights = [box[0] for box in ndimage.find_objects(pieces)]
    beside = np.zeros(len(heights) + 1, dtype=bool)
    for number, height in enumerate(heights, start=1):
        column = heights[main - 1]
        shared = min(height.stop, column.stop) - max(height.start, column.start)
        beside[number] = number != main and shared >= BESIDE * (height.stop - height.start)
    return beside


def _spread(cells: Bool[np.ndarray, "s p l"], widths: Sequence[int], shape: Sequence[int]) -> MaskArray:
    """Return a mask of voxels from one of cells."""
    for axis, width in enumerate(widths):
        cells = cells.repeat(width, axis=axis)
    mask: MaskArray = cells[tuple(slice(size) for size in shape)]
    return mask
