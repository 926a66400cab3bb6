"""Tables as CSV that people open in spreadsheets."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from autospine.storage.atomic import replacing

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of texts that spreadsheets take for formulas."""


def as_text(cell: object) -> object:
    """Mark a text that a spreadsheet would run as a formula with an apostrophe; numbers stay as they are."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def plain_text(cell: str) -> str:
    """Return a text without the apostrophe that `as_text` has put before it."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV so that the file is either complete or unchanged; None is an empty cell."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows([as_text(cell) for cell in row] for row in rows)
