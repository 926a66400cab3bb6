from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autospine.core.errors import FormatError
from autospine.core.labels import parse_labels
from autospine.evaluation.overlap import count_overlap
from autospine.evaluation.postprocessing import (
    CANDIDATES,
    POSTPROCESSING,
    ClassCleanup,
    Cleanup,
    Postprocessing,
    choose,
    cleaned_counts,
    held_out_counts,
    read_postprocessing,
    try_cleanups,
)
from autospine.storage.serialization import write_json

LABELS = parse_labels({"background": 0, "vertebra": 300, "canal": 7, "ignore": 9})
SPACING = (2.0, 1.0, 1.0)
SHAPE = (20, 16, 16)


def reference() -> np.ndarray:
    """Two vertebrae before a canal, in the integers of the dataset."""
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[2:8, 2:8, 4:12] = 300
    labels[11:17, 2:8, 4:12] = 300
    labels[:, 10:14, 6:10] = 7
    return labels


def with_specks(labels: np.ndarray, integer: int, seed: int) -> np.ndarray:
    """A few stray voxels of an integer at the rim of the volume, where nothing else is."""
    rng = np.random.default_rng(seed)
    spoilt = labels.copy()
    spoilt[rng.choice(np.arange(0, SHAPE[0], 2), 6, replace=False), 15, 0:3] = integer
    return spoilt


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
    return Postprocessing(format_version=1, n_cases=0, classes=classes)


def test_small_components_of_a_class_become_background():
    spoilt = with_specks(with_specks(reference(), 300, 1), 7, 1)
    spoilt[0, 0, 0] = 300
    cleaned = rules(vertebra=Cleanup(least_mm3=30)).apply(spoilt, SPACING)
    expected = np.where((spoilt == 300) & (reference() != 300), 0, spoilt)
    np.testing.assert_array_equal(cleaned, expected)
    assert cleaned.dtype == spoilt.dtype


def test_the_volume_of_a_component_is_in_mm():
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[1:4, 1:4, 1:4] = 7
    rule = rules(canal=Cleanup(least_mm3=30))
    assert rule.apply(labels, (2.0, 1.0, 1.0)).sum() == labels.sum()
    assert rule.apply(labels, (1.0, 1.0, 1.0)).sum() == 0


def test_the_largest_component_stays_corners_included():
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[2, 2, 2] = 7
    labels[10:12, 10, 10] = 7
    cleaned = rules(canal=Cleanup(keep_largest=True)).apply(labels, SPACING)
    assert np.argwhere(cleaned).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]


def test_holes_are_filled_with_background_only():
    labels = reference()
    labels[4, 4, 6] = 0
    labels[5, 5, 7] = 7
    cleaned = rules(vertebra=Cleanup(fill_holes=True)).apply(labels, SPACING)
    assert cleaned[4, 4, 6] == 300
    assert cleaned[5, 5, 7] == 7
    assert np.count_nonzero(cleaned != labels) == 1


def test_the_map_itself_comes_back_where_nothing_is_done():
    labels = reference()
    assert rules().apply(labels, SPACING) is labels


def test_a_map_is_not_changed_in_place():
    spoilt = with_specks(reference(), 7, 2)
    before = spoilt.copy()
    rules(canal=Cleanup(keep_largest=True, fill_holes=True)).apply(spoilt, SPACING)
    np.testing.assert_array_equal(spoilt, before)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.02, 0.6))
def test_what_is_added_up_is_what_the_cleaned_maps_show(seed, density):
    """Of one class, so that no two classes fill the same hole."""
    space = parse_labels({"background": 0, "bone": 3, "ignore": 9})
    rng = np.random.default_rng(seed)
    shape = (7, 8, 9)
    prediction = np.where(rng.random(shape) < density, 3, 0)
    true = rng.choice([0, 3, 9], shape, p=[0.5, 0.4, 0.1])
    spacing = (1.5, 3.0, 3.0)
    for cleanup, counts in zip(CANDIDATES, try_cleanups(prediction, true, space, spacing), strict=True):
        one = ClassCleanup(
            name="bone", integer=3, cleanup=cleanup, n_cases=0, dice_before=None, dice_after=None
        )
        rule = Postprocessing(format_version=1, n_cases=0, classes=(one,))
        cleaned = rule.apply(prediction, spacing)
        assert counts == count_overlap(space.encode(cleaned), space.encode(true), space)


