import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.evaluation.boundary import boundary_dice, rim

CUBES = (1.0, 1.0, 1.0)


def test_the_rim_of_a_cube_is_two_layers_of_a_millimetre():
    """Centres in the second layer lie 1.5 mm deep, in the third 2.5 mm."""
    cube = np.zeros((14, 14, 14), dtype=bool)
    cube[2:12, 2:12, 2:12] = True
    found = rim(cube, CUBES, 2.0)
    assert found.sum() == 10**3 - 6**3
    assert not found[4:10, 4:10, 4:10].any()


def test_the_border_of_the_volume_is_the_border_of_the_mask():
    assert rim(np.ones((9, 9, 9), dtype=bool), CUBES, 2.0).sum() == 9**3 - 5**3


def test_a_thick_slice_is_in_the_rim_whole():
    slab = np.ones((3, 41, 41), dtype=bool)
    found = rim(slab, (6.0, 1.0, 1.0), 2.0)
    assert found[0].all()
    assert found[2].all()
    assert not found[1, 2:-2, 2:-2].any()


def test_dice_of_two_rims():
    """A cube of 10 and one of 8 inside it share one layer, that from 8 to 6."""
    outer, inner = np.zeros((2, 12, 12, 12), dtype=bool)
    outer[1:11, 1:11, 1:11] = inner[2:10, 2:10, 2:10] = True
    rims = (10**3 - 6**3, 8**3 - 4**3)
    assert boundary_dice(inner, outer, CUBES) == pytest.approx(2 * (8**3 - 6**3) / sum(rims))
    assert boundary_dice(outer, outer, CUBES) == 1


def test_empty_masks():
    empty, mask = np.zeros((5, 5, 5), dtype=bool), np.ones((5, 5, 5), dtype=bool)
    assert boundary_dice(empty, mask, CUBES) == boundary_dice(mask, empty, CUBES) == 0
    assert math.isnan(boundary_dice(empty, empty, CUBES))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.5, 0.99))
def test_depths_are_those_of_the_nearest_voxel_outside(seed, density):
    """Against every pair of voxels, one inside and one outside."""
    rng = np.random.default_rng(seed)
    spacing = np.asarray([1.7, 0.6, 0.9])
    mask = rng.random((5, 8, 7)) < density
    padded = np.pad(mask, 4)
    outside = np.argwhere(~padded)
    expected = np.zeros_like(mask)
    for voxel in np.argwhere(mask):
        gaps = np.maximum(np.abs(outside - voxel - 4) - 0.5, 0) * spacing
        expected[tuple(voxel)] = np.linalg.norm(gaps, axis=1).min() <= 2.0 + 1e-6
    np.testing.assert_array_equal(rim(mask, (1.7, 0.6, 0.9), 2.0), expected)


@pytest.mark.parametrize("spacing", [*product((0.3, 5.0), repeat=3)])
def test_voxels_of_any_size(spacing):
    mask = np.ones((4, 4, 4), dtype=bool)
    surface = np.ones_like(mask)
    surface[1:-1, 1:-1, 1:-1] = False
    assert rim(mask, spacing, 2.0)[surface].all()
