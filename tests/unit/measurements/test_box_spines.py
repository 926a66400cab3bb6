"""Measurements of spines made of boxes against their edges."""

from dataclasses import replace

import makers
import numpy as np
import pytest
from box_spines import DEPTH_MM, FRONT_MM, OPENING_MM, SPACING_MM, WIDTH_MM, BoxSpine, BoxVertebra

from autospine.core.errors import DatasetError
from autospine.core.labels import VERSE
from autospine.measurements.measure_spine import measure_spine
from autospine.measurements.measured_labels import SpineLabels
from autospine.measurements.spine_measurements import SpineMeasurements
from autospine.vertebrae.levels import INDEX

STRAIGHT = tuple(BoxVertebra(level=level) for level in ("T12", "L1", "L2"))


def changed(level: str, **changes) -> tuple[BoxVertebra, ...]:
    """The straight spine with one vertebra otherwise."""
    return tuple(replace(each, **changes) if each.level == level else each for each in STRAIGHT)


def known_labels(vertebrae, **others) -> SpineLabels:
    levels = sorted((each.level for each in vertebrae), key=INDEX.__getitem__)
    return SpineLabels(levels={level: VERSE[level] for level in levels}, **others)


def measured(vertebrae, **others) -> SpineMeasurements:
    spine = BoxSpine(vertebrae=vertebrae)
    return measure_spine("boxes", spine.labels, spine.grid, known_labels(vertebrae, **others)).measurements


@pytest.fixture(scope="module")
def straight() -> SpineMeasurements:
    return measured(STRAIGHT)


def test_edges_are_lengths(straight: SpineMeasurements) -> None:
    for each in straight.vertebrae:
        heights = (each.anterior_height_mm, each.middle_height_mm, each.posterior_height_mm)
        assert heights == pytest.approx((26.0, 26.0, 26.0), abs=1.0)
        assert each.depth_mm == pytest.approx(DEPTH_MM, abs=1.0)
        assert each.width_mm == pytest.approx(WIDTH_MM, abs=1.5)
        assert each.genant_grade == 0
    for disc in straight.discs:
        assert disc.height_mm == pytest.approx(8.0, abs=1.0)
        assert (disc.angle_deg, disc.slip_mm) == pytest.approx((0.0, 0.0), abs=0.5)


def test_the_ring_is_no_canal(straight: SpineMeasurements) -> None:
    depth, width = OPENING_MM
    for each in straight.vertebrae:
        assert each.canal_area_mm2 is each.canal_depth_mm is each.canal_width_mm is None
        assert each.canal_source == "vertebral ring"
        assert each.ring_area_mm2 == pytest.approx(depth * width, rel=0.08)
        assert each.ring_depth_mm == pytest.approx(depth, abs=1.0)
        assert each.ring_width_mm == pytest.approx(width, abs=1.0)
        assert not each.notes


@pytest.mark.parametrize(("loss", "grade"), [(0.17, 0), (0.225, 1), (0.28, 2), (0.43, 3)])
def test_a_wedge_has_the_grade_of_its_front_wall(loss, grade) -> None:
    spine = measured(changed("L1", front_mm=28.0 * (1 - loss), back_mm=28.0))
    broken = next(each for each in spine.vertebrae if each.level == "L1")
    assert broken.wedge_ratio == pytest.approx(1 - loss, abs=0.03)
    assert (broken.genant_grade, broken.genant_shape) == (grade, "wedge" if grade else None)


def test_a_curve_to_the_side_has_its_angle_and_side() -> None:
    leaning = tuple(replace(each, roll_deg=roll) for each, roll in zip(STRAIGHT, (-8, 0, 9), strict=True))
    cobb = measured(leaning).angles[0]
    assert cobb.degrees == pytest.approx(17.0, abs=1.5)
    assert (cobb.upper, cobb.lower, cobb.note) == ("T12 upper", "L2 lower", "convex to the left")


def test_discs_that_are_open_in_front_have_positive_angles() -> None:
    spine = measured(changed("L1", pitch_deg=-8.0))
    angles = [disc.angle_deg for disc in spine.discs]
    assert angles == pytest.approx([-8.0, 8.0], abs=1.5)


def test_a_vertebra_that_slipped_forwards_has_a_positive_slip() -> None:
    spine = measured(changed("T12", forwards_mm=6.0))
    slips = {disc.upper: (disc.slip_mm, disc.slip_percent) for disc in spine.discs}
    assert slips["T12"][0] == pytest.approx(6.0, abs=1.0)
    assert slips["T12"][1] == pytest.approx(100 * slips["T12"][0] / DEPTH_MM, abs=1.0)
    assert slips["L1"][0] == pytest.approx(0.0, abs=1.0)


def test_a_body_without_back_wall_takes_part_in_nothing() -> None:
    spine = measured(changed("L1", filled=True))
    filled = next(each for each in spine.vertebrae if each.level == "L1")
    assert any("no back wall" in note for note in filled.notes)
    assert filled.depth_mm is filled.sagittal_tilt_deg is filled.genant_grade is None
    assert filled.volume_ml is not None
    assert spine.discs == ()
    assert measured(changed("T12", filled=True)).angles == ()  # nor does its upper endplate end a curve


@pytest.mark.parametrize(("step", "rough"), [((1, 1, 1), False), ((6, 1, 1), True), ((1, 1, 3), False)])
def test_coarse_voxels_are_noted(step, rough) -> None:
    spine = BoxSpine(vertebrae=STRAIGHT)
    labels = np.ascontiguousarray(spine.labels[tuple(slice(None, None, n) for n in step)])
    spacing = tuple(n * mm for n, mm in zip(step, SPACING_MM, strict=True))
    found = measure_spine("coarse", labels, makers.grid(labels.shape, spacing), known_labels(STRAIGHT))
    assert any("off by 2 mm" in note for note in found.measurements.notes) is rough


def test_a_shallow_canal_is_doubted() -> None:
    spine = BoxSpine(vertebrae=STRAIGHT)
    labels = spine.labels.copy()
    behind = np.arange(labels.shape[1]) + 0.5 - FRONT_MM - DEPTH_MM / 2
    labels[:, (behind >= 0) & (behind < 8)] = np.where(
        labels[:, (behind >= 0) & (behind < 8)] == 0, 100, labels[:, (behind >= 0) & (behind < 8)]
    )
    known = known_labels(STRAIGHT, canal=(100,))
    found = measure_spine("narrow", labels, spine.grid, known).measurements.vertebrae[1]
    assert found.canal_source == "canal label" and found.ring_area_mm2 is None
    assert found.canal_depth_mm == pytest.approx(8.0, abs=1.0)
    assert any("below 10 mm" in note for note in found.notes)


@pytest.mark.parametrize("count", [2, 3])
def test_head_and_feet_exchanged_are_refused(count) -> None:
    spine = BoxSpine(vertebrae=STRAIGHT[:count])
    with pytest.raises(DatasetError, match="head to the feet"):
        measure_spine("turned", spine.labels[::-1], spine.grid, known_labels(STRAIGHT[:count]))


def test_two_exchanged_names_keep_their_own_lengths_and_are_told() -> None:
    names = ("T11", "L1", "T12", "L2", "L3")
    spine = measured(tuple(BoxVertebra(level=level, front_mm=24.0, back_mm=28.0) for level in names))
    assert any("T12 above" in note or "L1 above T12" in note for note in spine.notes)
    for each in spine.vertebrae:
        assert each.wedge_ratio == pytest.approx(24 / 28, abs=0.03)
