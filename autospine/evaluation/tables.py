"""The table of an evaluation on the screen."""

import math

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autospine.core.errors import listed
from autospine.core.labels import BACKGROUND
from autospine.evaluation.metrics import Metric
from autospine.evaluation.scores import Evaluation, MeanScores, Scores

MOST_CASES = 24
"""With more cases than this only the worst are shown."""

WORST_CASES = 12

WIDTH = 80
"""Columns of a terminal that the table fits into, unless many metrics leave too few of them for the names."""

NAME_WIDTHS = (16, 34)
"""Least and usual width of the column of names."""

NUMBER_WIDTH = 6
"""Least width of a column of numbers."""

LISTED_NAMES = 5

LEAST_CONFUSION = 0.05
"""Share of a class that has to be called another one for a line below the table."""

LISTED_CONFUSIONS = 8


def evaluation_table(evaluation: Evaluation, *, title: str = "") -> RenderableType:
    """Return the scores of classes, their mean, modalities and sites where there are several, and cases.

    The mean is that over classes of the mean over cases, and so it is for each modality and site. The
    foreground is all classes taken as one. The value of a case is the mean over its classes. `n` is the
    number of cases in which a class occurs, the number of cases of a modality or site, and the number of
    classes of a case.
    """
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    metrics = evaluation.metrics
    widths = [max(NUMBER_WIDTH, len(_heading(metric))) for metric in metrics]
    # Three blanks lie between two columns, and one at each end of a row.
    rest = WIDTH - sum(width + 3 for width in (*widths, NUMBER_WIDTH)) - 2
    least, usual = NAME_WIDTHS
    name_width = max(least, min(usual, rest))
    table.add_column("", width=name_width, overflow="ellipsis", no_wrap=True)
    for metric, width in zip(metrics, widths, strict=True):
        table.add_column(_heading(metric), justify="right", width=width)
    table.add_column("n", justify="right", width=NUMBER_WIDTH)
    total = evaluation.total
    for name, scores in total.by_class.items():
        _row(table, name, scores, scores.n)
    _row(table, "mean", total.mean, total.cases, style="bold")
    if evaluation.foreground is not None:
        _row(table, "foreground", evaluation.foreground, evaluation.foreground.n)
    _groups(table, "modality", evaluation.by_modality)
    _groups(table, "site", evaluation.by_site)
    _cases(table, evaluation)
    return Group(table, *_notes(evaluation))


def _heading(metric: Metric) -> str:
    return f"{metric.title} {metric.unit}".rstrip()


def _groups(table: Table, heading: str, groups: dict[str, MeanScores]) -> None:
    if len(groups) < 2:
        return  # it would repeat the mean
    _section(table, heading)
    for name, group in groups.items():
        _row(table, name, group.mean, group.cases)


def _cases(table: Table, evaluation: Evaluation) -> None:
    scores = list(evaluation.by_case.items())
    if len(scores) > MOST_CASES:
        _section(table, f"case, the worst {WORST_CASES} of {len(scores)}")
        first = evaluation.metrics[0]
        scores = sorted(scores, key=lambda item: _badness(item[1], first))[:WORST_CASES]
    else:
        _section(table, "case")
    for name, score in scores:
        _row(table, name, score, score.n)


def _badness(scores: Scores, metric: Metric) -> tuple[bool, float]:
    """Sort the worst first and the undefined last."""
    value = scores.values[metric.name]
    return math.isnan(value), value if metric.higher_is_better else -value


def _section(table: Table, title: str) -> None:
    table.add_section()
    table.add_row(Text(title, style="dim"))


def _row(table: Table, name: str, scores: Scores, n: int, style: str = "") -> None:
    values = map(_number, scores.values.values())
    table.add_row(Text(name), *values, str(n), style=style)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _notes(evaluation: Evaluation) -> list[Text]:
    notes = [Text(line) for line in _confusions(evaluation)]
    if evaluation.missing:
        missing = listed(evaluation.missing, LISTED_NAMES)
        notes.append(Text(f"No prediction, in no mean: {missing}", style="yellow"))
    if evaluation.extra:
        extra = listed(evaluation.extra, LISTED_NAMES)
        notes.append(Text(f"No reference, not compared: {extra}", style="dim"))
    return notes


def _confusions(evaluation: Evaluation) -> list[str]:
    """Say which classes are called others, the largest share first."""
    pairs = [
        (share, name, other)
        for name, shares in evaluation.confusion_shares.items()
        for other, share in shares.items()
        if other not in (name, BACKGROUND) and share > LEAST_CONFUSION
    ]
    pairs.sort(key=lambda pair: -pair[0])
    lines = [
        f"{100 * share:.0f} % of {name} is called {other}" for share, name, other in pairs[:LISTED_CONFUSIONS]
    ]
    if more := pairs[LISTED_CONFUSIONS:]:
        lines.append(f"and {len(more)} more pairs of classes above {100 * LEAST_CONFUSION:.0f} %")
    return lines
