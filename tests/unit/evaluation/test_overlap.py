import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.core.errors import EvaluationError
from autospine.core.labels import IGNORE_INDEX, LabelSpace, parse_labels
from autospine.evaluation import overlap as overlap_module
from autospine.evaluation.overlap import (
    Counts,
    class_counts,
    confusion_table,
    count_overlap,
    foreground_counts,
    in_class_order,
)

PLAIN = parse_labels({"background": 0, "a": 3, "b": 7})
NESTED = parse_labels({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, [1, 2])


def line(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint8).reshape(1, 1, -1)


def test_counts_of_a_known_pair() -> None:
    a, b = count_overlap(line(1, 1, 1, 0, 2, 0), line(1, 1, 0, 1, 2, 2), PLAIN)
    assert a == Counts(tp=2, fp=1, fn=1)
    assert b == Counts(tp=1, fp=0, fn=1)
    assert (a.dice, a.iou, a.recall) == pytest.approx((4 / 6, 2 / 4, 2 / 3))
    assert (b.dice, b.iou, b.recall) == pytest.approx((2 / 3, 1 / 2, 1 / 2))


def test_a_voxel_of_the_wrong_label_is_found_foreground() -> None:
    """And counts for neither class; what is ignored counts for nothing."""
    confusion = confusion_table(line(1, 2, 2, 0, IGNORE_INDEX, 1), line(1, 1, 0, 2, 2, IGNORE_INDEX), PLAIN)
    np.testing.assert_array_equal(confusion, [[0, 0, 1], [0, 1, 1], [2, 0, 0]])
    assert foreground_counts(confusion) == Counts(tp=2, fp=1, fn=2)
    assert class_counts(confusion, PLAIN) == (Counts(tp=1, fp=0, fn=1), Counts(tp=0, fp=2, fn=2))


def test_rows_and_columns_come_in_the_order_of_the_classes() -> None:
    """Which need not be that of the integers; a voxel of regions has no single name."""
    space = parse_labels({"background": 0, "upper": 9, "lower": 4})
    confusion = confusion_table(line(1, 1, 2, 0), line(2, 2, 2, 1), space)
    np.testing.assert_array_equal(in_class_order(confusion, space), [[0, 0, 0], [0, 1, 2], [1, 0, 0]])
    assert in_class_order(confusion_table(line(1), line(1), NESTED), NESTED) is None


def test_shifted_cube_has_its_analytic_dice() -> None:
    reference = np.zeros((20, 20, 20), dtype=np.uint8)
    reference[5:15, 5:15, 5:15] = 1
    (a, _) = count_overlap(np.roll(reference, 3, axis=0), reference, PLAIN)
    assert a.dice == pytest.approx(0.7)
    assert a.iou == pytest.approx(700 / 1300)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        (line(0, 0), line(0, 0), (math.nan, math.nan, math.nan, 0)),
        (line(1, 0), line(0, 0), (0.0, 0.0, math.nan, 1)),
        (line(0, 0), line(1, 0), (0.0, 0.0, 0.0, 1)),
    ],
)
def test_empty_classes(prediction: np.ndarray, reference: np.ndarray, expected: tuple[float, ...]) -> None:
    counts = count_overlap(prediction, reference, PLAIN)[0]
    assert (counts.dice, counts.iou, counts.recall, counts.occurs) == pytest.approx(expected, nan_ok=True)


def test_ignored_voxels_of_the_reference_count_for_nothing() -> None:
    whole, core = count_overlap(
        line(1, 2, 2, 0, 1), line(1, 2, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX), NESTED
    )
    assert whole == Counts(tp=2, fp=0, fn=0)
    assert core == Counts(tp=1, fp=0, fn=0)


def test_a_prediction_that_ignores_predicts_nothing() -> None:
    whole, _ = count_overlap(line(IGNORE_INDEX, IGNORE_INDEX, 1), line(1, 0, 1), NESTED)
    assert whole == Counts(tp=1, fp=0, fn=1)


def test_regions_overlap() -> None:
    whole, core = count_overlap(line(1, 1, 2, 2, 0), line(1, 2, 2, 0, 2), NESTED)
    assert whole == Counts(tp=3, fp=1, fn=1)
    assert core == Counts(tp=1, fp=1, fn=2)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_agrees_with_boolean_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    choice = np.array([0, 1, 2, IGNORE_INDEX], dtype=np.uint8)
    prediction, reference = rng.choice(choice, (2, 3, 4, 5))
    stated = reference != IGNORE_INDEX
    for index, counts in enumerate(count_overlap(prediction, reference, PLAIN), start=1):
        p, r = (prediction == index)[stated], (reference == index)[stated]
        assert (counts.tp, counts.fp, counts.fn) == ((p & r).sum(), (p & ~r).sum(), (~p & r).sum())


def test_as_many_labels_as_fit_and_several_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap_module, "SLAB_VOXELS", 100)
    labels = parse_labels({f"c{i}": i for i in range(1, 255)})
    reference = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    prediction = reference.copy()
    prediction[reference == 254] = 253
    counts = count_overlap(prediction, reference, labels)
    assert all(c == Counts(tp=1, fp=0, fn=0) for c in counts[:252])
    assert counts[252:] == (Counts(tp=1, fp=1, fn=0), Counts(tp=0, fp=0, fn=1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_any_integer_type(dtype: type) -> None:
    pair = line(1, 2, 0).astype(dtype)
    assert [c.tp for c in count_overlap(pair, pair, PLAIN)] == [1, 1]


@pytest.mark.parametrize("bad", [line(0, 3), line(0, 1).astype(np.int16) - 1, np.full((1, 1, 2), 999)])
def test_refuses_what_is_no_index(bad: np.ndarray) -> None:
    with pytest.raises(EvaluationError, match="stored indices from 0 to 2"):
        count_overlap(bad, line(0, 0), PLAIN)


def test_refuses_shapes_that_differ() -> None:
    with pytest.raises(EvaluationError, match="shape"):
        count_overlap(line(0, 1), line(0, 1, 1), PLAIN)


def test_the_volume_error_is_a_share_of_the_reference() -> None:
    assert Counts(tp=6, fp=1, fn=4).volume_error == 0.3
    assert Counts(tp=6, fp=14, fn=4).volume_error == 1
    assert Counts(tp=0, fp=0, fn=4).volume_error == 1
    assert math.isnan(Counts(tp=0, fp=3, fn=0).volume_error)


def test_perfect_prediction_of_every_label_space() -> None:
    for labels in (PLAIN, NESTED):
        assert isinstance(labels, LabelSpace)
        reference = line(0, 1, 2, 1)
        assert all(c.dice == c.iou == c.recall == 1 for c in count_overlap(reference, reference, labels))
