"""Genant's grades of bodies whose losses of height are known."""

import pytest

from autospine.measurements.body_lengths import EDGE, BodyHeights
from autospine.measurements.fracture_grades import FractureGrade, grade_fractures

SOUND = BodyHeights(26.0, 26.0, 26.0)


def wedge(front: float, back: float = 26.0) -> BodyHeights:
    """Heights of a body of flat endplates, which are measured at an eighth of the depth from the walls."""
    return BodyHeights(front + EDGE * (back - front), (front + back) / 2, back - EDGE * (back - front))


def grades(**heights: BodyHeights) -> dict[str, FractureGrade]:
    return grade_fractures(heights, list(heights))


def test_the_line_through_both_heights_reaches_the_walls() -> None:
    assert wedge(18.0).at_walls() == pytest.approx((18.0, 22.0, 26.0))
    assert wedge(18.0).wedge_ratio == pytest.approx(18 / 26)


@pytest.mark.parametrize(
    ("loss", "grade"), [(0.0, 0), (0.19, 0), (0.201, 1), (0.24, 1), (0.251, 2), (0.39, 2), (0.401, 3)]
)
def test_the_grade_is_by_the_loss_at_the_front_wall(loss, grade) -> None:
    found = grades(L2=SOUND, L3=wedge(26 * (1 - loss)), L4=SOUND)
    assert found["L3"] == FractureGrade(grade, "wedge" if grade else None)
    assert found["L2"].grade == found["L4"].grade == 0


def test_a_body_that_is_low_in_the_middle_is_biconcave() -> None:
    assert grades(L2=BodyHeights(26, 18, 26), L3=SOUND)["L2"] == FractureGrade(2, "biconcave")


def test_a_body_that_is_low_everywhere_is_crushed() -> None:
    low = BodyHeights(18.0, 17.0, 19.0)
    assert grades(L2=SOUND, L3=low, L4=SOUND)["L3"] == FractureGrade(2, "crush")


def test_one_neighbour_is_enough() -> None:
    """The heights of L1 and L2 in a real map."""
    found = grades(L1=BodyHeights(20.19, 16.73, 20.31), L2=BodyHeights(28.37, 26.52, 27.75))
    assert found["L1"] == FractureGrade(2, "crush")
    assert found["L2"].grade is None


def test_a_fractured_neighbour_is_no_reference() -> None:
    """L2 has lost a quarter; by the mean of L3 and a flat L1 it would have grown."""
    low = BodyHeights(20.0, 20.0, 20.0)
    flat = BodyHeights(13.3, 9.0, 14.2)
    found = grades(L1=flat, L2=low, L3=SOUND, L4=SOUND)
    assert found["L1"].grade == 3
    assert found["L2"].grade == 1


def test_without_a_sound_neighbour_only_the_body_itself_is_judged() -> None:
    alone = grades(L3=SOUND)["L3"]
    assert alone.grade is None and alone.shape is None and "no sound vertebra" in alone.note
    broken = grades(L3=wedge(15.0))["L3"]
    assert broken.grade == 3 and "own heights" in broken.note


def test_bodies_grow_on_the_way_down() -> None:
    """T11 is as much lower than T12 as usual, T4 to L4 alike."""
    heights = {f"T{i}": 18.4 * 1.039 ** (i - 4) for i in range(4, 13)} | {"L1": 26.0, "L4": 27.4}
    found = grades(**{level: BodyHeights(mm, mm, mm) for level, mm in heights.items()})
    assert {each.grade for level, each in found.items() if level != "L4"} == {0}
    assert found["L4"].grade is None  # L2 and L3 are not there


def test_levels_that_the_method_leaves_out_have_no_grade() -> None:
    assert grades(T3=SOUND, L5=SOUND, L4=SOUND).keys() == {"L4"}
