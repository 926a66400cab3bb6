"""Standard output, which results go to: as they are, or as tables."""

import math
import shlex
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from autospine.storage.workspace import Workspace
from autospine.system.log import PlainConsole, message

if TYPE_CHECKING:
    from autospine.evaluation.paired_comparison import PairedDifference
    from autospine.evaluation.scores import Evaluation


WIDEST = 1000
"""Characters that a row may take where there is no terminal."""

NARROWEST_NAME = 10
"""Least characters of a column of names, which are broken over lines where there is no room for them."""

BETWEEN = 2
"""Characters between two columns."""

SIZES = "voxels S P L"
"""Name of a column with sizes along the axes."""

AXES = "S, P and L are the axes that grow towards the head, the back and the left"
"""Said once under tables that have sizes along them."""


def say(text: str, style: str | None = None) -> None:
    """Print a line as it is: names and paths may contain what rich would read as markup."""
    console().print(message(text), style=style, markup=False, soft_wrap=True, highlight=False)


def say_next(*words: str, note: str = "") -> None:
    """Print the command that a user may give next, so that a shell takes it as it stands.

    Args:
        words: Words of the command.
        note: What is said after it.
    """
    say(f"next: {shlex.join(('autospine', *words))}{note}")


def say_plan_next(dataset: Path) -> None:
    """Print the command that takes a new dataset, where it lies in the `raw` folder of a workspace."""
    if dataset.parent.name == "raw":
        place = Workspace(root=dataset.parent.parent)
        say_next("plan-and-preprocess", "-d", dataset.name, *place.option)


def show_evaluation(evaluation: "Evaluation", title: str) -> None:
    """Print the scores per class, modality and case."""
    from autospine.evaluation.tables import evaluation_table

    screen = console()
    table = evaluation_table(evaluation, title=title, width=screen.width if screen.is_terminal else WIDEST)
    show_table(table.shown, table.left_out)


def show_differences(differences: Sequence["PairedDifference"], title: str) -> None:
    """Print how two evaluations differ in the first metric, class by class and in the mean."""
    from autospine.evaluation.paired_tests import FEWEST, SIGNIFICANT

    first = [each for each in differences if each.metric == differences[0].metric]
    columns = ("subjects", first[0].metric, "other", "difference", "95 % CI", "p", "p corrected")
    table = table_of("class", *columns)
    table.title, table.title_justify = title, "left"
    for each in first:
        numbers = (_score(each.value), _score(each.other), _score(each.difference, "+.3f"))
        interval = "–" if math.isnan(each.low) else f"{each.low:+.3f} to {each.high:+.3f}"
        tests = (_score(each.p), _score(each.p_corrected))
        style = "bold" if each.p_corrected < SIGNIFICANT else ""
        name = Text(each.class_name or "mean")
        table.add_row(name, str(each.n_subjects), *numbers, interval, *tests, style=style)
    show_table(table)
    if max(each.n_subjects for each in first) < FEWEST:
        say(f"no difference over fewer than {FEWEST} subjects can be significant", "dim")


def _score(value: float, form: str = ".3f") -> str:
    return "–" if math.isnan(value) else format(value, form)


def show_table(table: RenderableType, narrowed: Sequence[str] = ()) -> list[str]:
    """Print a table of cases, in a file or a pipe as wide as it needs: no name is broken over lines there.

    In a terminal that is too narrow, the last columns are left out, and named.

    Args:
        table: The table.
        narrowed: Names of the columns that were left out of it before.

    Returns:
        Names of the columns that were left out.
    """
    screen = console()
    left_out = list(narrowed)
    if not screen.is_terminal:
        screen.width = WIDEST
    elif isinstance(table, Table):
        left_out += leave_out(table, screen.width)
    screen.print(table)
    if left_out:
        say(f"a wider terminal shows: {', '.join(left_out)}", "dim")
    return left_out


def leave_out(table: Table, width: int) -> list[str]:
    """Remove the last columns of a table that have no room, and return their names.

    Numbers are never broken over lines; names may be, down to `NARROWEST_NAME` characters. Names in the first
    columns stay.

    Args:
        table: A table without a frame.
        width: Characters of the terminal.
    """
    kept = max(1, len(list(takewhile(_is_name, table.columns))))
    removed: list[str] = []
    while len(table.columns) > kept and _least_width(table) > width:
        removed.insert(0, str(table.columns.pop().header))
    for column in table.columns:
        column.no_wrap = column.no_wrap or not _is_name(column)
    return removed


def _least_width(table: Table) -> int:
    """Return the characters that a table needs if only its names are broken over lines."""
    widths = [
        min(_longest(column), NARROWEST_NAME) if _is_name(column) else _longest(column)
        for column in table.columns
    ]
    return sum(widths) + BETWEEN * (len(widths) - 1)


def _is_name(column: Column) -> bool:
    """Return whether a column has names, which may be broken over lines."""
    return column.justify == "left" and not column.no_wrap and column.width is None


def _longest(column: Column) -> int:
    """Return the characters of a column's widest cell."""
    if column.width is not None:
        return column.width
    cells = [column.header, *column.cells]
    return max(Text.from_markup(cell).cell_len if isinstance(cell, str) else 0 for cell in cells)


def table_of(*columns: str) -> Table:
    """Make a plain table with words on the left and numbers on the right of their columns."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        long = name in ("case", "site", "median of", "foreground of")
        words = long or name in ("status", "modality", "class")
        table.add_column(name, justify="left" if words else "right", no_wrap=not long, overflow="fold")
    return table


def console() -> Console:
    """Return the console of standard output, which tests, for instance, may have replaced."""
    return PlainConsole()
