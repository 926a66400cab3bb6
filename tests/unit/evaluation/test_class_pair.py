import math

import numpy as np

from autospine.core.labels import IGNORE_INDEX, parse_labels
from autospine.evaluation.class_pair import CasePair

LABELS = parse_labels({"background": 0, "L1": 20, "L2": 21, "L3": 22, "ignore": 9})
NESTED = parse_labels({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
SPACING = (2.0, 1.0, 0.5)


def maps() -> tuple[np.ndarray, np.ndarray]:
    """L1 is right, L2 is called L3, and the reference has no L3."""
    reference = np.zeros((20, 12, 12), dtype=np.uint8)
    reference[14:18, 2:6, 2:8] = 1
    reference[4:8, 2:6, 2:8] = 2
    prediction = reference.copy()
    prediction[reference == 2] = 3
    return prediction, reference


def test_each_class_is_cut_to_the_box_around_both_masks():
    prediction, reference = maps()
    prediction[14, 6, 2] = 1
    first, second, third = CasePair(prediction, reference, LABELS, SPACING).classes
    assert first.reference.shape == (4, 5, 6)
    assert (first.prediction.sum(), first.reference.sum()) == (97, 96)
    assert (second.prediction.sum(), second.reference.sum()) == (0, 96)
    assert (third.prediction.sum(), third.reference.sum()) == (96, 0)


def test_a_class_in_neither_map_has_empty_masks():
    pairs = list(CasePair(*np.zeros((2, 3, 3, 3), dtype=np.uint8), LABELS, SPACING).classes)
    assert not any(pair.prediction.any() or pair.reference.any() for pair in pairs)
    assert all(math.isnan(pair.matches.recognition) for pair in pairs)
    assert all(pair.distances.empty for pair in pairs)


def test_ignored_voxels_are_in_neither_mask():
    prediction, reference = maps()
    reference[14] = IGNORE_INDEX
    prediction[15, 2] = IGNORE_INDEX  # says nothing there
    first, *_ = CasePair(prediction, reference, LABELS, SPACING).classes
    assert first.prediction.shape == (3, 4, 6)
    assert (first.prediction.sum(), first.reference.sum()) == (72 - 6, 72)


def test_regions_overlap():
    indices = np.zeros((3, 1, 4), dtype=np.uint8)
    indices[:, 0] = [[0, 1, 1, 0], [1, 2, 2, 1], [0, 1, 1, 0]]
    whole, core = CasePair(indices, indices, NESTED, SPACING).classes
    assert (whole.prediction.sum(), core.prediction.sum()) == (8, 2)
    assert whole.matches.present == 1


def test_the_foreground_has_the_instances_of_all_classes_whatever_their_names():
    prediction, reference = maps()
    case = CasePair(prediction, reference, LABELS, SPACING)
    assert [pair.matches.recognition for pair in case.classes][:2] == [1, 0]
    matches = case.foreground.matches
    assert (matches.predicted, matches.present, matches.ious.tolist()) == (2, 2, [1, 1])
    reference[14:16, 2:6, 2:8] = 3  # touches L1, and is another instance all the same
    assert CasePair(prediction, reference, LABELS, SPACING).foreground.matches.present == 3


def test_centroids_are_in_millimetres():
    prediction, reference = maps()
    case = CasePair(prediction, np.roll(reference, 1, axis=2), LABELS, SPACING)
    centroids = case.centroids
    assert centroids.predicted[0].tolist() == [15.5 * 2, 3.5, 4.5 * 0.5]
    first, second, third = case.classes
    assert (first.centroid_distance_mm, first.identified) == (0.5, 1)
    assert math.isnan(second.centroid_distance_mm)
    assert second.identified == 0
    assert math.isnan(third.identified)
