from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from unit.evaluation.specks import LABELS, SHAPE, SPACING, reference, with_specks

from autospine.core.errors import FormatError
from autospine.core.labels import parse_labels
from autospine.evaluation.cleanup_choice import CANDIDATES
from autospine.evaluation.postprocessing import (
    POSTPROCESSING,
    ClassCleanup,
    Cleanup,
    LabelChange,
    Postprocessing,
    describe_changes,
    read_postprocessing,
)
from autospine.storage.serialization import write_json


def rules(**cleanups: Cleanup) -> Postprocessing:
    classes = tuple(
        ClassCleanup(
            name=name,
            integer=integer,
            cleanup=cleanups.get(name, Cleanup()),
            n_cases=0,
            dice_before=None,
            dice_after=None,
        )
        for name, integer in zip(LABELS.names, LABELS.painted, strict=True)
    )
    return Postprocessing(format_version=3, n_cases=0, classes=classes)


def test_small_components_of_a_class_become_background():
    spoilt = with_specks(with_specks(reference(), 300, 1), 7, 1)
    spoilt[0, 0, 0] = 300
    cleaned = rules(vertebra=Cleanup(least_mm3=30)).apply(spoilt, SPACING).labels
    expected = np.where((spoilt == 300) & (reference() != 300), 0, spoilt)
    np.testing.assert_array_equal(cleaned, expected)
    assert cleaned.dtype == spoilt.dtype


def test_the_volume_of_a_component_is_in_mm():
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[1:4, 1:4, 1:4] = 7
    rule = rules(canal=Cleanup(least_mm3=30))
    assert rule.apply(labels, (2.0, 1.0, 1.0)).labels.sum() == labels.sum()
    assert rule.apply(labels, (1.0, 1.0, 1.0)).labels.sum() == 0


def test_the_largest_component_stays_corners_included():
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[2, 2, 2] = 7
    labels[10:12, 10, 10] = 7
    cleaned = rules(canal=Cleanup(keep_largest=True)).apply(labels, SPACING).labels
    assert np.argwhere(cleaned).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


def test_holes_are_filled_with_background_only():
    labels = reference()
    labels[4, 4, 6] = 0
    labels[5, 5, 7] = 7
    cleaned = rules(vertebra=Cleanup(fill_holes=True)).apply(labels, SPACING).labels
    assert cleaned[4, 4, 6] == 300
    assert cleaned[5, 5, 7] == 7
    assert np.count_nonzero(cleaned != labels) == 1


def test_the_map_itself_comes_back_where_nothing_is_done():
    labels = reference()
    assert rules().apply(labels, SPACING).labels is labels


def test_a_map_is_not_changed_in_place():
    spoilt = with_specks(reference(), 7, 2)
    before = spoilt.copy()
    rules(canal=Cleanup(keep_largest=True, fill_holes=True)).apply(spoilt, SPACING)
    np.testing.assert_array_equal(spoilt, before)


def shells(*integers: int) -> np.ndarray:
    """One in another, from the outside in, with background between them and within."""
    labels = np.zeros((4 * len(integers) + 1,) * 3, dtype=np.int32)
    for depth, integer in enumerate(integers):
        outer, inner = slice(2 * depth, -2 * depth or None), slice(2 * depth + 1, -2 * depth - 1)
        labels[outer, outer, outer] = integer
        labels[inner, inner, inner] = 0
    return labels


def test_a_hole_belongs_to_the_innermost_of_the_components_around_it():
    labels = shells(300, 7)
    middle, between = (4, 4, 4), (1, 1, 1)
    fill = Cleanup(fill_holes=True)
    for cleanups, expected in (
        ({"vertebra": fill}, (0, 300)),
        ({"canal": fill}, (7, 0)),
        ({"vertebra": fill, "canal": fill}, (7, 300)),
    ):
        cleaned = rules(**cleanups).apply(labels, SPACING).labels
        assert (cleaned[middle], cleaned[between]) == expected


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.01, 0.9))
def test_components_are_those_of_each_class_alone(seed, density):
    rng = np.random.default_rng(seed)
    shape = (8, 9, 10)
    labels = np.where(rng.random(shape) < density, rng.choice([300, 7], shape), 0)
    for name, integer in zip(LABELS.names, LABELS.painted, strict=True):
        numbers, _ = ndimage.label(labels == integer, np.ones((3, 3, 3)))
        sizes = np.bincount(numbers.reshape(-1), minlength=2)[1:]
        cleaned = rules(**{name: Cleanup(least_mm3=3)}).apply(labels, (1.0, 1.0, 1.0)).labels
        assert np.count_nonzero(cleaned == integer) == sizes[sizes >= 3].sum()
        np.testing.assert_array_equal(cleaned[labels != integer], labels[labels != integer])
        largest = rules(**{name: Cleanup(keep_largest=True)}).apply(labels, (1.0, 1.0, 1.0)).labels
        assert np.count_nonzero(largest == integer) == sizes.max(initial=0)