def shells(*integers: int) -> np.ndarray:
    """One in another, from the outside in, with background between them and within."""
    labels = np.zeros((4 * len(integers) + 1,) * 3, dtype=np.int32)
    for depth, integer in enumerate(integers):
        outer, inner = slice(2 * depth, -2 * depth or None), slice(2 * depth + 1, -2 * depth - 1)
        labels[outer, outer, outer] = integer
        labels[inner, inner, inner] = 0
    return labels


@settings(max_examples=50, deadline=None)
@given(
    integers=st.lists(st.sampled_from([300, 7]), min_size=1, max_size=3),
    leaks=st.sampled_from([0.0, 0.005]),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
def test_what_is_added_up_of_a_class_holds_whatever_is_done_to_others(integers, leaks, seed, data):
    """Also where components of several classes enclose the same background."""
    rng = np.random.default_rng(seed)
    prediction = shells(*integers)
    prediction[rng.random(prediction.shape) < leaks] = 0
    true = rng.choice([0, 300, 7, 9], prediction.shape, p=[0.4, 0.3, 0.2, 0.1]).astype(np.int32)
    tried = try_cleanups(prediction, true, LABELS, SPACING)
    chosen = {name: data.draw(st.sampled_from(CANDIDATES)) for name in LABELS.names}
    rule = rules(**chosen)
    cleaned = rule.apply(prediction, SPACING)
    found = count_overlap(LABELS.encode(cleaned), LABELS.encode(true), LABELS)
    assert cleaned_counts(tried, rule) == found


def test_a_hole_belongs_to_the_innermost_of_the_components_around_it():
    labels = shells(300, 7)
    middle, between = (4, 4, 4), (1, 1, 1)
    fill = Cleanup(fill_holes=True)
    for cleanups, expected in (
        ({"vertebra": fill}, (0, 300)),
        ({"canal": fill}, (7, 0)),
        ({"vertebra": fill, "canal": fill}, (7, 300)),
    ):
        cleaned = rules(**cleanups).apply(labels, SPACING)
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
        cleaned = rules(**{name: Cleanup(least_mm3=3)}).apply(labels, (1.0, 1.0, 1.0))
        assert np.count_nonzero(cleaned == integer) == sizes[sizes >= 3].sum()
        np.testing.assert_array_equal(cleaned[labels != integer], labels[labels != integer])
        largest = rules(**{name: Cleanup(keep_largest=True)}).apply(labels, (1.0, 1.0, 1.0))
        assert np.count_nonzero(largest == integer) == sizes.max(initial=0)


def test_cleaning_twice_changes_nothing_more():
    spoilt = with_specks(reference(), 7, 3)
    for cleanup in CANDIDATES:
        rule = rules(canal=cleanup, vertebra=cleanup)
        once = rule.apply(spoilt, SPACING)
        np.testing.assert_array_equal(rule.apply(once, SPACING), once)


def trials(n: int, integer: int = 7):
    return [
        try_cleanups(with_specks(reference(), integer, seed), reference(), LABELS, SPACING)
        for seed in range(n)
    ]


def test_specks_that_every_case_has_are_dropped_and_nothing_else_is():
    vertebra, canal = choose(trials(5), LABELS).classes
    assert vertebra.cleanup == Cleanup()
    assert vertebra.dice_before == vertebra.dice_after == 1
    assert canal.cleanup == Cleanup(least_mm3=30)
    assert canal.dice_before < 0.99
    assert canal.dice_after == 1
    assert (canal.name, canal.integer, canal.n_cases) == ("canal", 7, 5)


def test_a_class_of_several_components_keeps_them():
    """The data say so: two vertebrae of one class."""
    vertebra = choose(trials(5, integer=300), LABELS).classes[0]
    assert not vertebra.cleanup.keep_largest
    assert vertebra.dice_after == 1


def test_what_helps_one_case_only_is_noise():
    clean = try_cleanups(reference(), reference(), LABELS, SPACING)
    assert choose([*trials(1), *[clean] * 9], LABELS).cleaned_classes == ()
    assert choose([*trials(5), *[clean] * 5], LABELS).cleaned_classes == ("canal",)


def test_what_spoils_one_case_is_not_done():
    small = reference()
    small[small == 7] = 0
    small[0:4, 10:12, 6:8] = 7
    right = try_cleanups(small, small, LABELS, SPACING)
    canal = choose([*trials(9), right], LABELS).classes[1]
    assert canal.cleanup == Cleanup(least_mm3=30)
    tiny = np.where(small == 300, 300, 0)
    tiny[0, 10, 6] = 7
    spoils = try_cleanups(tiny, tiny, LABELS, SPACING)
    assert choose([*trials(9), spoils], LABELS).classes[1].cleanup == Cleanup(keep_largest=True)


def test_a_class_that_should_not_be_there_counts_as_found_when_gone():
    absent = np.where(reference() == 7, 0, reference())
    made = [try_cleanups(with_specks(absent, 7, i), absent, LABELS, SPACING) for i in range(5)]
    canal = choose(made, LABELS).classes[1]
    assert (canal.dice_before, canal.dice_after) == (0, 1)


def test_too_few_cases_choose_nothing():
    assert choose(trials(2), LABELS).cleaned_classes == ()
    assert choose([], LABELS).classes[0].dice_before is None


def test_a_fold_is_cleaned_by_what_the_others_choose():
    spoilt = trials(6)
    clean = try_cleanups(reference(), reference(), LABELS, SPACING)
    made = {f"s{i}": trial for i, trial in enumerate(spoilt[:3])} | {f"c{i}": clean for i in range(3)}
    folds = [("s0", "s1", "s2"), ("c0", "c1", "c2")]
    found = held_out_counts(made, folds, LABELS)
    assert set(found) == set(made)
    assert found["s0"][1] == made["s0"][0][1], "the clean fold has no reason to clean"
    chosen = choose(list(made.values())[:3], LABELS)
    assert found["c0"] == cleaned_counts(clean, chosen)


def test_it_is_written_and_read(tmp_path):
    assert read_postprocessing(tmp_path) is None
    chosen = choose(trials(5), LABELS)
    write_json(tmp_path / POSTPROCESSING, chosen)
    assert read_postprocessing(tmp_path) == chosen
    with pytest.raises(FormatError, match=r"format_version 1, found 2; predict with --no-postprocessing"):
        replace(chosen, format_version=2)


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
    cleaned = rules(canal=Cleanup(fill_holes=True)).apply(labels, SPACING)
    np.testing.assert_array_equal(cleaned == 7, expected)


def test_of_two_largest_components_the_first_stays():
    labels = np.zeros(SHAPE, dtype=np.int32, order="F")
    labels[5, 3, 2], labels[2, 9, 9] = 7, 7
    cleaned = rules(canal=Cleanup(keep_largest=True)).apply(labels, SPACING)
    assert np.argwhere(cleaned).tolist() == [[2, 9, 9]]


def test_arrays_that_must_not_be_written_to_are_taken():
    """As those of image files are."""
    labels = reference()
    labels.setflags(write=False)
    rule = rules(vertebra=Cleanup(fill_holes=True, keep_largest=True))
    assert np.count_nonzero(rule.apply(labels, SPACING) == 300) == np.count_nonzero(labels == 300) / 2
    assert try_cleanups(labels, labels, LABELS, SPACING)[0][0].dice == 1
