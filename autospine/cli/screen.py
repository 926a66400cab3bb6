"""Standard output, which results go to: as they are, or as tables."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from autospine.system.log import PlainConsole, message

if TYPE_CHECKING:
    from autospine.evaluation.scores import Evaluation


def say(text: str, style: str | None = None) -> None:
    """Print a line as it is: names and paths may contain what rich would read as markup."""
    console().print(message(text), style=style, markup=False, soft_wrap=True, highlight=False)


def show_evaluation(evaluation: "Evaluation", title: str) -> None:
    """Print the scores per class, modality and case."""
    from autospine.evaluation.tables import evaluation_table

    console().print(evaluation_table(evaluation, title=title))


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
