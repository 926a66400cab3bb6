import math

import numpy as np
import pytest

from autospine.evaluation.boundary_saliency import boundary_region, roc_auc


def test_the_area_under_the_curve_by_hand():
    """Of the four pairs of a positive and a negative value, three are in order, and one is a tie."""
    values = np.array([3.0, 2.0, 2.0, 1.0])
    positive = np.array([True, True, False, False])
    assert roc_auc(values, positive) == pytest.approx((3 + 0.5) / 4)
    assert roc_auc(-values, positive) == pytest.approx(1 - (3 + 0.5) / 4)
    assert math.isnan(roc_auc(values, np.ones(4, dtype=bool)))


@pytest.fixture
def region():
    """Around a cube of 10 voxels of 2 mm in the middle of 40."""
    classes = np.zeros((40, 40, 40), dtype=np.uint8)
    classes[15:25, 15:25, 15:25] = 1
    return boundary_region(classes, (2.0, 2.0, 2.0))


def test_a_map_of_boundaries_is_told_from_one_that_says_nothing(region):
    box, shape = region.box, (40, 40, 40)
    assert box.shape == (22, 22, 22)  # 10 voxels and 12 mm on either side
    near = np.zeros(shape, dtype=np.float32)
    near[box.slices] = -region.distance_mm
    assert region.auc(near) == 1
    assert region.auc(-near) == 0
    assert region.auc(np.random.default_rng(0).normal(size=shape).astype(np.float32)) == pytest.approx(
        0.5, abs=0.03
    )


def test_the_curve_falls_with_the_distance(region):
    values = np.zeros((40, 40, 40), dtype=np.float32)
    values[region.box.slices] = 10 - region.distance_mm
    distances, means = zip(*region.curve(values), strict=True)
    assert distances[0] == 0.5
    assert max(distances) < 12
    assert list(means) == sorted(means, reverse=True)
    assert means[0] == 10


def test_labels_without_boundary_have_no_region():
    assert boundary_region(np.zeros((8, 8, 8), dtype=np.uint8), (1.0, 1.0, 1.0)) is None
    assert boundary_region(np.ones((8, 8, 8), dtype=np.uint8), (1.0, 1.0, 1.0)) is None
