import math

import numpy as np
import pytest

from autospine.evaluation.paired_tests import corrected, wilcoxon_p


def test_six_cases_that_all_gain_are_as_sure_as_six_heads():
    """2 / 2**6: all signs alike, of either kind."""
    gains = np.asarray([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    assert wilcoxon_p(gains) == wilcoxon_p(-gains) == pytest.approx(2 / 2**6)


def test_equal_and_absent_values_say_nothing():
    gains = np.asarray([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    assert wilcoxon_p(np.append(gains, [math.nan, 0, 0])) == wilcoxon_p(gains)
    assert wilcoxon_p(np.zeros(4)) == 1
    assert math.isnan(wilcoxon_p(np.full(3, math.nan)))


def test_the_rank_sum_decides():
    """Of 1, 2, 3 and -4 the sums are 6 and 4; 7 of 16 signs give 4 or less."""
    assert wilcoxon_p(np.asarray([1.0, 2.0, 3.0, -4.0])) == pytest.approx(2 * 7 / 16)


def test_holm_corrects_the_smallest_value_most():
    """The example of three tests: 0.01 by 3, 0.03 by 2, 0.04 by 1, and never less than the one before."""
    assert corrected([0.04, 0.01, 0.03]) == pytest.approx((0.06, 0.03, 0.06))
    assert corrected([0.5, math.nan, 0.6])[0] == 1
    assert corrected([0.02]) == (0.02,)
    assert corrected([]) == ()


def test_absent_tests_do_not_count():
    first, absent, second = corrected([0.02, math.nan, 0.5])
    assert (first, second) == pytest.approx((0.04, 0.5))
    assert math.isnan(absent)
