import math
from itertools import permutations, product

import numpy as np
import pytest

from autospine.evaluation.surface_elements import element_areas, surface_elements

CORNERS = list(product((0, 1), repeat=3))

CUBES = (1.0, 1.0, 1.0)
THICK = (3.0, 2.0, 1.0)


def code(*inside: tuple[int, int, int]) -> int:
    return sum(1 << CORNERS.index(corner) for corner in inside)


def test_a_voxel_has_eight_corners_cut_off():
    """Each is a triangle with legs of half a voxel: half the root of (ab)² + (bc)² + (ca)², over four."""
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[1, 1, 1] = True
    elements = surface_elements(mask, THICK)
    assert elements.areas_mm2 == pytest.approx([7 / 8] * 8)
    assert elements.places_mm.tolist() == [list(at) for at in product((1.5, 4.5), (1.0, 3.0), (0.5, 1.5))]


def test_a_block_has_faces_edges_and_corners():
    """2 x 3 x 4 cubes: within faces 1 mm² a corner of the grid, along edges √2 / 2, at corners √3 / 8."""
    block = np.ones((2, 3, 4), dtype=bool)
    areas = surface_elements(block, CUBES).areas_mm2
    faces = 2 * (1 * 2 + 2 * 3 + 1 * 3)
    edges = 4 * (1 + 2 + 3)
    assert areas.size == faces + edges + 8
    assert areas.sum() == pytest.approx(faces + edges * math.sqrt(0.5) + 8 * math.sqrt(3) / 8)


def test_a_plane_has_the_area_of_its_voxels_faces():
    for axis, area in enumerate((2.0, 3.0, 6.0)):
        half = [corner for corner in CORNERS if corner[axis] == 0]
        assert element_areas(THICK)[code(*half)] == pytest.approx(area)


@pytest.mark.parametrize(
    ("inside", "area"),
    [
        ([], 0),
        ([(0, 0, 0)], math.sqrt(3) / 8),
        ([(0, 0, 0), (0, 0, 1)], math.sqrt(2) / 2),
        ([(0, 0, 0), (0, 1, 1)], math.sqrt(3) / 4),
        ([(0, 0, 0), (1, 1, 1)], math.sqrt(3) / 4),
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0)], 1 / 2 + 3 * math.sqrt(3) / 8),
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)], 3 * math.sqrt(3) / 4),
        ([(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)], math.sqrt(2) / 2 + math.sqrt(3) / 2),
        ([(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)], math.sqrt(3) / 2),
    ],
)
def test_areas_between_cubes(inside, area):
    """A triangle, a rectangle, several triangles, a pentagon, a flat and a bent hexagon."""
    outside = [corner for corner in CORNERS if corner not in inside]
    assert element_areas(CUBES)[code(*inside)] == pytest.approx(area)
    assert element_areas(CUBES)[code(*outside)] == pytest.approx(area)


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_exchanged_and_reflected_axes_leave_the_area(order):
    """Not only between cubes: no triangle depends on the direction in which its polygon is read."""
    turned = tuple(THICK[axis] for axis in order)
    areas, others = element_areas(THICK), element_areas(turned)
    for number in range(256):
        inside = [corner for bit, corner in enumerate(CORNERS) if number >> bit & 1]
        moved = [tuple(corner[axis] for axis in order) for corner in inside]
        mirrored = [(1 - first, *rest) for first, *rest in inside]
        assert others[code(*moved)] == pytest.approx(areas[number])
        assert areas[code(*mirrored)] == pytest.approx(areas[number])


def test_an_empty_mask_has_no_surface():
    elements = surface_elements(np.zeros((2, 3, 4), dtype=bool), THICK)
    assert elements.places_mm.shape == (0, 3)
    assert elements.areas_mm2.shape == (0,)
