import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.evaluation.surface import hausdorff95, surface_dice, surface_distances

SPACING = (3.0, 1.0, 0.5)
SHAPE = (12, 14, 16)


def cube(start: int = 3, stop: int = 8, shift: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(start + by, stop + by) for by in shift)] = True
    return mask


@pytest.mark.parametrize(("shift", "expected"), [((1, 0, 0), 3.0), ((0, 2, 0), 2.0), ((0, 0, 4), 2.0)])
def test_the_hausdorff_distance_of_a_shifted_plate_is_the_shift(shift, expected):
    plate = np.zeros((20, 20, 20), dtype=bool)
    axis = next(axis for axis, by in enumerate(shift) if by)
    plate[(slice(None),) * axis + (8,)] = True
    shifted = np.roll(plate, shift, axis=(0, 1, 2))
    assert hausdorff95(plate, shifted, SPACING) == expected
    assert surface_dice(plate, shifted, SPACING, tolerance_mm=expected) == 1
    assert surface_dice(plate, shifted, SPACING, tolerance_mm=expected - 0.1) == 0


def test_a_few_stray_voxels_do_not_count_for_the_95th_percentile():
    mask = cube()
    spoilt = mask.copy()
    spoilt[11, 13, 15] = True
    surface = 5**3 - 3**3
    assert hausdorff95(spoilt, mask, SPACING) == 0
    assert surface_dice(spoilt, mask, SPACING) == 2 * surface / (2 * surface + 1)
    spoilt[11, 6:14, 15] = True
    assert hausdorff95(spoilt, mask, SPACING) > 10


def test_the_rim_of_the_volume_is_surface():
    everything = np.ones((4, 4, 4), dtype=bool)
    inner = np.zeros_like(everything)
    inner[1:3, 1:3, 1:3] = True
    distances = surface_distances(everything, inner, (1.0, 1.0, 1.0))
    assert distances is not None
    assert len(distances.from_prediction) == 4**3 - 2**3
    assert distances.from_reference.tolist() == [1.0] * 8


def test_empty_masks():
    empty, mask = np.zeros(SHAPE, dtype=bool), cube()
    for pair in ((empty, mask), (mask, empty)):
        assert math.isnan(hausdorff95(*pair, SPACING))
        assert surface_dice(*pair, SPACING) == 0
    assert math.isnan(hausdorff95(empty, empty, SPACING))
    assert math.isnan(surface_dice(empty, empty, SPACING))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.02, 0.9))
def test_both_ways_are_alike_and_a_mask_agrees_with_itself(seed, density):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 5, 6, 7)) < density
    for metric in (hausdorff95, surface_dice):
        assert metric(a, b, SPACING) == pytest.approx(metric(b, a, SPACING), nan_ok=True)
    if a.any():
        assert hausdorff95(a, a, SPACING) == 0
        assert surface_dice(a, a, SPACING) == 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.05, 0.9))
def test_distances_are_those_to_the_nearest_boundary_voxel(seed, density):
    """Against every pair of boundary voxels."""
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 4, 5, 6)) < density
    distances = surface_distances(a, b, SPACING)
    if distances is None:
        assert not (a.any() and b.any())
        return
    points = [np.argwhere(boundary(mask)) * SPACING for mask in (a, b)]
    apart = np.linalg.norm(points[0][:, None] - points[1], axis=-1)
    np.testing.assert_allclose(distances.from_prediction, apart.min(axis=1))
    np.testing.assert_allclose(distances.from_reference, apart.min(axis=0))


def boundary(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    inside = np.ones_like(mask)
    for axis in range(3):
        for by in (-1, 1):
            inside &= np.roll(padded, by, axis)[1:-1, 1:-1, 1:-1]
    return mask & ~inside
