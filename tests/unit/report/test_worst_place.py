import numpy as np
import pytest

from autospine.core.labels import IGNORE_INDEX
from autospine.report.worst_place import find_worst_place

SPACING = (2.0, 2.0, 2.0)


def block() -> np.ndarray:
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    labels[4:10, 4:10, 4:10] = 1
    return labels


def test_maps_that_agree_have_no_worst_place():
    assert find_worst_place(block(), block(), SPACING) is None


def test_a_far_speck_is_worse_than_a_shifted_edge():
    prediction = np.roll(block(), 1, axis=0)
    prediction[15, 9, 9] = 1
    place = find_worst_place(prediction, block(), SPACING)
    assert place is not None
    assert (place.index, place.fault, place.class_index, place.other_index) == ((15, 9, 9), "extra", 1, 0)
    assert place.distance_mm == pytest.approx(12)
    assert not place.absent


def test_a_missing_class_is_found_in_its_middle():
    reference = block()
    reference[12:17, 4:9, 4:9] = 2
    place = find_worst_place(block(), reference, SPACING)
    assert place is not None
    assert (place.index, place.fault, place.class_index, place.absent) == ((14, 6, 6), "missed", 2, True)
    assert place.distance_mm == pytest.approx(6)  # three voxels to the outside


def test_another_name_is_told():
    prediction = block()
    prediction[prediction == 1] = 2
    place = find_worst_place(prediction, block(), SPACING)
    assert place is not None
    assert {place.class_index, place.other_index} == {1, 2}


def test_ignored_voxels_do_not_count():
    reference, prediction = block(), block()
    reference[15:, :, :] = IGNORE_INDEX
    prediction[16, 3, 3] = 1
    assert find_worst_place(prediction, reference, SPACING) is None


def test_the_place_is_a_voxel_of_the_fine_grid():
    prediction, reference = np.zeros((40, 40, 9), dtype=np.uint8), np.zeros((40, 40, 9), dtype=np.uint8)
    reference[2:8, 2:8, 2:8] = 1
    prediction[2:8, 2:8, 2:8] = 1
    prediction[30:34, 30:34, 4] = 1
    place = find_worst_place(prediction, reference, (0.5, 0.5, 4.0))
    assert place is not None
    assert prediction[place.index] == 1
    assert min(place.index[:2]) >= 30
