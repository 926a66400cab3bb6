"""The files of an evaluation: its scores, what is called what, and the statistics of the label maps."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

import pandas as pd

from autospine.evaluation.metrics import DEFAULT_METRICS, Metric
from autospine.evaluation.naming import write_confusion
from autospine.evaluation.score_description import describe_evaluation
from autospine.evaluation.scores import Evaluation, Scores, Spread
from autospine.evaluation.statistics_files import add_statistics
from autospine.storage.atomic import replacing
from autospine.storage.serialization import write_json
from autospine.storage.spreadsheet import as_text

CSV = "evaluation.csv"
MEANS_CSV = "evaluation_means.csv"
JSON = "evaluation.json"

MEANS_COLUMNS = (
    *("group", "name", "of", "class", "metric"),
    *("n_cases", "mean", "low", "high", "sd", "worst", "worst_case"),
)
"""Columns of the table of means."""


def table_columns(metrics: Sequence[Metric] = DEFAULT_METRICS) -> tuple[str, ...]:
    """Return the columns of the long table: the case, the class, each metric, and the numbers of voxels."""
    return (
        *("case", "modality", "site", "class"),
        *(metric.name for metric in metrics),
        *("tp", "fp", "fn"),
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write the files of an evaluation.

    `evaluation.csv` has a row per case and class, `evaluation_means.csv` a row per mean, `evaluation.json`
    both, and `confusion.csv` what is called what.

    Statistics of the predictions, if they were measured, are added to those that the folder has.

    Undefined values are empty cells in the CSV and null in the JSON. Names that a spreadsheet would take for
    formulas have an apostrophe before them in the CSV. Each file is either complete or unchanged.

    Raises:
        FormatError: If the folder has statistics that are damaged, of another version or something else.
    """
    add_statistics(folder, {case.case: case.statistics for case in evaluation.cases if case.statistics})
    for name, table in ((CSV, long_table(evaluation)), (MEANS_CSV, means_table(evaluation))):
        with replacing(folder / name) as temporary:
            table.map(as_text).to_csv(temporary, index=False)
    write_confusion(evaluation.namings, folder)
    write_json(folder / JSON, {**describe_evaluation(evaluation), "compared": _compared(evaluation)})


def _compared(evaluation: Evaluation) -> dict[str, object] | None:
    """Return the folders that were compared as plain values; scores in models do not name them."""
    if (compared := evaluation.compared) is None:
        return None
    return {
        "predictions": str(compared.predictions.resolve()),
        "references": str(compared.references.resolve()),
        "description": str(compared.description.resolve()),
        "resampled": compared.resampled,
    }


def long_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return one row per case and class; the columns are those of `table_columns`."""
    rows = [
        (case.case, case.modality, case.site, name, *scores.values.values(), *astuple(counts))
        for case in evaluation.cases
        for (name, scores), counts in zip(case.by_class.items(), case.counts, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(table_columns(evaluation.metrics)))


def means_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return one row per mean and metric, with its confidence interval and spread.

    Means are those of all cases and of each modality and site (`group` and `name`): of each class, of the
    mean over the classes, and of all classes taken as one (`of`).
    """
    parts = [
        ("all", None, evaluation),
        *(("modality", name, part) for name, part in evaluation.modality_parts.items()),
        *(("site", name, part) for name, part in evaluation.site_parts.items()),
    ]
    rows = [(group, name, *row) for group, name, part in parts for row in _means(part)]
    return pd.DataFrame(rows, columns=list(MEANS_COLUMNS))


def _means(evaluation: Evaluation) -> Iterator[tuple[object, ...]]:
    total, foreground = evaluation.total, evaluation.foreground
    for metric in evaluation.metrics:
        for name, spread in evaluation.class_spreads(metric).items():
            scores = total.by_class[name]
            yield ("class", name, metric.name, scores.n, *_numbers(scores, metric, spread))
        spread = evaluation.spread(metric)
        yield ("mean", None, metric.name, total.cases, *_numbers(total.mean, metric, spread))
        if foreground is not None:
            spread = evaluation.foreground_spread(metric)
            yield ("foreground", None, metric.name, foreground.n, *_numbers(foreground, metric, spread))


def _numbers(scores: Scores, metric: Metric, spread: Spread) -> tuple[object, ...]:
    return (scores.values[metric.name], *spread.interval, spread.deviation, spread.worst, spread.case)
