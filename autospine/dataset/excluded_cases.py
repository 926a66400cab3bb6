"""`excluded.csv`: training cases that their owner has excluded, without touching their files."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from autospine.core.errors import DatasetError, counted, listed
from autospine.dataset.case_table import table_cells, visibly
from autospine.storage.file_names import read_text, same_name
from autospine.storage.spreadsheet import plain_text, write_table

EXCLUDED = "excluded.csv"
"""Name of the table, in the folder of its dataset."""

EXCLUDED_COLUMNS = ("case", "reason")


def read_excluded(folder: Path) -> dict[str, str]:
    """Return the excluded cases of a dataset and the reason of each; none if there is no table.

    Raises:
        DatasetError: If the file is no such table.
    """
    path = folder / EXCLUDED
    if not os.path.lexists(path):
        return {}
    try:
        head, *rows = table_cells(read_text(path)) or [[]]
    except OSError as error:
        raise DatasetError(f"expected a table in {path}, found {error}; save it as CSV in UTF-8") from None
    if [name.lower() for name in head] not in (["case"], list(EXCLUDED_COLUMNS)):
        raise DatasetError(
            f"expected the columns {', '.join(EXCLUDED_COLUMNS)} in {path}, found "
            f"{', '.join(head) or 'none'}; mend its first line"
        )
    return {plain_text(row[0]): plain_text(", ".join(filter(None, row[1:]))) for row in rows if row[0]}


def left_in(folder: Path, names: Sequence[str], imaged: Collection[str]) -> tuple[set[str], tuple[str, ...]]:
    """Return the cases of a dataset that are not excluded, and what there is to say of those that are.

    Args:
        folder: Folder of the dataset.
        names: Names of its complete training cases.
        imaged: `same_name` of every case that has an image.

    Raises:
        DatasetError: If `excluded.csv` is no such table.
    """
    excluded = {same_name(name): name for name in read_excluded(folder)}
    left_out = [name for name in names if same_name(name) in excluded]
    unknown = [name for key, name in excluded.items() if key not in imaged]
    notes = []
    if left_out:
        notes.append(f"{EXCLUDED} leaves out {counted(len(left_out), 'case')}: {listed(left_out)}")
    if unknown:
        notes.append(f"{listed(list(map(visibly, unknown)))}: in {EXCLUDED} but without image")
    return {*names} - {*left_out}, tuple(notes)


def exclude_cases(folder: Path, cases: Mapping[str, str]) -> tuple[str, ...]:
    """Add cases to the excluded ones of a dataset.

    Args:
        folder: Folder of the dataset.
        cases: Names of the cases, and the reason of each.

    Returns:
        The cases that were not excluded before.
    """
    known = read_excluded(folder)
    names = {same_name(name) for name in known}
    new = {name: reason for name, reason in cases.items() if same_name(name) not in names}
    _write(folder, known | new)
    return tuple(new)


def include_cases(folder: Path, cases: Iterable[str]) -> tuple[str, ...]:
    """Take cases back that were excluded from a dataset.

    Args:
        folder: Folder of the dataset.
        cases: Names of the cases.

    Returns:
        The cases that were excluded before.
    """
    known, names = read_excluded(folder), {same_name(name) for name in cases}
    back = tuple(name for name in known if same_name(name) in names)
    _write(folder, {name: reason for name, reason in known.items() if name not in back})
    return back


def _write(folder: Path, cases: Mapping[str, str]) -> None:
    if not cases:
        (folder / EXCLUDED).unlink(missing_ok=True)
        return
    write_table(folder / EXCLUDED, EXCLUDED_COLUMNS, sorted(cases.items()))
