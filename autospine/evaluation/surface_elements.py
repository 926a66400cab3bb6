"""Surface elements of masks: where they lie, and their areas by marching cubes.

Around each corner of the voxel grid lie 2 x 2 x 2 voxels. Where the mask has some of them and not all, a
piece of its surface passes through the corner: a surface element. It runs through the middles of the lines
between neighbouring voxels inside and outside, as marching cubes do (Lorensen and Cline 1987).
"""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise, product
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from autospine.core.types import MaskArray, Vector3

_CubePoint = tuple[float, ...]

_CORNERS: Final[tuple[_CubePoint, ...]] = tuple(product((0, 1), repeat=3))
"""The eight voxels around a corner of the grid. A code has bit i set if the mask has voxel i."""

_AROUND: Final = ((0, 0), (0, 1), (1, 1), (1, 0))
"""The four voxels of a face of the cube, one after the other."""

_FULL: Final = 255
"""Code of a corner that lies inside the mask."""


class SurfaceElements(NamedTuple):
    """The surface of a mask in small pieces; there are none if it is empty."""

    places_mm: Float[np.ndarray, "N 3"]
    """Place of each element along S, P and L, from the centre of the first voxel."""

    areas_mm2: Float[np.ndarray, " N"]
    """Area of each element."""


def surface_elements(mask: MaskArray, spacing_mm: Vector3) -> SurfaceElements:
    """Find the surface elements of a mask. What lies outside the array counts as outside the mask.

    Args:
        mask: (S, P, L) mask.
        spacing_mm: Distance between the centres of neighbouring voxels along S, P and L.
    """
    codes = _codes(mask)
    places = np.nonzero((codes != 0) & (codes != _FULL))
    return SurfaceElements(
        places_mm=(np.stack(places, axis=1) - 0.5) * np.asarray(spacing_mm),
        areas_mm2=element_areas(spacing_mm)[codes[places]],
    )


@cache
def element_areas(spacing_mm: Vector3) -> Float[np.ndarray, "256"]:
    """Return the area in mm² of the surface element that belongs to each code."""
    return np.asarray([_area(code, np.asarray(spacing_mm)) for code in range(_FULL + 1)])


def _codes(mask: MaskArray) -> UInt8[np.ndarray, "s p l"]:
    """Return the code of each corner of the grid, one more of them along each axis than there are voxels."""
    padded = np.pad(mask, 1).view(np.uint8)
    shape = tuple(extent + 1 for extent in mask.shape)
    codes = np.zeros(shape, dtype=np.uint8)
    for bit, corner in enumerate(product((0, 1), repeat=3)):
        voxels = tuple(slice(start, start + extent) for start, extent in zip(corner, shape, strict=True))
        codes |= padded[voxels] << np.uint8(bit)
    return codes


def _area(code: int, spacing_mm: Float[np.ndarray, "3"]) -> float:
    """Add up the triangles of a code. Where more than half is inside, inside and outside are exchanged."""
    inside = {corner for bit, corner in enumerate(_CORNERS) if code >> bit & 1}
    if len(inside) > len(_CORNERS) // 2:
        inside = set(_CORNERS) - inside
    triangles = [triangle for part in _parts(inside) for triangle in _triangles(_outline(part))]
    return sum(_triangle_area(np.asarray(triangle) * spacing_mm) for triangle in triangles)


def _parts(corners: set[_CubePoint]) -> Iterator[set[_CubePoint]]:
    """Split corners of the cube into those that edges of it connect; others are cut off from one another."""
    left = sorted(corners)
    while left:
        part = {left.pop(0)}
        while more := [corner for corner in left if any(_distance(corner, other) == 1 for other in part)]:
            part.update(more)
            left = [corner for corner in left if corner not in part]
        yield part


def _outline(part: set[_CubePoint]) -> list[_CubePoint]:
    """Return the middles of the edges that lead out of a part, in their order around it."""
    neighbours: dict[_CubePoint, list[_CubePoint]] = {}
    for axis, side in product(range(3), (0, 1)):
        face = [(*around[:axis], side, *around[axis:]) for around in _AROUND]
        crossed = [step for step in pairwise([*face, face[0]]) if (step[0] in part) != (step[1] in part)]
        if crossed and crossed[0][0] in part:
            crossed.append(crossed.pop(0))
        # On a face, the outline runs from where the way around it enters the part to where it next leaves.
        for entry, exit_ in zip(crossed[::2], crossed[1::2], strict=True):
            neighbours.setdefault(_middle(*entry), []).append(_middle(*exit_))
            neighbours.setdefault(_middle(*exit_), []).append(_middle(*entry))
    outline = [min(neighbours)]
    while more := [vertex for vertex in neighbours[outline[-1]] if vertex not in outline]:
        outline.append(more[0])
    return outline


def _triangles(outline: list[_CubePoint]) -> list[tuple[_CubePoint, ...]]:
    """Cut a polygon into the triangles whose area is largest where voxels are cubes.

    Bent polygons can be cut in several ways; this one has the areas of DeepMind's table for every code.
    """
    if len(outline) < 3:
        return []
    first, last = outline[0], outline[-1]
    choices = [
        [
            (first, outline[middle], last),
            *_triangles(outline[: middle + 1]),
            *_triangles(outline[middle:]),
        ]
        for middle in range(1, len(outline) - 1)
    ]
    return max(choices, key=_whole_area)


def _whole_area(triangles: list[tuple[_CubePoint, ...]]) -> float:
    """Return the area between cubes, rounded so that the first of equal choices is taken."""
    return round(sum(_triangle_area(np.asarray(each)) for each in triangles), 9)


def _triangle_area(vertices: Float[np.ndarray, "3 3"]) -> float:
    one, other = vertices[1:] - vertices[0]
    return float(np.linalg.norm(np.cross(one, other))) / 2


def _middle(one: _CubePoint, other: _CubePoint) -> _CubePoint:
    return tuple((a + b) / 2 for a, b in zip(one, other, strict=True))


def _distance(one: _CubePoint, other: _CubePoint) -> float:
    """Return the number of edges of the cube between two corners."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))
