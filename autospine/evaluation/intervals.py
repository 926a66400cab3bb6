"""Confidence intervals of mean scores, by resampling subjects (bootstrap, Efron and Tibshirani 1993).

Subjects and not cases are drawn, since the cases of a subject resemble each other. The interval is that
between two percentiles of the means of the resamples: it needs no distribution, and stays within a metric's
range.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

CONFIDENCE = 0.95
"""Share of repeated studies whose interval is meant to contain the true mean."""

RESAMPLES = 2000
"""Number of resamples, with which the ends vary by about a twentieth of the interval's width."""

SEED = 0
"""Seed of the resamples: the same scores have the same interval."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    """Lower end; NaN where there is no interval."""

    high: float
    """Upper end; NaN where there is no interval."""


NO_INTERVAL = Interval(math.nan, math.nan)


def mean_interval(values: Float[np.ndarray, "cases classes"], subjects: Sequence[str]) -> Interval:
    """Return the interval of the mean over classes of the mean over cases.

    Args:
        values: Value of each case and class; NaN where it is undefined, which no mean includes.
        subjects: Subject of each case.

    Returns:
        The interval, or NaN if fewer than two subjects have a value.
    """
    occurs = ~np.isnan(values)
    cases = np.flatnonzero(occurs.any(axis=1)).tolist()
    classes = np.flatnonzero(occurs.any(axis=0)).tolist()
    values, occurs = values[np.ix_(cases, classes)], occurs[np.ix_(cases, classes)]
    found, of_case = np.unique([subjects[case] for case in cases], return_inverse=True)
    if found.size < 2:
        return NO_INTERVAL
    sums, counts = np.zeros((2, found.size, len(classes)))
    np.add.at(sums, of_case, np.where(occurs, values, 0))
    np.add.at(counts, of_case, occurs)
    drawn = _draws(found.size)
    drawn_sums, drawn_counts = drawn @ sums, drawn @ counts
    # A class that is in no case of a resample keeps its mean: without it, the mean would be of other classes.
    absent = drawn_counts == 0
    means = (drawn_sums + absent * (sums.sum(axis=0) / counts.sum(axis=0))) / (drawn_counts + absent)
    low, high = np.quantile(means.mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


@lru_cache(maxsize=8)
def _draws(n: int) -> Float[np.ndarray, "resamples n"]:
    """Return how often each of n subjects is in each resample of n."""
    draws = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return draws.astype(np.float64)
