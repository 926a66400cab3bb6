"""Angles and alignment of endplates that are set by hand."""

import json
import math

import numpy as np
import pytest

from autospine.measurements.disc_space import Endplate
from autospine.measurements.spine_angles import PlacedEndplate, alignment_of, angle_between, angles_of
from autospine.vertebrae.levels import SACRUM

THORACIC = [f"T{i}" for i in range(1, 13)]
LUMBAR = [f"L{i}" for i in range(1, 6)]


def normal(forwards_deg: float = 0.0, left_deg: float = 0.0) -> np.ndarray:
    """A normal that leans so far in the sagittal, or in the coronal plane."""
    forwards, left = math.radians(forwards_deg), math.radians(left_deg)
    vector = np.array([math.tan(left), -math.tan(forwards), 1.0])
    return vector / np.linalg.norm(vector)


def placed(level: str, cranial: bool, **lean: float) -> PlacedEndplate:
    return PlacedEndplate(level, cranial, np.zeros(3), normal(**lean))


def both(level: str, **lean: float) -> list[PlacedEndplate]:
    return [placed(level, True, **lean), placed(level, False, **lean)]


def angles(endplates: list[PlacedEndplate], levels: list[str]) -> dict[str, float]:
    """Angles in the sagittal plane by their name."""
    return {each.name: each.degrees for each in angles_of(endplates, levels) if each.plane == "sagittal"}


def cobb(*lean_deg: float):
    """The coronal angle of a lumbar spine whose bodies lean so far to the left."""
    levels = LUMBAR[: len(lean_deg)]
    endplates = [
        each for level, lean in zip(levels, lean_deg, strict=True) for each in both(level, left_deg=lean)
    ]
    return next((each for each in angles_of(endplates, levels) if each.plane == "coronal"), None)


def test_kyphosis_is_open_behind_and_lordosis_in_front() -> None:
    found = angles(
        [
            placed("C2", False, forwards_deg=-5),
            placed("C7", False, forwards_deg=20),
            placed("T4", True, forwards_deg=22),
            placed("T10", True, forwards_deg=-4),
            placed("T12", False, forwards_deg=-13),
            placed("L1", True, forwards_deg=-12),
            placed("L2", False, forwards_deg=-7),
            placed("L5", False, forwards_deg=25),
            placed(SACRUM, True, forwards_deg=38),
        ],
        [*THORACIC, *LUMBAR],
    )
    assert found == {
        "cervical lordosis": 25.0,
        "thoracic kyphosis": 35.0,
        "thoracolumbar kyphosis": 3.0,
        "lumbar lordosis": 50.0,
        "lumbar lordosis to the last vertebra": 37.0,
        "sacral slope": 38.0,
    }


@pytest.mark.parametrize(
    ("levels", "last"),
    [
        (["T12", "L1"], "T12"),
        (["T12", "T13", "L1"], "T13"),
        (["T11", "L1"], "T11"),
        (["T10", "T11"], None),
        (["T12"], "T12"),
    ],
)
def test_kyphosis_ends_at_the_last_thoracic_vertebra(levels, last) -> None:
    endplates = [placed("T4", True, forwards_deg=20), *(placed(level, False) for level in levels)]
    found = [each for each in angles_of(endplates, ["T4", *levels]) if each.name == "thoracic kyphosis"]
    assert [each.lower for each in found] == ([] if last is None else [f"{last} lower"])


def test_an_end_that_is_there_but_not_measured_is_replaced_by_no_other() -> None:
    levels = ["T4", "T12", "T13", "L1", "L5", "L6"]
    endplates = [placed("T4", True), placed("T12", False), placed("L1", True), placed("L5", False)]
    assert angles(endplates, levels) == {}


@pytest.mark.parametrize("sacrum", [True, False])
def test_l4_is_the_last_lumbar_vertebra_only_on_a_sacrum(sacrum) -> None:
    endplates = [placed("L1", True), placed("L4", False), *([placed(SACRUM, True)] if sacrum else [])]
    found = angles(endplates, LUMBAR[:4])
    assert ("lumbar lordosis to the last vertebra" in found) is sacrum


@pytest.mark.parametrize(
    ("above", "below", "angle"), [(10.0, 25.0, 15.0), (170.0, -175.0, 15.0), (-175.0, 170.0, -15.0)]
)
def test_no_angle_exceeds_half_a_turn(above, below, angle) -> None:
    ends = [
        np.array([0.0, -math.sin(math.radians(deg)), math.cos(math.radians(deg))]) for deg in (above, below)
    ]
    assert angle_between(ends[0], ends[1], "sagittal") == pytest.approx(angle)


def test_the_cobb_angle_is_the_largest_of_a_curve() -> None:
    found = cobb(-3.0, -12.0, 4.0, 11.0, 2.0)
    assert (found.degrees, found.upper, found.lower) == (23.0, "L2 upper", "L4 lower")
    assert found.note == "convex to the left"
    assert cobb(3.0, 12.0, -4.0, -11.0).note == "convex to the right"


def test_neighbours_make_no_curve() -> None:
    assert cobb(0.0, 20.0) is None
    found = cobb(0.0, 0.0, 16.0, 0.0, 0.0)
    assert (found.degrees, found.upper, found.lower) == (16.0, "L1 upper", "L3 lower")


def test_a_straight_spine_has_no_side_and_no_scoliosis() -> None:
    assert cobb(0.0, 0.0, 0.0).note == "no scoliosis, which begins at 10 degrees"
    assert cobb(3.0, 0.0, -4.0).note == "convex to the right; no scoliosis, which begins at 10 degrees"
    assert cobb(6.0, 0.0, -4.0).note == "convex to the right"


def test_alignment_is_that_of_the_points() -> None:
    centres = {"C7": np.array([6.0, -30.0, 400.0]), "T6": np.array([25.0, 0.0, 200.0])}
    centres["L5"] = np.array([0.0, -20.0, 0.0])
    middle, back, front = np.array([1.0, 0, -20]), np.array([1.0, 15, -18]), np.array([1.0, -15, -22])
    sacrum = Endplate(middle, normal(), back, front, 30.3)
    found = alignment_of(centres, sacrum)
    assert found.sagittal_vertical_axis_mm == 45.0
    assert found.coronal_balance_mm == 5.0
    assert (found.largest_deviation_mm, found.largest_deviation_at) == (22.0, "T6")


def test_points_at_one_height_have_a_deviation_or_none_but_no_nan() -> None:
    level = {name: np.array([x, 0.0, 50.0]) for name, x in (("L1", 0.0), ("L2", 8.0), ("L3", 20.0))}
    assert alignment_of(level, None).largest_deviation_mm == 0.0
    one = {name: np.array([0.0, y, 50.0]) for name, y in (("L1", 0.0), ("L2", 8.0), ("L3", 20.0))}
    found = alignment_of(one, None)
    assert found.largest_deviation_mm is None
    json.dumps(found.largest_deviation_mm, allow_nan=False)
