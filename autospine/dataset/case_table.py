"""`cases.csv`: modality, site and subject of each case, stated by the owner of a dataset."""

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from autospine.core.errors import DatasetError
from autospine.io.formats import ENDINGS, file_ending
from autospine.storage.atomic import visible
from autospine.storage.file_names import open_file, read_text, same_name

CASE_TABLE = "cases.csv"
"""Name of the table, in the folder of its dataset or beside images to predict."""

CASE_COLUMNS = ("case", "modality", "site", "subject")
"""Columns of `cases.csv`; all but the first may be left out."""

NOT_KNOWN = frozenset(
    {"", "-", "--", "?", "n/a", "#n/a", "na", "n.a.", "nan", "none", "null", "unknown", "missing"}
)
"""Cells that stand for no value, in any capitals: BIDS has `n/a`, pandas `nan`, R `NA`."""

SEPARATORS = ",;\t"
"""Separators of cells: spreadsheets write semicolons where a comma separates decimals, and tabs in
"Unicode text"."""

_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of workbooks of spreadsheets: of today, and of Excel until 2003."""

_ALMOST = re.compile(r"cases(?: ?\(\d+\))?(?:\..*)?", re.IGNORECASE)
"""Names of tables that were meant as `cases.csv`."""

_TEXT_FORMULA = re.compile(r'="(.*)"')
"""Formula that makes spreadsheets keep `001` as text."""

_CHANNEL = re.compile(r"_\d{4}$")


def misnamed_tables(folder: Path) -> list[str]:
    """Return a fault for each file that was meant as `cases.csv` where there is no file of this name."""
    if os.path.lexists(folder / CASE_TABLE):
        return []
    return [
        f"{file.name}: expected the table of cases as cases.csv in {folder}; save it as cases.csv, "
        "or give it another name"
        for file in visible(folder)
        if _ALMOST.fullmatch(file.name.strip()) and not file_ending(file) and not file.is_dir()
    ]


def read_case_table(path: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Read `cases.csv`, if it exists.

    Returns:
        The rows by `same_name` of the case, each from column to text, and what is wrong with them. A cell
        that says that its value is not known (`NOT_KNOWN`) is empty.

    Raises:
        DatasetError: If the file is no table, or has other columns.
    """
    if not os.path.lexists(path):
        return {}, []
    try:
        _refuse_workbook(path)
        table = table_cells(read_text(path))
    except OSError as error:
        raise DatasetError(f"expected a table in {path}, found {error}; save it as CSV in UTF-8") from None
    columns = [name.lower() for name in table[0]] if table else []
    while columns and not columns[-1]:  # spreadsheets leave empty columns behind, too
        columns.pop()
    if "case" not in columns or len({*columns}) < len(columns) or not {*columns} <= {*CASE_COLUMNS}:
        quoted = len(columns) == 1 and any(mark in columns[0] for mark in SEPARATORS)
        raise DatasetError(
            f"expected the columns {', '.join(CASE_COLUMNS)} (all but `case` may be left out) in {path}, "
            f"found {', '.join(map(visibly, table[0])) if columns else 'none'}; "
            + ("remove the quotes around whole lines" if quoted else "mend its first line")
        )
    rows, faults = _rows(table[1:], columns)
    faults += [
        f"{visibly(row['case'])}: modality {row['modality']!r} in cases.csv is neither CT nor MR; "
        "write either"
        for row in rows
        if row.get("modality", "").upper() not in ("CT", "MR", "")
    ]
    listed = Counter(same_name(row["case"]) for row in rows)
    faults += [
        f"{visibly(name)}: {n} times in cases.csv; leave one of its rows"
        for name, n in listed.items()
        if n > 1
    ]
    return {same_name(row["case"]): row for row in rows}, faults


def unknown_cases(names: Iterable[str], cases: Collection[str]) -> list[str]:
    """Say for each of these names in `cases.csv` that it has no image, and what may be meant."""
    names = list(names)
    meant = meant_cases(names, cases)
    return [
        f"{visibly(name)}: in cases.csv but without image; "
        + meant.get(name, "add the image, or remove the row")
        for name in names
    ]


