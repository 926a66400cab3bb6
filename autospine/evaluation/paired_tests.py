"""Tests of whether two models differ on the same cases, and the correction for several of them."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

SIGNIFICANT = 0.05
"""Corrected p value below which a difference is called significant."""

FEWEST = 6
"""Fewest subjects whose differences can be significant: all of one sign, they have a p value of 2 / 2**6."""


def wilcoxon_p(differences: Float[np.ndarray, " N"]) -> float:
    """Return the two-sided p value of Wilcoxon's signed-rank test, exact for few and untied differences.

    Differences of 0 say nothing of a direction and are left out (Wilcoxon 1945).

    Args:
        differences: Difference of each subject; NaN where there is none.

    Returns:
        The p value: 1 if all are 0, NaN if there are none.
    """
    from scipy.stats import wilcoxon  # it takes a while to import

    known = differences[~np.isnan(differences)]
    if not known.size:
        return math.nan
    if not known.any():
        return 1.0
    return float(wilcoxon(known[known != 0]).pvalue)


def corrected(p_values: Sequence[float]) -> tuple[float, ...]:
    """Correct the p values of several tests by Holm's step-down method (Holm 1979).

    The chance that any of the tests calls equal models different stays below the level of each.

    Args:
        p_values: Values of the tests; NaN where there is none, which does not count as a test.

    Returns:
        The corrected values in the same order, at most 1.
    """
    ranked = sorted((p, position) for position, p in enumerate(p_values) if not math.isnan(p))
    found = [math.nan] * len(p_values)
    least = 0.0
    for rank, (p, position) in enumerate(ranked):
        least = max(least, min(1.0, (len(ranked) - rank) * p))
        found[position] = least
    return tuple(found)
