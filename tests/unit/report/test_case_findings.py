import numpy as np

from autospine.core.labels import IGNORE_INDEX
from autospine.report.case_findings import describe_worst_place, find_faults
from autospine.report.worst_place import find_worst_place

NAMES = ("L1", "L2", "canal")


def maps() -> tuple[np.ndarray, np.ndarray]:
    reference = np.zeros((30, 10, 10), dtype=np.uint8)
    reference[2:10] = 1
    reference[10:20] = 2
    return reference.copy(), reference


def test_a_perfect_prediction_has_no_faults():
    assert find_faults(*maps(), NAMES) == ()
    assert describe_worst_place(None, NAMES) == "prediction and reference agree"


def test_exchanged_names_are_told_the_larger_first():
    prediction, reference = maps()
    prediction[reference == 1], prediction[reference == 2] = 2, 1
    assert find_faults(prediction, reference, NAMES) == (
        "100 % of L2 is called L1",
        "100 % of L1 is called L2",
    )


def test_missed_and_extra_classes_are_told():
    prediction, reference = maps()
    prediction[reference == 1] = 0
    prediction[24:30] = 3
    assert find_faults(prediction, reference, NAMES) == (
        "L1 is missed: 0 % of it has any label",
        "canal is predicted, and the reference has none",
    )


def test_a_class_that_is_found_in_part_and_labels_of_background_are_told():
    prediction, reference = maps()
    prediction[4:10] = 0
    prediction[24:30] = 2
    assert find_faults(prediction, reference, NAMES) == (
        "75 % of L1 has no label",
        "38 % of what is called L2 is background",
    )


def test_what_is_ignored_is_no_fault():
    prediction, reference = maps()
    prediction[24:30] = 3
    reference[20:] = IGNORE_INDEX
    assert find_faults(prediction, reference, NAMES) == ()


def test_the_worst_place_is_told_with_what_is_there_instead():
    prediction, reference = maps()
    prediction[reference == 1] = 0
    place = find_worst_place(prediction, reference, (2.0, 2.0, 2.0))
    assert describe_worst_place(place, NAMES).startswith(
        "worst place: L1 is nowhere predicted; here it is background"
    )
    prediction, reference = maps()
    prediction[25, 5, 5] = 1
    place = find_worst_place(prediction, reference, (2.0, 2.0, 2.0))
    expected = "worst place: L1 is predicted 32 mm away from any of the reference, which has background there"
    assert describe_worst_place(place, NAMES) == expected
