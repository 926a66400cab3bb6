"""The parts of a report that are about scores, and about the time and memory of predictions."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from autospine.core.errors import listed
from autospine.evaluation.metrics import Metric
from autospine.prediction.case_log import PredictedCase
from autospine.report.charts import ChartPoint, scatter_plot, strip_plot
from autospine.report.report_content import Fact, Guide, ReportCase, ReportFigure, ReportSection, ReportTable
from autospine.report.result_folder import ResultFolder, number

UNKNOWN = "–"
MOST_CONFUSIONS = 20
"""Most rows of the table of names."""

LEARNT = "their scores say nothing about other images"
"""What is to be known of cases that a model has learnt from."""

LEAST_CONFUSION = 0.05
"""Least share of what was found of a class that has another name."""


COST_SHOWN = "A point for each case: the size of its image, and {}. A point opens its case."

COST_CHARTS: tuple[tuple[str, str, Callable[[PredictedCase], float | None], Guide], ...] = (
    (
        "Time against size",
        "seconds",
        lambda entry: entry.seconds,
        Guide(
            shown=COST_SHOWN.format("the time from the image in memory to its labels"),
            good="The points lie near a line: time grows with the size.",
            action="A point far above the others had to share the machine, or ran many tiles; its case "
            "says how many.",
        ),
    ),
    (
        "Memory against size",
        "GB of RAM",
        lambda entry: entry.peak_gb,
        Guide(
            shown=COST_SHOWN.format("the most memory that the process had held until then"),
            good="A level line, or one that grows slowly, below the memory of the machine.",
            action="Points never fall from one case to the next, since a process keeps its peak: the "
            "first point that is high is the case that needed so much.",
        ),
    ),
    (
        "Memory of the GPU against size",
        "GB of the GPU",
        lambda entry: entry.gpu_peak_gb,
        Guide(
            shown=COST_SHOWN.format("the most memory of the GPU that it took"),
            good="A nearly level line, as tiles have one size; it grows where whole images stay there.",
            action="Where it comes near the memory of the card, close other programs that use it.",
        ),
    ),
)
"""Title, title of the vertical axis, value and guide of each chart of what a prediction costs."""


def score_section(
    scores: Mapping[str, Any], cases: Sequence[ReportCase], metrics: Sequence[Metric]
) -> ReportSection:
    """Return the scores of an evaluation or a cross-validation.

    Args:
        scores: Content of `evaluation.json` or `cross_validation.json`.
        cases: Cases of the report.
        metrics: Metrics of the scores, at least one.
    """
    first = metrics[0]
    return ReportSection(
        key="scores",
        title="Scores",
        figures=tuple(_strips(scores, cases, first)),
        tables=(*_mean_tables(scores, metrics), *_name_table(scores)),
        notes=tuple(_score_notes(scores)),
    )


def prediction_section(results: ResultFolder, cases: Sequence[ReportCase]) -> ReportSection | None:
    """Return time and memory of the predictions; None if nothing is known of them."""
    entries = [(i, results.record[case.name]) for i, case in enumerate(cases) if case.name in results.record]
    timed = [(i, entry) for i, entry in entries if entry.seconds is not None and entry.shape is not None]
    if not timed:
        return None
    seconds = [entry.seconds or 0.0 for _, entry in timed]
    return ReportSection(
        key="prediction",
        title="Prediction",
        facts=(
            Fact(name="time of a case", value=f"{min(seconds):.1f} to {max(seconds):.1f} s"),
            Fact(name="time of all", value=f"{sum(seconds):.0f} s"),
            Fact(name="most memory", value=f"{max(entry.peak_gb or 0 for _, entry in timed):.2f} GB"),
        ),
        figures=tuple(_costs(timed)),
    )


def _costs(timed: Sequence[tuple[int, PredictedCase]]) -> Iterator[ReportFigure]:
    """Yield the charts of time and memory against the size of the image, as far as they are known."""
    for title, y_title, value, guide in COST_CHARTS:
        points = [
            ChartPoint(case=i, name=entry.case, x=math.prod(entry.shape or ()) / 1e6, y=number(value(entry)))
            for i, entry in timed
        ]
        if any(math.isfinite(point.y) for point in points):
            svg = scatter_plot(
                points,
                title=f"{title}: {y_title} of each case against the million voxels of its image",
                x_title="million voxels",
                y_title=y_title,
            )
            yield ReportFigure(title=title, svg=svg, guide=guide)


def _strips(scores: Mapping[str, Any], cases: Sequence[ReportCase], metric: Metric) -> Iterator[ReportFigure]:
    low, high = metric.range
    unit = f" {metric.unit}" if metric.unit else ""
    ends: dict[str, float | None] = {
        "low": low if math.isfinite(low) else 0.0,
        "high": high if math.isfinite(high) else None,
    }
    better = "right" if metric.higher_is_better else "left"
    by_class = {
        name: [
            ChartPoint(case=i, name=case.name, x=number(case.scores[name].get(metric.title)))
            for i, case in enumerate(cases)
            if name in case.scores
        ]
        for name in scores.get("classes", {})
    }
    yield ReportFigure(
        title=f"{metric.title} of each class",
        svg=strip_plot(by_class, title=f"{metric.title} of each class in each case", unit=unit, **ends),
        guide=Guide(
            shown=f"A point for each case and class, placed by its {metric.title}; the line is the median. A "
            "point opens its case.",
            good=f"The points of a class lie close together, far to the {better}.",
            action="Open the points at the wrong end first. A whole class at the wrong end is too rare, too "
            "thin or labelled in several ways in the training cases.",
        ),
    )
    groups: dict[str, list[ChartPoint]] = {}
    for i, case in enumerate(cases):
        if case.score is not None:
            name = ", ".join(part for part in (case.site, case.modality) if part) or "unknown"
            groups.setdefault(name, []).append(ChartPoint(case=i, name=case.name, x=case.score))
    yield ReportFigure(
        title=f"{metric.title} of each site and modality",
        svg=strip_plot(
            dict(sorted(groups.items())),
            title=f"Mean {metric.title} of each case by site and modality",
            unit=unit,
            **ends,
        ),
        guide=Guide(
            shown=f"A point for each case, placed by its mean {metric.title} over the classes; the line is "
            "the median. A point opens its case.",
            good="All sites and modalities lie alike.",
            action="A site that lies apart needs cases of its own in the training, or its labels follow "
            "other rules.",
        ),
    )


def _mean_tables(scores: Mapping[str, Any], metrics: Sequence[Metric]) -> Iterator[ReportTable]:
    spread = scores.get("spread") or {}
    columns = ("", "cases", *(title for metric in metrics for title in (metric.title, "95 % CI")))
    groups = [("mean over the classes", scores, (spread.get("mean") or {}), scores.get("n_cases"))]
    foreground = scores.get("foreground")
    if foreground:
        prefixed = {f"mean_{name}": value for name, value in foreground.items()}
        groups.append(("foreground", prefixed, spread.get("foreground") or {}, scores.get("n_cases")))
    for kind in ("modalities", "sites"):
        for name, group in scores.get(kind, {}).items():
            groups.append((name, group, spread.get(kind, {}).get(name, {}), group.get("n_cases")))
    rows = [
        (name, str(n), *_values({m.name: group.get(f"mean_{m.name}") for m in metrics}, spreads, metrics))
        for name, group, spreads, n in groups
    ]
    rows += [
        (
            name,
            str(group.get("n_cases", "")),
            *_values(group, spread.get("classes", {}).get(name, {}), metrics),
        )
        for name, group in scores.get("classes", {}).items()
    ]
    yield ReportTable(
        title="Means with their confidence intervals",
        columns=columns,
        rows=tuple(rows),
        numeric=tuple(range(1, len(columns))),
        guide=Guide(
            shown="Means over the cases, of each class, of all classes taken as one (foreground), and of "
            "each modality and site; beside each the confidence interval of 95 %, over resampled subjects.",
            good="Intervals that are narrow, and means that are alike between modalities and sites.",
            action="Of fewer than about ten subjects the interval is too narrow: evaluate more before you "
            "trust a mean.",
        ),
    )


def _values(
    values: Mapping[str, Any], spreads: Mapping[str, Any], metrics: Sequence[Metric]
) -> Iterator[str]:
    for metric in metrics:
        yield _text(number(values.get(metric.name)))
        interval = (spreads.get(metric.name) or {}).get("interval")
        yield UNKNOWN if not interval else f"{_text(number(interval[0]))} to {_text(number(interval[1]))}"


def _text(value: float) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:.3f}"


def _name_table(scores: Mapping[str, Any]) -> Iterator[ReportTable]:
    """Yield the table of classes that are called others, if there are any."""
    found = [
        (name, other, number(share), number(entry.get("share")))
        for name, entry in (scores.get("found") or {}).items()
        for other, share in (entry.get("called") or {}).items()
        if other != name and number(share) > LEAST_CONFUSION
    ]
    found.sort(key=lambda row: -row[2])
    if not found:
        return
    yield ReportTable(
        title="Confused classes",
        columns=("class", "called", "share of what was found", "found at all"),
        rows=tuple(
            (name, other, f"{100 * share:.0f} %", f"{100 * all_found:.0f} %")
            for name, other, share, all_found in found[:MOST_CONFUSIONS]
        ),
        numeric=(2, 3),
        guide=Guide(
            shown="Classes of whose found voxels more than 5 % have the name of another class, the largest "
            "share first.",
            good="Every class keeps its name: then there is no such table.",
            action="Neighbours that exchange their names show levels that were counted from the wrong end: "
            "`autospine anatomy identify` names them again.",
        ),
    )


def _score_notes(scores: Mapping[str, Any]) -> Iterator[str]:
    if missing := scores.get("missing"):
        yield f"No prediction, in no mean: {listed(missing, 10)}."
    if failed := scores.get("failed"):
        yield f"Could not be compared, in no mean: {listed(list(failed), 10)}."
    if extra := scores.get("extra"):
        yield f"No reference, not compared: {listed(extra, 10)}."
    if learnt := scores.get("training_images"):
        yield f"The model has learnt from {len(learnt)} of these cases ({listed(learnt, 10)}): {LEARNT}."
