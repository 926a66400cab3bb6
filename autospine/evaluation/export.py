"""Scores as files: `evaluation.csv` and `evaluation.json`."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from autospine.evaluation.scores import Evaluation, describe
from autospine.storage.atomic import replacing
from autospine.storage.serialization import write_json

CSV = "evaluation.csv"
JSON = "evaluation.json"

COLUMNS = ("case", "modality", "site", "class", "dice", "iou", "accuracy", "tp", "fp", "fn")
"""Columns of the long table."""


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `evaluation.csv` (one row per case and class) and `evaluation.json` (all the means).

    Undefined values are empty cells in the one and null in the other. Each file is written whole or not
    at all.
    """
    with replacing(folder / CSV) as temporary:
        long_table(evaluation).to_csv(temporary, index=False)
    write_json(folder / JSON, describe(evaluation))


def long_table(evaluation: Evaluation) -> pd.DataFrame:
    """One row per case and class; columns as in `COLUMNS`."""
    rows = [
        {
            "case": case.case,
            "modality": case.modality,
            "site": case.site,
            "class": name,
            "dice": counts.dice,
            "iou": counts.iou,
            "accuracy": counts.accuracy,
            **asdict(counts),
        }
        for case in evaluation.cases
        for name, counts in zip(case.classes, case.counts, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
