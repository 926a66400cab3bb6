"""`cases.csv`: modality, site and subject of each case, stated by the owner of a dataset."""

import csv
import io
import os
from collections import Counter
from pathlib import Path

from autospine.core.errors import DatasetError
from autospine.storage.file_names import read_text, same_name

CASE_COLUMNS = ("case", "modality", "site", "subject")
"""Columns of `cases.csv`; all but the first may be left out."""


def read_case_table(path: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Read `cases.csv`, if it exists.

    Returns:
        The rows by `same_name` of the case, each from column to text, and what is wrong with them.

    Raises:
        DatasetError: If the file is no table, or has other columns.
    """
    if not os.path.lexists(path):
        return {}, []
    try:
        text = read_text(path)
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
        columns = tuple(table.fieldnames or ())
        rows = [{key: (row[key] or "").strip() for key in columns} for row in table]
    except (OSError, csv.Error) as error:
        raise DatasetError(f"expected a table in {path}, found {error}; save it as CSV in UTF-8") from None
    if "case" not in columns or not set(columns) <= set(CASE_COLUMNS):
        raise DatasetError(
            f"expected the columns {', '.join(CASE_COLUMNS)} (all but `case` may be left out) in {path}, "
            f"found {', '.join(map(str, columns)) or 'none'}; mend its first line"
        )
    rows = [row for row in rows if any(row.values())]  # spreadsheets leave empty ones behind
    faults = [
        f"row {index} of cases.csv has no case: {', '.join(filter(None, row.values()))}; name it"
        for index, row in enumerate(rows, start=1)
        if not row["case"]
    ]
    rows = [row for row in rows if row["case"]]
    faults += [
        f"{row['case']}: modality {row['modality']!r} in cases.csv is neither CT nor MR; write either"
        for row in rows
        if row.get("modality", "").upper() not in ("CT", "MR", "")
    ]
    listed = Counter(same_name(row["case"]) for row in rows)
    faults += [
        f"{name}: {n} times in cases.csv; leave one of its rows" for name, n in listed.items() if n > 1
    ]
    return {same_name(row["case"]): row for row in rows}, faults


def _delimiter(text: str) -> str:
    """Return what separates columns: spreadsheets write semicolons where a comma separates decimals."""
    head = text.partition("\n")[0]
    return ";" if ";" in head and "," not in head else ","
