"""Thickness of shapes whose size is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.fingerprint.thickness import LATTICE_POINTS, measure_thickness, subsampling_steps

SPACINGS = st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 3)


def ball(radius: float) -> np.ndarray:
    return np.linalg.norm(np.mgrid[-16:17, -16:17, -16:17], axis=0) <= radius


def rod(radius: float, length: int) -> np.ndarray:
    across = np.hypot(*np.mgrid[-16:17, -16:17]) <= radius
    return np.repeat(across[None], length, axis=0)


@given(st.integers(0, 2), st.integers(1, 8), SPACINGS)
@settings(deadline=None, max_examples=40)
def test_a_plates_thickness_is_found_exactly_away_from_its_edges(axis, voxels, spacing):
    plate = np.ones([voxels if a == axis else 40 for a in range(3)], dtype=bool)
    thickness = voxels * spacing[axis]
    found = measure_thickness(plate, spacing)
    # Towards the edges of the plate the distance falls to nothing.
    edges = thickness**2 * sum(1 / (40 * spacing[a]) for a in range(3) if a != axis)
    assert thickness - edges - 0.01 <= found <= thickness + 0.01


def test_a_plate_in_front_of_the_border_of_the_image_is_as_thick_as_inside():
    plate = np.zeros((12, 40, 40), dtype=bool)
    plate[:5] = True
    moved = np.roll(plate, 4, axis=0)
    assert measure_thickness(plate, (1.0, 1.0, 1.0)) == measure_thickness(moved, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("radius", [4.5, 8.5, 12.5])
def test_a_ball_is_as_thick_as_half_of_its_diameter(radius):
    found = measure_thickness(ball(radius), (2.0, 2.0, 2.0))
    assert found == pytest.approx(2 * radius, rel=0.08)


@pytest.mark.parametrize("radius", [4.5, 8.5, 12.5])
def test_a_rod_is_as_thick_as_two_thirds_of_its_diameter(radius):
    found = measure_thickness(rod(radius, 120), (1.0, 1.0, 1.0))
    # Towards the two ends, too, the distance falls to nothing.
    ends = 2 / 3 * radius**2 / 120
    assert found == pytest.approx(4 / 3 * radius - ends, abs=0.8)


@pytest.mark.parametrize("half", [2.5, 4.5])
def test_an_oblique_plate_is_as_thick_as_a_straight_one(half):
    """The steps of its surface count half to each side."""
    across = np.tensordot([0.6, 0.48, 0.64], np.mgrid[-30:31, -30:31, -30:31], axes=1)
    found = measure_thickness(np.abs(across) <= half, (1.0, 1.0, 1.0))
    assert found == pytest.approx(2 * half, rel=0.12)


@given(st.floats(0.1, 10))
@settings(deadline=None, max_examples=20)
def test_thickness_grows_with_the_voxels(scale):
    mask = np.random.default_rng(0).random((8, 9, 7)) < 0.7
    one = measure_thickness(mask, (1.0, 2.0, 3.0))
    many = measure_thickness(mask, (scale, 2 * scale, 3 * scale))
    assert many == pytest.approx(scale * one, abs=0.01 * (1 + scale))


@pytest.mark.parametrize("shape", [ball(14.5), rod(10.5, 100), np.ones((20, 60, 60), dtype=bool)])
def test_subsampled_structures_are_not_misjudged(shape):
    whole = measure_thickness(shape, (1.0, 1.0, 1.0))
    subsampled = measure_thickness(shape, (1.0, 1.0, 1.0), points=8 * shape.size // 20)
    # Every third voxel.
    assert subsampled == pytest.approx(whole, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 30), (1, 30, 30)])
def test_nothing_is_thinner_than_a_voxel(shape):
    found = measure_thickness(np.ones(shape, dtype=bool), (3.0, 0.5, 1.0))
    assert 0.5 <= found <= 3


def test_a_lone_voxel_in_a_large_box_is_not_lost_by_subsampling():
    specks = np.zeros((50, 50, 50), dtype=bool)
    specks[0, 0, 0] = specks[25, 26, 27] = specks[-1, -1, -1] = True
    found = measure_thickness(specks, (1.0, 1.0, 1.0), points=8000)
    assert found > 0


@given(st.tuples(*[st.integers(1, 600)] * 3), SPACINGS)
def test_subsampling_spares_the_coarse_axes_and_keeps_to_the_points(shape, spacing):
    steps = subsampling_steps(shape, spacing, LATTICE_POINTS)
    assert 8 * np.prod([-(-n // step) for n, step in zip(shape, steps, strict=True)]) <= LATTICE_POINTS
    for axis in range(3):
        if steps[axis] > 1:
            others = [spacing[a] * steps[a] for a in range(3) if steps[a] < shape[a]]
            assert (steps[axis] - 1) * spacing[axis] <= min(others, default=np.inf)
