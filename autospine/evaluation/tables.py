"""The table of an evaluation on the screen."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autospine.core.errors import listed
from autospine.evaluation.intervals import CONFIDENCE
from autospine.evaluation.metrics import Metric
from autospine.evaluation.scores import Evaluation, Scores, Spread

MOST_CASES = 24
"""With more cases than this only the worst are shown."""

WORST_CASES = 12

WIDTH = 80
"""Columns of a terminal that the table fits into where nothing else is known."""

NAME_WIDTHS = (10, 19, 34)
"""Width of the column of names: the least of all, the least beside columns that can do without, the most."""

CASE_WIDTHS = (8, 24)
"""Least and most width of the column of worst cases."""

NUMBER_WIDTHS = (5, 7)
"""Least width of a column of shares, and of other numbers."""

INTERVAL = f"{100 * CONFIDENCE:g} % CI"
"""Heading of the column of confidence intervals."""

INTERVAL_WIDTHS = (9, 11)
"""Width of it for shares, and for other numbers."""

LISTED_NAMES = 5

LEAST_CONFUSION = 0.05
"""Share of what was found of a class that has to be called another one for a line below the table."""

LISTED_CONFUSIONS = 8


class _ScoreRow(NamedTuple):
    """Content of a row; without scores it is an empty row with a heading."""

    name: str
    scores: Scores | None = None
    n_cases: int | None = None
    spread: Spread | None = None
    """Spread of the first metric."""

    style: str = ""


class _ScoreColumn(NamedTuple):
    """A column of the table."""

    heading: str
    width: int
    cell: Callable[[_ScoreRow], str]
    words: bool = False
    """Whether it has words, and not numbers."""


class ScoreTable(NamedTuple):
    """The table of an evaluation, as far as the terminal has room."""

    shown: RenderableType
    """The table and the notes below it."""

    left_out: tuple[str, ...]
    """Headings of the columns that had no room."""


def evaluation_table(evaluation: Evaluation, *, title: str = "", width: int = WIDTH) -> ScoreTable:
    """Return the scores of classes, their mean, modalities and sites where there are several, and cases.

    The mean is that over classes of the mean over cases, and so it is for each modality and site. The
    foreground is all classes taken as one. The value of a case is the mean over its classes. `95 % CI` is the
    confidence interval of the mean, and `SD`, `worst` and `worst case` are the standard deviation over the
    cases, the worst value and its case, of the first metric. `cases` is the number of cases in which a class
    occurs, and that of a modality or site.

    Args:
        evaluation: The scores.
        title: Title of the table.
        width: Columns of the terminal. Where it is narrow, the standard deviations are left out first, then
            the names of the worst cases, metrics but the first, the worst values, the intervals, and `cases`.
    """
    rows = _rows(evaluation)
    whole, columns = _columns(evaluation, rows, width)
    taken = 2 + sum(column.width + 2 for column in columns)
    least, _, most = NAME_WIDTHS
    longest = max(len(row.name) for row in rows)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    names = max(least, min(longest, most, width - taken))
    table.add_column("", width=names, overflow="ellipsis", no_wrap=True)
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.words else "right"
        table.add_column(column.heading, justify=justify, width=column.width, no_wrap=True)
    for row in rows:
        if row.scores is None:
            table.add_section()
            table.add_row(Text(row.name, style="dim"))
        else:
            table.add_row(Text(row.name), *(column.cell(row) for column in columns), style=row.style)
    shown = {column.heading for column in columns}
    left_out = tuple(heading for heading in whole if heading not in shown)
    return ScoreTable(Group(table, *_notes(evaluation)), left_out)


def _rows(evaluation: Evaluation) -> list[_ScoreRow]:
    total, first = evaluation.total, evaluation.metrics[0]
    spreads, foreground = evaluation.class_spreads(first), evaluation.foreground
    rows = [_ScoreRow(name, scores, scores.n, spreads[name]) for name, scores in total.by_class.items()]
    rows.append(_ScoreRow("mean", total.mean, total.cases, evaluation.spread(first), "bold"))
    if foreground is not None:
        rows.append(_ScoreRow("foreground", foreground, foreground.n, evaluation.foreground_spread(first)))
    return [
        *rows,
        *_groups("modality", evaluation.modality_parts),
        *_groups("site", evaluation.site_parts),
        *_cases(evaluation),
    ]


def _columns(
    evaluation: Evaluation, rows: Sequence[_ScoreRow], width: int
) -> tuple[list[str], list[_ScoreColumn]]:
    """Return the headings of all columns, and those columns that fit beside the names.

    The spread stays longer than the later metrics, which are in the files.
    """
    metrics = [_metric_column(metric) for metric in evaluation.metrics]
    first = evaluation.metrics[0]
    number = _number_width(first)
    interval = _interval_column(first)
    deviation = _ScoreColumn(
        "SD", number, lambda row: "" if row.spread is None else _number(row.spread.deviation)
    )
    worst = _ScoreColumn("worst", number, lambda row: "" if row.spread is None else _number(row.spread.worst))
    least, most = CASE_WIDTHS
    longest = max((len(row.spread.case or "") for row in rows if row.spread is not None), default=0)
    number_of_cases = _ScoreColumn(
        "cases",
        max(len("cases"), len(str(len(evaluation.cases)))),
        lambda row: "" if row.n_cases is None else str(row.n_cases),
    )

    def fits(names: int, *columns: _ScoreColumn) -> bool:
        return 2 + names + sum(column.width + 2 for column in columns) <= width

    whole = [metrics[0], interval, deviation, worst, *metrics[1:], number_of_cases]
    headings = [*(column.heading for column in whole), "worst case"]
    narrower = [column for column in whole if column is not deviation]
    for columns in (whole, narrower):
        for case_width in range(min(most, max(longest, len("worst case"))), least - 1, -1):
            cases = _case_column(case_width)
            if fits(NAME_WIDTHS[1], *columns, cases):
                return headings, [*columns, cases]
    if fits(NAME_WIDTHS[1], *narrower):
        return headings, narrower
    choices = [
        *(
            [metrics[0], interval, worst, *metrics[1:count], number_of_cases]
            for count in range(len(metrics), 0, -1)
        ),
        [metrics[0], interval, number_of_cases],
        [metrics[0], number_of_cases],
    ]
    fitting = (columns for columns in choices if fits(NAME_WIDTHS[0], *columns))
    return headings, next(fitting, metrics[:1])


def _metric_column(metric: Metric) -> _ScoreColumn:
    heading = f"{metric.title} {metric.unit}".rstrip()
    return _ScoreColumn(
        heading,
        max(len(heading), _number_width(metric)),
        lambda row: "" if row.scores is None else _number(row.scores.values[metric.name]),
    )


def _interval_column(metric: Metric) -> _ScoreColumn:
    """Return the column of confidence intervals, whose ends have a digit less than the mean."""
    share = metric.range[1] <= 1

    def ends(row: _ScoreRow) -> str:
        """Return the ends of the row's interval; nothing where there is none."""
        if row.spread is None:
            return ""
        low, high = row.spread.interval
        if math.isnan(low):
            return "–"
        return f"{low:.2f}–{high:.2f}" if share else f"{low:.1f}–{high:.1f}"

    return _ScoreColumn(INTERVAL, INTERVAL_WIDTHS[0] if share else INTERVAL_WIDTHS[1], ends)


