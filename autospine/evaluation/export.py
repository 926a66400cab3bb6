"""The files of an evaluation: its scores, what is called what, and the statistics of the label maps."""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import pandas as pd

from autospine.evaluation.metrics import DEFAULT_METRICS, Metric
from autospine.evaluation.naming import write_confusion
from autospine.evaluation.scores import Evaluation, describe_evaluation
from autospine.evaluation.statistics_files import add_statistics
from autospine.storage.atomic import replacing
from autospine.storage.serialization import write_json
from autospine.storage.spreadsheet import as_text

CSV = "evaluation.csv"
JSON = "evaluation.json"


def table_columns(metrics: Sequence[Metric] = DEFAULT_METRICS) -> tuple[str, ...]:
    """Return the columns of the long table: the case, the class, each metric, and the numbers of voxels."""
    return (
        *("case", "modality", "site", "class"),
        *(metric.name for metric in metrics),
        *("tp", "fp", "fn"),
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `evaluation.csv` (a row per case and class), `evaluation.json` (the means) and `confusion.csv`.

    Statistics of the predictions, if they were measured, are added to those that the folder has.

    Undefined values are empty cells in the CSV and null in the JSON. Names that a spreadsheet would take for
    formulas have an apostrophe before them in the CSV. Each file is either complete or unchanged.

    Raises:
        FormatError: If the folder has statistics that are damaged, of another version or something else.
    """
    add_statistics(folder, {case.case: case.statistics for case in evaluation.cases if case.statistics})
    with replacing(folder / CSV) as temporary:
        long_table(evaluation).map(as_text).to_csv(temporary, index=False)
    write_confusion(evaluation.namings, folder)
    write_json(folder / JSON, describe_evaluation(evaluation))


def long_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return one row per case and class; the columns are those of `table_columns`."""
    rows = [
        (case.case, case.modality, case.site, name, *scores.values.values(), *astuple(counts))
        for case in evaluation.cases
        for (name, scores), counts in zip(case.by_class.items(), case.counts, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(table_columns(evaluation.metrics)))
