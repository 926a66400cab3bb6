"""The files of an evaluation: `evaluation.csv` and `evaluation.json`."""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import pandas as pd

from autospine.evaluation.metrics import DEFAULT_METRICS, Metric
from autospine.evaluation.scores import Evaluation, describe_evaluation
from autospine.storage.atomic import replacing
from autospine.storage.serialization import write_json

CSV = "evaluation.csv"
JSON = "evaluation.json"

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of texts that spreadsheets take for formulas."""

COLUMN_NAMES = {"recall": "accuracy"}
"""Columns of metrics that are not the metrics' names."""


def table_columns(metrics: Sequence[Metric] = DEFAULT_METRICS) -> tuple[str, ...]:
    """Return the columns of the long table: the case, the class, each metric, and the numbers of voxels."""
    return (
        *("case", "modality", "site", "class"),
        *(COLUMN_NAMES.get(metric.name, metric.name) for metric in metrics),
        *("tp", "fp", "fn"),
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `evaluation.csv` (one row per case and class) and `evaluation.json` (all the means).

    Undefined values are empty cells in the CSV and null in the JSON. Names that a spreadsheet would take for
    formulas have an apostrophe before them in the CSV. Each file is either complete or unchanged.
    """
    with replacing(folder / CSV) as temporary:
        long_table(evaluation).map(_as_text).to_csv(temporary, index=False)
    write_json(folder / JSON, describe_evaluation(evaluation))


def long_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return one row per case and class; the columns are those of `table_columns`."""
    rows = [
        (case.case, case.modality, case.site, name, *scores.values.values(), *astuple(counts))
        for case in evaluation.cases
        for (name, scores), counts in zip(case.by_class.items(), case.counts, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(table_columns(evaluation.metrics)))


def _as_text(cell: object) -> object:
    """Mark a text that a spreadsheet would run as a formula; numbers stay as they are."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