def _number_width(metric: Metric) -> int:
    share, other = NUMBER_WIDTHS
    return share if metric.range[1] <= 1 else other


def _case_column(width: int) -> _ScoreColumn:
    """Return the column of worst cases, whose names mostly differ at their ends."""

    def name(row: _ScoreRow) -> str:
        whole = "" if row.spread is None else row.spread.case or ""
        return whole if len(whole) <= width else f"…{whole[1 - width :]}"

    return _ScoreColumn("worst case", width, name, words=True)


def _groups(heading: str, parts: Mapping[str, Evaluation]) -> list[_ScoreRow]:
    if len(parts) < 2:
        return []  # it would repeat the mean
    rows = [
        _ScoreRow(name, part.total.mean, part.total.cases, part.spread(part.metrics[0]))
        for name, part in parts.items()
    ]
    return [_ScoreRow(heading), *rows]


def _cases(evaluation: Evaluation) -> list[_ScoreRow]:
    heading, scores = "case", list(evaluation.by_case.items())
    if len(scores) > MOST_CASES:
        heading = f"worst {WORST_CASES} of {len(scores)}"
        first = evaluation.metrics[0]
        scores = sorted(scores, key=lambda item: _badness(item[1], first))[:WORST_CASES]
    return [_ScoreRow(heading), *(_ScoreRow(name, score) for name, score in scores)]


def _badness(scores: Scores, metric: Metric) -> tuple[bool, float]:
    """Sort the worst first and the undefined last."""
    value = scores.values[metric.name]
    return math.isnan(value), value if metric.higher_is_better else -value


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _notes(evaluation: Evaluation) -> list[Text]:
    notes = [Text(line) for line in _confusions(evaluation)]
    if evaluation.missing:
        missing = listed(evaluation.missing, LISTED_NAMES)
        notes.append(Text(f"No prediction, in no mean: {missing}", style="yellow"))
    if evaluation.failed:
        failed = listed(list(evaluation.failed), LISTED_NAMES)
        notes.append(Text(f"Could not be compared, in no mean: {failed}", style="yellow"))
    if evaluation.extra:
        extra = listed(evaluation.extra, LISTED_NAMES)
        notes.append(Text(f"No reference, not compared: {extra}", style="dim"))
    return notes


def _confusions(evaluation: Evaluation) -> list[str]:
    """Say which classes are called others, the largest share of what was found of a class first."""
    pairs = [
        (share, each, other)
        for each in evaluation.namings
        for other, share in each.shares_of_found.items()
        if other != each.name and share > LEAST_CONFUSION
    ]
    pairs.sort(key=lambda pair: -pair[0])
    lines = [
        f"of {each.name} {_percent(each.found)} was found, of which {_percent(share)} is called {other}"
        for share, each, other in pairs[:LISTED_CONFUSIONS]
    ]
    if more := pairs[LISTED_CONFUSIONS:]:
        lines.append(f"and {len(more)} more pairs of classes above {_percent(LEAST_CONFUSION)}")
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 else "less than 1 %"