def test_cleaning_twice_changes_nothing_more():
    spoilt = with_specks(reference(), 7, 3)
    for cleanup in CANDIDATES:
        rule = rules(canal=cleanup, vertebra=cleanup)
        once = rule.apply(spoilt, SPACING).labels
        np.testing.assert_array_equal(rule.apply(once, SPACING).labels, once)


def test_it_is_written_and_read(tmp_path):
    assert read_postprocessing(tmp_path) is None
    chosen = rules(canal=Cleanup(keep_largest=True, removed_to="neighbour"))
    write_json(tmp_path / POSTPROCESSING, chosen)
    assert read_postprocessing(tmp_path) == chosen
    with pytest.raises(FormatError, match=r"1 to 6, found 7; predict with --no-postprocessing"):
        replace(chosen, format_version=7)


OF_VERSION_1 = """{
  "format_version": 1,
  "n_cases": 5,
  "classes": [
    {
      "name": "vertebra",
      "integer": 300,
      "cleanup": {"fill_holes": false, "keep_largest": true, "least_mm3": 0.0},
      "n_cases": 5,
      "dice_before": 0.5,
      "dice_after": 0.6
    }
  ]
}
"""


def test_a_file_of_version_1_means_what_it_meant(tmp_path):
    """Removed components become background, whatever they touch."""
    (tmp_path / POSTPROCESSING).write_text(OF_VERSION_1, encoding="utf-8")
    found = read_postprocessing(tmp_path)
    assert found.classes[0].cleanup == Cleanup(keep_largest=True, removed_to="background")
    assert found.foreground_recall_after is None
    labels = reference()
    labels[18:20, 10:14, 6:10] = 300
    cleaned = found.apply(labels, SPACING).labels
    assert not cleaned[18:20].any()


def test_rivals_of_the_largest_component_are_kept():
    """Of two bodies of one name the smaller may have it rightly."""
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[1:9, 4:8, 4:8] = 7
    labels[10:14, 4:8, 4:8] = 7
    labels[15:18, 4:8, 4:8] = 7
    labels[0, 0, 0] = 7
    cleaned = rules(canal=Cleanup(keep_largest=True, rival_share=0.5)).apply(labels, SPACING).labels
    expected = labels.copy()
    expected[15:18] = expected[0, 0, 0] = 0
    np.testing.assert_array_equal(cleaned, expected)
    cleaned = rules(canal=Cleanup(keep_largest=True)).apply(labels, SPACING).labels
    expected[10:14] = 0
    np.testing.assert_array_equal(cleaned, expected)


@pytest.mark.parametrize("removed_to", ["background", "neighbour"])
def test_what_is_large_never_becomes_background(removed_to):
    """A component of another name that touches nothing may be bone that was found."""
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[2:10, 4:8, 4:8] = 7
    labels[14:20, 4:8, 4:8] = 7
    labels[0, 0, 0] = 7
    limit = 50 * float(np.prod(SPACING))
    cleanup = Cleanup(keep_largest=True, removed_to=removed_to, most_to_background_mm3=limit)
    cleaned = rules(canal=cleanup).apply(labels, SPACING)
    assert (cleaned.labels[14:20, 4:8, 4:8] == 7).all()
    assert cleaned.labels[0, 0, 0] == 0
    assert [change.voxels for change in cleaned.changes] == [1]


def test_a_removed_component_becomes_the_kept_class_that_it_shares_most_faces_with():
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[2:8, 4:8, 4:8] = 300
    labels[8:10, 4:8, 4:8] = 7  # the lower end of the vertebra
    labels[14:20, 4:8, 4:8] = 7
    labels[0, 0, 0] = 7
    cleaned = rules(canal=Cleanup(keep_largest=True, removed_to="neighbour")).apply(labels, SPACING)
    expected = np.where(labels[:12] == 7, 300, labels[:12])
    expected[0, 0, 0] = 0
    np.testing.assert_array_equal(cleaned.labels[:12], expected)
    np.testing.assert_array_equal(cleaned.labels[12:], labels[12:])
    assert cleaned.labels.dtype == labels.dtype
    assert cleaned.changes == (
        LabelChange(from_label="canal", to_label="vertebra", voxels=32, ml=0.064),
        LabelChange(from_label="canal", to_label="background", voxels=1, ml=0.002),
    )


