"""Sentences about what is wrong with a prediction, for people who look at its pictures."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Integer

from autospine.core.labels import IGNORE_INDEX
from autospine.core.types import LabelArray
from autospine.report.worst_place import WorstPlace

MOST_FINDINGS = 6
"""Most sentences of a case."""

MISSED = 0.05
"""A class of which a smaller share has any label counts as missed."""

UNLABELLED = 0.3
"""Least share of a class without any label that is mentioned, and of what is called so and is background."""

RENAMED = 0.2
"""Least share of a class with the name of another that is mentioned."""

LEAST_EXTRA = 0.05
"""Least share of all labelled voxels that a class without reference has for it to be mentioned, unless it is
the worst place."""


def describe_worst_place(place: WorstPlace | None, names: Sequence[str]) -> str:
    """Return a sentence about the worst place.

    Args:
        place: The place; None if the maps agree.
        names: Name of each stored index from 1 on.
    """
    if place is None:
        return "prediction and reference agree"
    name = names[place.class_index - 1]
    other = "background" if place.other_index in (0, IGNORE_INDEX) else names[place.other_index - 1]
    mm = f"{place.distance_mm:.0f} mm"
    if place.fault == "missed":
        if place.absent:
            return f"worst place: {name} is nowhere predicted; here it is {other}, {mm} deep"
        return f"worst place: {name} is missed, {mm} from the nearest that is predicted; here it is {other}"
    if place.absent:
        return f"worst place: {name} is predicted and the reference has none; here is {other}, {mm} deep"
    return f"worst place: {name} is predicted {mm} away from any of the reference, which has {other} there"


def find_faults(prediction: LabelArray, reference: LabelArray, names: Sequence[str]) -> tuple[str, ...]:
    """Return sentences about classes that are missed, in whole or part, called others or too many.

    The fault of the largest share of a class comes first; of shares that are alike to 10 %, that of most
    voxels.

    Args:
        prediction: Predicted stored indices (S, P, L).
        reference: Stored indices of the reference (S, P, L); ignored voxels are left out.
        names: Name of each stored index from 1 on.
    """
    table = _pairs(prediction, reference, len(names))
    found = sorted(_faults(table, names), key=lambda fault: (round(fault[0], 1), fault[1]), reverse=True)
    return tuple(text for _, _, text in found[:MOST_FINDINGS])


def _pairs(
    prediction: LabelArray, reference: LabelArray, n: int
) -> Integer[np.ndarray, "reference prediction"]:
    """Count the voxels of each pair of stored indices, the background first."""
    counts = np.zeros((n + 1, n + 1), dtype=np.int64)
    for true, found in zip(reference, prediction, strict=True):  # plane by plane, to hold little
        counted = true != IGNORE_INDEX
        pairs = true[counted].astype(np.int64) * (n + 1) + found[counted]
        counts += np.bincount(pairs, minlength=(n + 1) ** 2).reshape(n + 1, n + 1)
    return counts


def _faults(
    table: Integer[np.ndarray, "reference prediction"], names: Sequence[str]
) -> Iterator[tuple[float, int, str]]:
    """Yield the share of the class that each fault is about, its voxels, and its sentence."""
    labelled = int(table[1:].sum())
    for index, name in enumerate(names, start=1):
        row, total = table[index], int(table[index].sum())
        if total:
            share = 1 - row[0] / total
            if share < MISSED:
                yield 1.0, total, f"{name} is missed: {_percent(share)} of it has any label"
            elif row[0] >= UNLABELLED * total:
                yield row[0] / total, int(row[0]), f"{_percent(row[0] / total)} of {name} has no label"
            if table[0, index] >= UNLABELLED * (called := max(int(table[:, index].sum()), 1)):
                stray = int(table[0, index])
                share = stray / called
                yield share, stray, f"{_percent(share)} of what is called {name} is background"
            for other in np.argsort(row)[::-1].tolist():
                if other not in (0, index) and row[other] >= RENAMED * total:
                    share = row[other] / total
                    yield share, int(row[other]), f"{_percent(share)} of {name} is called {names[other - 1]}"
        elif (extra := int(table[:, index].sum())) > LEAST_EXTRA * labelled:
            yield 1.0, extra, f"{name} is predicted, and the reference has none"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
