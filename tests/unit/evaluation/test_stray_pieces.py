import numpy as np
import pytest

from autospine.evaluation.components import STRAY_SHARE, without_strays

SPACING = (2.0, 2.0, 2.0)


def column() -> np.ndarray:
    """A column of 60 voxels of 2 mm with a canal behind it."""
    labels = np.zeros((80, 60, 60), dtype=np.uint8)
    labels[10:70, 20:30, 25:35] = 1
    labels[10:70, 30:34, 27:33] = 3
    return labels


def test_pieces_beside_the_column_go_whatever_their_size_and_class():
    labels = column()
    labels[12:60, 20:26, 45:58] = 2  # an arm, larger than a quarter of the column
    labels[40:42, 50:52, 5:7] = 3
    np.testing.assert_array_equal(without_strays(labels, SPACING), column())


def test_the_other_half_of_a_column_that_is_cut_in_two_stays():
    labels = column()
    labels[50:60] = 0
    assert without_strays(labels, SPACING) is labels


def test_a_small_piece_above_the_column_goes():
    labels = column()
    labels[0:2, 20:30, 25:35] = 1
    np.testing.assert_array_equal(without_strays(labels, SPACING), column())
    assert without_strays(labels, SPACING, least_share=0.0) is labels


@pytest.mark.parametrize("gap_mm", [2, 4])
def test_a_piece_that_is_nearly_attached_stays(gap_mm: int):
    labels = column()
    start = 34 + gap_mm // 2
    labels[30:34, start : start + 6, 28:32] = 1
    assert without_strays(labels, SPACING) is labels


def test_distances_are_in_mm():
    labels = np.zeros((60, 30, 30), dtype=np.uint8)
    labels[5:55, 5:10, 5:10] = 1
    labels[20:22, 16:18, 5:10] = 1
    assert without_strays(labels, (1.0, 1.0, 1.0)) is labels  # 6 mm apart
    assert without_strays(labels, (3.0, 3.0, 3.0)).sum() < labels.sum()  # 18 mm apart


def test_a_map_without_foreground_is_left_alone():
    labels = np.zeros((5, 4, 3), dtype=np.uint16)
    assert without_strays(labels, (3.0, 0.5, 0.5)) is labels


def test_the_map_itself_is_not_changed():
    labels = column()
    labels[40:42, 50:52, 5:7] = 3
    before = labels.copy()
    assert without_strays(labels, SPACING, STRAY_SHARE).dtype == labels.dtype
    np.testing.assert_array_equal(labels, before)
