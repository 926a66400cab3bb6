import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.evaluation.surface import (
    SurfaceDistances,
    hausdorff95,
    mean_surface_distance,
    surface_dice,
    surface_distances,
)
from autospine.evaluation.surface_elements import surface_elements
from autospine.io.images import read_labels

SPACING = (3.0, 1.0, 0.5)
SHAPE = (12, 14, 16)


def cube(start: int = 3, stop: int = 8) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[(slice(start, stop),) * 3] = True
    return mask


def test_two_voxels_two_millimetres_apart():
    """Half of the sixteen elements of equal size are 1 mm from the other voxel's, and half 2 mm."""
    one, other = np.zeros((2, 9, 9, 9), dtype=bool)
    one[4, 4, 2] = other[4, 4, 4] = True
    distances = surface_distances(one, other, (3.0, 2.0, 1.0))
    assert hausdorff95(distances) == 2
    assert surface_dice(distances, 1.0) == 0.5
    assert surface_dice(distances, 2.0) == 1
    assert mean_surface_distance(distances) == 1.5


def test_two_blocks_of_which_one_has_a_layer_more():
    """The figures of the tests of DeepMind's surface-distance, which have three places."""
    thinner, thicker = np.zeros((2, 100, 100, 100), dtype=bool)
    thinner[:50] = thicker[:51] = True
    distances = surface_distances(thicker, thinner, (2.0, 1.0, 1.0))
    averages = (
        np.average(distances.from_reference, weights=distances.areas_of_reference),
        np.average(distances.from_prediction, weights=distances.areas_of_prediction),
    )
    assert averages == pytest.approx((0.322, 0.339), abs=1e-3)
    assert hausdorff95(distances) == 2
    assert surface_dice(distances, 1.0) == pytest.approx(0.836, abs=1e-3)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("label", "robust", "dice", "from_reference", "from_prediction"),
    [
        (26, 0.5859, 0.9727, 0.1664, 0.1365),
        (43, 1.1719, 0.9508, 0.2029, 1.2247),
        (44, 1.7578, 0.9480, 0.1069, 0.5779),
        (60, 61.1683, 0.4282, 10.9123, 0.1061),
    ],
)
def test_a_real_pair_has_the_figures_of_surface_distance(
    real_data: Path, label, robust, dice, from_reference, from_prediction
):
    """Those of surface-distance 0.1, in thick slices; one class is hardly predicted at all."""
    folder = real_data / "real" / "metrics_pair_mr"
    prediction, reference = (read_labels(folder / f"semantic_{which}.nii.gz") for which in ("pred", "ref"))
    masks = (each.array[0] == label for each in (prediction, reference))
    distances = surface_distances(*masks, reference.grid.spacing_mm)
    averages = (
        np.average(distances.from_reference, weights=distances.areas_of_reference),
        np.average(distances.from_prediction, weights=distances.areas_of_prediction),
    )
    assert hausdorff95(distances) == pytest.approx(robust, abs=1e-3)
    assert surface_dice(distances) == pytest.approx(dice, abs=1e-3)
    assert averages == pytest.approx((from_reference, from_prediction), abs=1e-3)


@pytest.mark.parametrize(("axis", "by"), [(0, 1), (1, 2), (2, 4)])
def test_the_hausdorff_distance_of_a_shifted_plate_is_the_shift(axis, by):
    plate = np.zeros((24, 24, 24), dtype=bool)
    plate[(slice(None),) * axis + (slice(6, 7),)] = True
    moved = np.roll(plate, by, axis)
    shift = by * SPACING[axis]
    distances = surface_distances(plate, moved, SPACING)
    assert hausdorff95(distances) == pytest.approx(shift)
    assert surface_dice(distances, shift) == 1
    assert surface_dice(distances, shift - 0.1) == pytest.approx(0.5)  # the faces that look at each other


def test_a_few_stray_voxels_do_not_count_for_the_95th_percentile():
    mask = cube()
    spoilt = mask.copy()
    spoilt[11, 13, 15] = True
    distances = surface_distances(spoilt, mask, SPACING)
    assert hausdorff95(distances) == 0
    whole = surface_elements(mask, SPACING).areas_mm2.sum()
    stray = surface_elements(np.ones((1, 1, 1), dtype=bool), SPACING).areas_mm2.sum()
    assert surface_dice(distances) == pytest.approx(2 * whole / (2 * whole + stray))
    spoilt[11, 3:14, 12:] = True
    assert hausdorff95(surface_distances(spoilt, mask, SPACING)) > 5


def test_elements_count_by_their_area():
    """A twentieth of the elements, which have nearly all the area, decides."""
    far = np.zeros(20)
    far[0] = 9.0
    areas = np.full(20, 0.01)
    areas[0] = 10.0
    distances = SurfaceDistances(
        from_prediction=far, areas_of_prediction=areas, from_reference=far[1:], areas_of_reference=areas[1:]
    )
    assert hausdorff95(distances) == 9
    assert surface_dice(distances) == pytest.approx(0.38 / 10.38)
    assert mean_surface_distance(distances) == pytest.approx(90 / 10.38)


def test_the_rim_of_the_volume_is_surface():
    everything = np.ones((4, 4, 4), dtype=bool)
    inner = np.zeros_like(everything)
    inner[1:3, 1:3, 1:3] = True
    distances = surface_distances(everything, inner, (1.0, 1.0, 1.0))
    assert len(distances.from_prediction) == 5**3 - 3**3
    assert len(distances.from_reference) == 3**3 - 1
    assert distances.from_reference.max() == 1


def test_empty_masks():
    empty, mask = np.zeros(SHAPE, dtype=bool), cube()
    for pair in ((empty, mask), (mask, empty)):
        distances = surface_distances(*pair, SPACING)
        assert math.isnan(hausdorff95(distances))
        assert math.isnan(mean_surface_distance(distances))
        assert surface_dice(distances) == 0
    nothing = surface_distances(empty, empty, SPACING)
    assert all(math.isnan(metric(nothing)) for metric in (hausdorff95, surface_dice, mean_surface_distance))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.02, 0.9))
def test_both_ways_are_alike_and_a_mask_agrees_with_itself(seed, density):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 5, 6, 7)) < density
    there, back, same = (surface_distances(*pair, SPACING) for pair in ((a, b), (b, a), (a, a)))
    for metric in (hausdorff95, surface_dice, mean_surface_distance):
        assert metric(there) == pytest.approx(metric(back), nan_ok=True)
    if a.any():
        assert (hausdorff95(same), surface_dice(same, 0.0), mean_surface_distance(same)) == (0, 1, 0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.05, 0.9))
def test_distances_are_those_to_the_nearest_element(seed, density):
    """Against every pair of elements."""
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 4, 5, 6)) < density
    distances = surface_distances(a, b, SPACING)
    if distances.empty:
        assert not (a.any() and b.any())
        return
    places = [surface_elements(mask, SPACING).places_mm for mask in (a, b)]
    apart = np.linalg.norm(places[0][:, None] - places[1], axis=-1)
    np.testing.assert_allclose(distances.from_prediction, apart.min(axis=1))
    np.testing.assert_allclose(distances.from_reference, apart.min(axis=0))