def meant_cases(names: Iterable[str], cases: Collection[str]) -> dict[str, str]:
    """Say which cases somebody may mean by names that are none, and what to write instead.

    Args:
        names: Names of cases in somebody's file.
        cases: Cases that there are.

    Returns:
        What to write, by name; those are left out whose meaning is not clear.
    """
    numbers = {case.lstrip("0"): case for case in cases if case.isdecimal()}
    spelt = {_plain(case): case for case in cases}
    meant = {}
    for name in names:
        ending = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
        stem = name[: len(name) - len(ending)]
        bare = stem if stem in cases else _CHANNEL.sub("", stem)
        if bare != name and bare in cases:
            meant[name] = f"write {bare} alone, without the ending or the channel of a file"
        elif name.isdecimal() and (case := numbers.get(name.lstrip("0"))):
            meant[name] = f"{name} may be {case}: spreadsheets drop leading zeros; write {case} as text"
        elif case := spelt.get(_plain(name)):
            meant[name] = f"write {visibly(case)} as the image has it: capitals and spaces count"
    return meant


def visibly(text: str) -> str:
    r"""Return a text with the characters that nobody sees, such as hard spaces, written as `\xa0`."""
    return "".join(mark if mark == " " or mark.isprintable() else ascii(mark)[1:-1] for mark in text)


def _refuse_workbook(path: Path) -> None:
    with open_file(path) as file:
        if file.read(4) in _WORKBOOKS:
            raise OSError("a workbook of a spreadsheet that was renamed")


def table_cells(text: str) -> list[list[str]]:
    """Return the rows of a table that have a value, each cell without spaces around it.

    Raises:
        OSError: If it is no table.
    """
    lines = text.lstrip("\r\n")
    head, *_ = re.split(r"[\r\n]", lines, maxsplit=1)
    if stated := re.fullmatch(r'"?sep=(.)"?[,;\t ]*', head, re.IGNORECASE):  # Excel's own first line
        lines = lines[len(head) :].lstrip("\r\n")
        separator = stated[1]
    else:
        separator = max(SEPARATORS, key=head.count)
    table = csv.reader(io.StringIO(lines, newline=""), delimiter=separator, strict=True)
    try:
        rows = [[_stripped(cell) for cell in row] for row in table]
    except csv.Error as error:
        raise OSError(f"{error} (line {table.line_num})") from None
    return [row for row in rows if any(row)]


def _rows(table: Sequence[Sequence[str]], columns: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Return the rows that name a case, and what is wrong with rows as such."""
    rows = []
    faults = []
    for index, cells in enumerate(table, start=1):
        row = dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
        for column in set(columns) - {"case"}:
            row[column] = "" if row[column].lower() in NOT_KNOWN else row[column]
        shown = ", ".join(visibly(cell) for cell in cells if cell)
        if any(cells[len(columns) :]):
            faults.append(
                f"row {index} of cases.csv has more cells than columns: {shown}; put quotes around a cell "
                "that has the separator in it"
            )
        elif not row["case"]:
            faults.append(f"row {index} of cases.csv has no case: {shown}; name it")
        elif len(columns) > 1 and shown == visibly(row["case"]) and {*SEPARATORS} & {*shown}:
            faults.append(
                f"row {index} of cases.csv is a single cell: {shown}; remove the quotes around the line, "
                "and separate its cells as in the first line"
            )
        else:
            rows.append(row)
    return rows, faults


def _stripped(cell: str) -> str:
    """Return the text of a cell without what surrounds it, be it visible or not."""
    text = cell
    while text and (text[0].isspace() or unicodedata.category(text[0]) == "Cf"):
        text = text[1:]
    while text and (text[-1].isspace() or unicodedata.category(text[-1]) == "Cf"):
        text = text[:-1]
    formula = _TEXT_FORMULA.fullmatch(text)
    return formula[1] if formula else text


def _plain(name: str) -> str:
    """Return a name without capitals and without what nobody sees."""
    return "".join(mark for mark in same_name(name).casefold() if mark.isprintable() and not mark.isspace())
