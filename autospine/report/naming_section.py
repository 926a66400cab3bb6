"""The part of a report that is about the names of vertebrae: their confidence, and whether that is right."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from autospine.core.errors import counted
from autospine.report.charts import ChartPoint, reliability_plot, strip_plot
from autospine.report.report_content import (
    Fact,
    Guide,
    NamedVertebra,
    ReportCase,
    ReportFigure,
    ReportSection,
)
from autospine.vertebrae.levels import INDEX

BINS = (0.0, 0.5, 0.7, 0.9, 0.99, 1.0)
"""Ends of the ranges of confidence in which names are counted."""

Placed = tuple[int, ReportCase, NamedVertebra]
"""A vertebra with its case, and the position of that in the report."""


def naming_section(cases: Sequence[ReportCase]) -> ReportSection | None:
    """Return how sure the names of vertebrae are, and how often they are right; None if there are none."""
    placed = [(i, case, each) for i, case in enumerate(cases) for each in case.vertebrae]
    if not placed:
        return None
    unknown = sum(not each.known for _, _, each in placed)
    changed = sum(each.known and each.called not in ("", each.level) for _, _, each in placed)
    judged = [entry for entry in placed if entry[2].right is not None]
    facts = [
        Fact(
            name="vertebrae",
            value=f"{len(placed)} in {counted(len({i for i, _, _ in placed}), 'case')}",
        ),
        Fact(name="unknown", value=str(unknown), reason="no level has a probability of 0.5"),
        Fact(name="renamed", value=str(changed), reason="another level than the network called them"),
    ]
    if judged:
        right = sum(each.right is True for _, _, each in judged)
        facts.append(
            Fact(
                name="right",
                value=f"{right} of {len(judged)}, {100 * right / len(judged):.0f} %",
                reason="of those that the reference names",
            )
        )
    return ReportSection(
        key="names",
        title="Names of vertebrae",
        facts=tuple(facts),
        figures=(_by_level(placed), *_judged(judged)),
    )


def _by_level(placed: Sequence[Placed]) -> ReportFigure:
    levels = sorted({each.level for _, _, each in placed}, key=lambda level: INDEX.get(level, len(INDEX)))
    return ReportFigure(
        title="Probability of each level",
        svg=strip_plot(
            {level: [_point(entry) for entry in placed if entry[2].level == level] for level in levels},
            title="Probability of the names of vertebrae, by level",
            high=1.0,
        ),
        guide=Guide(
            shown="A point for each vertebra, in the row of its likeliest level, placed by the probability "
            "of that; the line is the median. A point opens its case.",
            good="Points near 1.",
            action="Open the points left of 0.5, whose level is unknown: most show too little of the spine, "
            "or a label map with holes.",
        ),
    )


def _judged(judged: Sequence[Placed]) -> Iterator[ReportFigure]:
    """Yield the charts of names that the reference judges, if there are any."""
    if not judged:
        return
    rows = {
        "right": [_point(entry) for entry in judged if entry[2].right],
        "wrong": [_point(entry) for entry in judged if not entry[2].right],
    }
    yield ReportFigure(
        title="Probability of right and wrong names",
        svg=strip_plot(rows, title="Probability of right and of wrong names of vertebrae", high=1.0),
        guide=Guide(
            shown="A point for each vertebra that the reference names, placed by the probability of its "
            "name; the line is the median. A point opens its case.",
            good="Wrong names, if any, at the left.",
            action="Open wrong names at the right: they are sure and wrong, mostly by one level throughout a "
            "case. Look for a sixth lumbar vertebra, or one that the label map lacks.",
        ),
    )
    bins = []
    for low, high in pairwise(BINS):
        inside = [e for _, _, e in judged if low <= e.confidence < high or e.confidence == high == 1.0]
        if inside:
            mean = math.fsum(each.confidence for each in inside) / len(inside)
            bins.append((mean, sum(each.right is True for each in inside), len(inside)))
    yield ReportFigure(
        title="Reliability of the names",
        svg=reliability_plot(
            bins,
            title="Share of right names against their probability",
            x_title="probability that naming gives",
            y_title="share that is right",
        ),
        guide=Guide(
            shown="Names of like probability, counted together: how many of them are right. The upright "
            "lines are confidence intervals of 95 %, the slanting one is where probability and share agree.",
            good="Points near the slanting line, or within their intervals of it.",
            action="Points below it: naming is too sure here, so look at all names below 0.99 yourself. "
            "Points above it: it is right more often than it says.",
        ),
    )


def _point(entry: Placed) -> ChartPoint:
    index, case, vertebra = entry
    return ChartPoint(name=f"{case.name} {vertebra.level}", x=vertebra.confidence, case=index)
