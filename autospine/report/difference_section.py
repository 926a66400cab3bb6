"""The part of a report that compares an evaluation with another one of the same references."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from autospine.core.errors import AutospineError, EvaluationError
from autospine.evaluation.metrics import find_metrics
from autospine.evaluation.paired_tests import SIGNIFICANT
from autospine.report.charts import ChartInterval, difference_plot
from autospine.report.report_content import Fact, Guide, ReportFigure, ReportSection, ReportTable
from autospine.report.result_folder import SCORES, number
from autospine.report.result_sections import UNKNOWN
from autospine.report.stored_shapes import StoredDifference, StoredDifferences
from autospine.storage.serialization import read_json
from autospine.system.log import get_logger

logger = get_logger(__name__)

DIFFERENCES = "comparison.json"
"""File of the differences, which `autospine evaluate --against` writes."""

GUIDE = Guide(
    shown="For each class, and for the mean over the classes: the score less that of the other predictions, "
    "and the confidence interval of 95 % over subjects.",
    good="Intervals that lie on one side of 0: this difference is shown, the others may be chance.",
    action="Which side is better depends on the metric: Dice right of 0, distances left of it. Decide by "
    f"the mean, and look at classes whose corrected p is below {SIGNIFICANT}.",
)


def difference_sections(folder: Path) -> Iterator[ReportSection]:
    """Yield the comparison with another evaluation that lies in a folder, if one does."""
    path, scores = folder / DIFFERENCES, folder / SCORES
    if not path.is_file() or not scores.is_file():
        return
    if path.stat().st_mtime_ns < scores.stat().st_mtime_ns:
        note = (
            f"{path} is older than the scores, so that its differences may be those of earlier ones: run "
            "`autospine evaluate` with --against again."
        )
        yield ReportSection(key="against", title="Comparison", notes=(note,))
        return
    try:
        content = read_json(path, StoredDifferences)
        rows = content["differences"]
        metrics = list(dict.fromkeys(row["metric"] for row in rows))
        yield ReportSection(
            key="against",
            title="Comparison",
            facts=(Fact(name="compared with", value=content["other"]),),
            figures=tuple(_figure(metric, rows) for metric in metrics),
            tables=(_table(rows),),
        )
    except AutospineError as error:
        logger.warning("the report leaves the comparison out: %s", error)


def _figure(metric: str, rows: Sequence[StoredDifference]) -> ReportFigure:
    intervals = {
        _name(row): ChartInterval(*(number(row.get(key)) for key in ("difference", "low", "high")))
        for row in rows
        if row["metric"] == metric
    }
    title = f"Difference in {_title(metric)}"
    return ReportFigure(title=title, svg=difference_plot(intervals, title=title), guide=GUIDE)


def _table(rows: Sequence[StoredDifference]) -> ReportTable:
    columns = ("class", "metric", "here", "other", "difference", "95 % CI", "p", "corrected p", "subjects")
    cells = [
        (
            _name(row),
            _title(row["metric"]),
            *(_text(row.get(key)) for key in ("value", "other")),
            _text(row.get("difference"), "+.3f"),
            UNKNOWN
            if math.isnan(low := number(row.get("low")))
            else f"{low:+.3f} to {number(row.get('high')):+.3f}",
            *(_text(row.get(key)) for key in ("p", "p_corrected")),
            str(row.get("n_subjects", "")),
        )
        for row in rows
    ]
    return ReportTable(
        title="Differences, class by class",
        columns=columns,
        rows=tuple(cells),
        numeric=tuple(range(2, len(columns))),
    )


def _title(metric: str) -> str:
    """Return the title of a metric; its name where it is of a distribution that is not installed any more."""
    try:
        return find_metrics([metric])[0].title
    except EvaluationError:
        return metric


def _name(row: StoredDifference) -> str:
    return str(row.get("class_name") or "mean over the classes")


def _text(value: object, form: str = ".3f") -> str:
    found = number(value)
    return UNKNOWN if math.isnan(found) else f"{found:{form}}"
