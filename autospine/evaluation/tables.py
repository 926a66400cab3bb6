"""The table of an evaluation for the screen."""

import math

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autospine.evaluation.overlap import Scores
from autospine.evaluation.scores import Evaluation, Summary

MOST_CASES = 24
"""With more cases than this only the worst are shown."""

WORST_CASES = 12

NAME_WIDTH = 34
LISTED_NAMES = 5


def evaluation_table(evaluation: Evaluation, *, title: str = "") -> RenderableType:
    """Classes and their mean, modalities and sites where there are several, and cases, in 80 columns.

    The mean is that over classes of the mean over cases, and so it is for each modality and site; a
    case's value is the mean over its classes. `n` is the number of cases in which a class occurs, the
    number of cases of a modality or site, and the number of classes of a case.
    """
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    table.add_column("", width=NAME_WIDTH, overflow="ellipsis", no_wrap=True)
    for name in ("Dice", "IoU", "Acc", "n"):
        table.add_column(name, justify="right", width=6)
    total = evaluation.total
    for name, scores in total.by_class.items():
        _row(table, name, scores, scores.n)
    _row(table, "mean", total.mean, total.cases, style="bold")
    _groups(table, "modality", evaluation.by_modality)
    _groups(table, "site", evaluation.by_site)
    _cases(table, evaluation)
    return Group(table, *_notes(evaluation))


def _groups(table: Table, what: str, groups: dict[str, Summary]) -> None:
    if len(groups) < 2:
        return  # it would repeat the mean
    _section(table, what)
    for name, summary in groups.items():
        _row(table, name, summary.mean, summary.cases)


def _cases(table: Table, evaluation: Evaluation) -> None:
    scores = list(evaluation.by_case.items())
    if len(scores) > MOST_CASES:
        _section(table, f"case, the worst {WORST_CASES} of {len(scores)}")
        scores = sorted(scores, key=lambda item: (math.isnan(item[1].dice), item[1].dice))[:WORST_CASES]
    else:
        _section(table, "case")
    for name, score in scores:
        _row(table, name, score, score.n)


def _section(table: Table, title: str) -> None:
    table.add_section()
    table.add_row(Text(title, style="dim"))


def _row(table: Table, name: str, scores: Scores, n: int, style: str = "") -> None:
    values = (_number(value) for value in (scores.dice, scores.iou, scores.accuracy))
    table.add_row(Text(name), *values, str(n), style=style)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _notes(evaluation: Evaluation) -> list[Text]:
    notes = []
    if evaluation.missing:
        notes.append(Text(f"No prediction, in no mean: {_listed(evaluation.missing)}", style="yellow"))
    if evaluation.extra:
        notes.append(Text(f"No reference, not compared: {_listed(evaluation.extra)}", style="dim"))
    return notes


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - LISTED_NAMES
    return ", ".join(names[:LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")
