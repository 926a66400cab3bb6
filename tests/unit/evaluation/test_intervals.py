import math

import numpy as np
import pytest

from autospine.evaluation.intervals import mean_interval


def column(*values: float) -> np.ndarray:
    return np.asarray(values, dtype=float)[:, np.newaxis]


def names(n: int) -> list[str]:
    return [f"s{i}" for i in range(n)]


def test_two_values_have_the_interval_from_one_to_the_other():
    """A quarter of the resamples has the first value alone, and a quarter the second."""
    assert mean_interval(column(0.2, 0.8), names(2)) == pytest.approx((0.2, 0.8))


def test_of_many_values_it_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(0.8, 0.1, 400)
    low, high = mean_interval(column(*values), names(400))
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=error / 10)
    assert high == pytest.approx(values.mean() + error, abs=error / 10)


def test_equal_values_have_an_interval_without_width():
    assert mean_interval(column(0.5, 0.5, 0.5), names(3)) == (0.5, 0.5)


def test_fewer_than_two_subjects_have_none():
    nan = math.nan
    for values, subjects in (
        (column(), []),
        (column(0.5), ["a"]),
        (column(0.5, nan), ["a", "b"]),
        (column(0.5, 0.7), ["a", "a"]),
    ):
        assert all(math.isnan(end) for end in mean_interval(values, subjects))


def test_cases_of_a_subject_are_drawn_together():
    """Each of two subjects has a good and a bad case, and so the same mean."""
    values = column(0.0, 0.8, 0.8, 0.0)
    assert mean_interval(values, ["a", "a", "b", "b"]) == pytest.approx((0.4, 0.4))
    assert mean_interval(values, names(4)) == pytest.approx((0.0, 0.8))


def test_each_class_counts_the_same():
    """The second class is in two of six cases. A resample without them keeps its mean."""
    values = np.full((6, 3), math.nan)
    values[:, 0] = 1.0
    values[:2, 1] = (0.2, 0.4)
    assert mean_interval(values, names(6)) == pytest.approx((0.6, 0.7))


def test_the_same_scores_have_the_same_interval():
    values = column(*np.random.default_rng(2).random(9))
    assert mean_interval(values, names(9)) == mean_interval(values, names(9))