def test_components_that_are_removed_together_do_not_become_one_another():
    """All are decided on before any is relabelled, and an edge is no face."""
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[0:6, 0:6, 0:6], labels[10:16, 0:6, 0:6] = 300, 7
    labels[8, 10, 10], labels[8, 10, 11] = 300, 7  # touch each other alone
    labels[6, 6, 3] = 7  # touches the vertebra by an edge
    drop = Cleanup(least_mm3=30, removed_to="neighbour")
    cleaned = rules(vertebra=drop, canal=drop).apply(labels, SPACING).labels
    assert np.argwhere(cleaned != labels).tolist() == [[6, 6, 3], [8, 10, 10], [8, 10, 11]]
    assert not cleaned[cleaned != labels].any()


@pytest.mark.parametrize("first", [300, 7])
def test_of_two_neighbours_with_as_many_faces_the_smaller_label_value_counts(first):
    space = parse_labels({"background": 0, "one": 300, "two": 7, "between": 5})
    labels = np.zeros((3, 3, 9), dtype=np.int16)
    labels[:, :, 0:3], labels[:, :, 4:7] = first, 307 - first
    labels[1, 1, 3] = 5
    labels[0:2, 0, 8] = 5
    classes = tuple(
        ClassCleanup(
            name=name,
            integer=integer,
            cleanup=Cleanup(keep_largest=integer == 5, removed_to="neighbour"),
            n_cases=0,
            dice_before=None,
            dice_after=None,
        )
        for name, integer in zip(space.names, space.painted, strict=True)
    )
    cleaned = Postprocessing(format_version=3, n_cases=0, classes=classes).apply(labels, SPACING).labels
    assert cleaned[1, 1, 3] == 7


def test_changes_are_described_the_largest_first():
    spoilt = with_specks(reference(), 7, 1)
    spoilt[4, 4, 6] = 0
    fill = Cleanup(fill_holes=True)
    changes = rules(vertebra=fill, canal=Cleanup(keep_largest=True)).apply(spoilt, SPACING).changes
    assert describe_changes(changes) == (
        "0.04 ml of canal to background and less than 0.01 ml of background to vertebra"
    )
    assert describe_changes(changes[:1]) == "0.04 ml of canal to background"
    many = [LabelChange(from_label=f"L{i}", to_label="T1", voxels=1, ml=1.25) for i in range(7)]
    assert describe_changes(many).endswith("1.2 ml of L3 to T1 and 3.8 ml of other labels")


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    seed=st.integers(0, 10_000),
    density=st.floats(0.3, 0.97),
    fortran=st.booleans(),
)
def test_holes_are_those_of_scipy_up_to_the_border(shape, seed, density, fortran):
    """Also in thin volumes, and whatever the order of the voxels in memory."""
    mask = np.random.default_rng(seed).random(shape) < density
    labels = np.asarray(np.where(mask, 7, 0), order="F" if fortran else "C")
    components, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    expected = mask.copy()
    for number in range(1, components.max() + 1):
        expected |= ndimage.binary_fill_holes(components == number)
    cleaned = rules(canal=Cleanup(fill_holes=True)).apply(labels, SPACING).labels
    np.testing.assert_array_equal(cleaned == 7, expected)


def test_of_two_largest_components_the_first_stays():
    labels = np.zeros(SHAPE, dtype=np.int32, order="F")
    labels[5, 3, 2], labels[2, 9, 9] = 7, 7
    cleaned = rules(canal=Cleanup(keep_largest=True)).apply(labels, SPACING).labels
    assert np.argwhere(cleaned).tolist() == [[2, 9, 9]]


def test_arrays_that_must_not_be_written_to_are_taken():
    """As those of image files are."""
    labels = reference()
    labels.setflags(write=False)
    rule = rules(vertebra=Cleanup(fill_holes=True, keep_largest=True))
    assert np.count_nonzero(rule.apply(labels, SPACING).labels == 300) == np.count_nonzero(labels == 300) / 2
