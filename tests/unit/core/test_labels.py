import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autospine.core.errors import DatasetError
from autospine.core.labels import IGNORE_INDEX, VERSE, VERTEBRAE, LabelSpace, parse_labels, side_pairs

# Label spaces are made in the tests: the type checker draws random numbers, which strategies may not.
INTEGERS = st.lists(st.integers(-(2**31), 2**40).filter(bool), min_size=1, max_size=8, unique=True)
REGIONS = st.lists(st.integers(1, 300), min_size=1, max_size=6, unique=True)
SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5)


def plain_space(integers, ignore: bool = False) -> LabelSpace:
    named = {f"class {integer}": integer for integer in integers}
    if ignore and len(integers) > 1:
        named["ignore"] = named.pop(f"class {integers[-1]}")
    return parse_labels(named)


def region_space(integers) -> LabelSpace:
    """Nested regions, each painting the integer that it alone adds: they can be decoded exactly."""
    named = {f"region {i}": integers[i:] for i in range(len(integers))}
    return parse_labels(named, regions_class_order=integers)


def labelled(integers):
    return st.tuples(
        st.just(integers), hnp.arrays(np.int64, SHAPES, elements=st.sampled_from([0, *integers]))
    )


@given(INTEGERS.flatmap(labelled), st.booleans())
def test_labels_come_back_as_they_were(case, ignore):
    integers, labels = case
    space = plain_space(integers, ignore)
    indices = space.encode(labels)
    assert indices.dtype == np.uint8
    ignored = labels == space.ignore if space.ignore is not None else np.zeros_like(labels, dtype=bool)
    np.testing.assert_array_equal(indices == IGNORE_INDEX, ignored)
    # Channels follow the order of the names, indices that of the integers.
    channels = space.membership[:, np.where(ignored, 0, indices)].argmax(axis=0)
    np.testing.assert_array_equal(space.decode(channels)[~ignored], labels[~ignored])


@given(REGIONS.flatmap(labelled))
def test_regions_come_back_as_they_were(case):
    integers, labels = case
    space = region_space(integers)
    inside = space.membership[:, space.encode(labels)]
    np.testing.assert_array_equal(space.decode(inside), labels)


def test_later_regions_paint_over_earlier_ones():
    space = parse_labels({"whole": [1, 2], "core": [2]}, regions_class_order=(1, 2))
    both = np.ones((2, 1, 1, 1), dtype=bool)
    assert space.decode(both).item() == 2
    turned = parse_labels({"core": [2], "whole": [1, 2]}, regions_class_order=(2, 1))
    assert turned.decode(both).item() == 1


@given(INTEGERS)
def test_membership_is_one_class_per_index(integers):
    space = plain_space(integers)
    assert space.membership.shape == (space.n_channels, len(space.integers) + 1)
    np.testing.assert_array_equal(space.membership.sum(axis=0), 1)


@given(REGIONS)
def test_background_belongs_to_no_region(integers):
    space = region_space(integers)
    assert space.n_channels == len(space.names)
    assert not space.membership[:, 0].any()
    np.testing.assert_array_equal(space.membership.sum(axis=1), [len(members) for members in space.members])


@given(INTEGERS)
def test_labels_are_written_in_the_smallest_type(integers):
    space = plain_space(integers)
    low, high = min(0, *space.painted), max(space.painted)
    kind = np.iinfo(space.dtype)
    assert kind.min <= low
    assert kind.max >= high
    kinds = (
        (np.uint8, np.uint16, np.uint32, np.uint64) if low == 0 else (np.int8, np.int16, np.int32, np.int64)
    )
    fitting = [k for k in kinds if np.iinfo(k).min <= low and np.iinfo(k).max >= high]
    assert space.dtype == fitting[0]


def test_every_unknown_label_is_named():
    space = parse_labels({"a": 5, "ignore": 9})
    with pytest.raises(DatasetError, match=r"\[0, 5, 9\].*\[-1, 6\]"):
        space.encode(np.array([[[0, 5, 9, 6, -1]]]))


@pytest.mark.parametrize(
    ("described", "order", "message"),
    [
        ({"background": 0}, None, "at least one foreground class"),
        ({"background": 1, "a": 2}, None, "`background` to be 0, found 1"),
        ({"a": 0}, None, "non-zero integer for label 'a'"),
        ({"a": 1, "b": 1}, None, r"different integer for each label, found a = 1, b = 1"),
        ({"a": True}, None, "label 'a', found True"),
        ({"a": "1"}, None, "label 'a', found '1'"),
        ({"a": None}, None, "label 'a', found None"),
        ({"a": 1.5}, None, "label 'a', found 1.5"),
        ({"a": [1, "2"]}, [1], "label 'a', found"),
        ({"a": []}, [1], r"label 'a', found \[\]"),
        ({"a": 1, "ignore": [2]}, None, r"`ignore`.*found \[2\]"),
        ({"a": 1, "ignore": 1}, None, "`ignore`.*found 1"),
        ({"a": 1, "ignore": 0}, None, "`ignore`.*found 0"),
        ({"a": [1, 2]}, None, "`regions_class_order` .* each of the 1 regions, found None"),
        ({"a": [1, 2], "b": [2]}, [1], "each of the 2 regions"),
        ({"a": [1, 2]}, [3], r"`regions_class_order`.*\[1, 2\].*found \[3\]"),
        ({str(i): i for i in range(1, 300)}, None, "fewer than 255 distinct labels, found 299"),
    ],
)
def test_contradictions_are_refused(described, order, message):
    with pytest.raises(DatasetError, match=message):
        parse_labels(described, order)


def test_an_integer_among_regions_is_a_region_of_one():
    space = parse_labels({"whole": [1, 2], "core": 2}, regions_class_order=(1, 2))
    assert space.regions
    assert space.members == ((1, 2), (2,))


def test_vertebrae_stand_in_anatomical_order():
    assert len(VERTEBRAE) == len(set(VERTEBRAE)) == 26
    assert VERTEBRAE.index("T12") + 1 == VERTEBRAE.index("T13") == VERTEBRAE.index("L1") - 1
    assert set(VERTEBRAE) < set(VERSE)
    assert len(set(VERSE.values())) == len(VERSE)
    assert [VERSE[name] for name in ("C1", "C7", "T1", "T12", "L1", "L6", "T13")] == [1, 7, 8, 19, 20, 25, 28]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("hip left", "hip right"),
        ("rib_left_4", "rib_right_4"),
        ("Left Kidney", "Right Kidney"),
        ("hipLeft", "hipRight"),
        ("LEFT-SCAPULA", "RIGHT-SCAPULA"),
        ("hip_l", "hip_r"),
        ("hip.L", "hip.R"),
    ],
)
def test_sides_are_paired_by_name(left, right):
    assert side_pairs(["canal", right, "L5", left]) == (((3, 1),), ())


def test_sides_without_a_counterpart_are_named():
    assert side_pairs(["rib left 4", "rib right 5"]) == ((), (0, 1))


def test_letters_alone_and_parts_of_words_are_no_sides():
    assert side_pairs(["part_l", "L", "R", "L5", "cleft", "bright spot", "hip_l2", "hip_r3"]) == ((), ())


def test_a_pair_needs_the_same_name_but_not_the_same_case():
    assert side_pairs(["Hip left", "hip RIGHT", "hip_r"]).pairs == ((0, 1),)
