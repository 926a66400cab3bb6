"""Standard output, which results go to: as they are, or as tables."""

import shlex
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table

from autospine.system.log import PlainConsole, message

if TYPE_CHECKING:
    from autospine.evaluation.scores import Evaluation


WIDEST = 1000
"""Columns that a table may take where there is no terminal."""


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


def show_evaluation(evaluation: "Evaluation", title: str) -> None:
    """Print the scores per class, modality and case."""
    from autospine.evaluation.tables import evaluation_table

    screen = console()
    width = {"width": screen.width} if screen.is_terminal else {}
    show_table(evaluation_table(evaluation, title=title, **width))


def show_table(table: RenderableType) -> None:
    """Print a table of cases, in a file or a pipe as wide as it needs: no name is broken over lines there."""
    screen = console()
    if not screen.is_terminal:
        screen.width = WIDEST
    screen.print(table)


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
