"""The parts of a report that are about the training of a model: learning curves, mechanisms and monitors."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autospine.core.errors import FormatError
from autospine.plan import TrainingPlan
from autospine.report.charts import line_chart
from autospine.report.report_content import Fact, Guide, ReportFigure, ReportSection, ReportTable
from autospine.report.result_folder import number
from autospine.storage.file_names import read_text
from autospine.storage.serialization import parse_json
from autospine.storage.trained_models import fold_folder, fold_names, unfinished_folds
from autospine.system.log import get_logger

logger = get_logger(__name__)

METRICS_LOG = "metrics.jsonl"
"""File in the folder of a fold with one row per epoch."""

LARGEST_LOG = 2**26
"""Most bytes of a log that is drawn: some ten thousand epochs."""

MOST_POINTS = 600
"""Most points of a line; of more epochs every other one is left out, or more."""

LogRow = Mapping[str, Any]
Logs = Mapping[str, Sequence[LogRow]]
"""Rows of each fold's log by the name of the fold."""

LEARNING_GUIDES = {
    "loss": Guide(
        shown="The loss of each fold after every epoch.",
        good="All folds fall together, fast at first, and level off.",
        action="A loss that rises or jumps points to a learning rate that is too high, or to wrong labels; a "
        "fold that lies apart learns from other cases than the rest: look at its held-out cases.",
    ),
    "held_out": Guide(
        shown="The mean Dice of each fold in tiles of its held-out cases, which it does not learn from.",
        good="It rises and levels off high, alike in all folds.",
        action="If it still rises at the end, train longer. If it falls while the loss falls, the network "
        "learns its cases by heart: more cases help most.",
    ),
    "pseudo_dice": Guide(
        shown="The Dice of each class in the training patches of an epoch, mean over the folds.",
        good="All classes rise.",
        action="A class that stays at 0 is too rare or too thin to be learnt at this voxel size, or its "
        "labels do not lie where they should: `autospine verify` checks that.",
    ),
    "learning_rate": Guide(
        shown="The learning rate of each fold.",
        good="It rises for a short time and falls to nothing by the end of the training.",
        action="A fold whose line breaks off was interrupted: run the same command again to resume it.",
    ),
    "fusion": Guide(
        shown="The weight of each kernel size in the multi-scale fusion, mean over the folds.",
        good="The weights leave their common start and settle.",
        action="Weights that never move say that fusion does nothing here: compare with a network without "
        "it.",
    ),
    "gamma": Guide(
        shown="The mean size of γ, the strength of the key saliency, in each stage, mean over the folds.",
        good="It leaves 0, where it starts.",
        action="A γ that stays at 0 says that the adaptive attention is plain attention: compare with that.",
    ),
    "foreground_ratio": Guide(
        shown="Voxels of the foreground that are predicted, divided by those that are labelled.",
        good="Near 1.",
        action="Far below 1 the network collapses to background, far above it floods: lower the learning "
        "rate, and check the labels of the rarest classes.",
    ),
    "border_shift": Guide(
        shown="How many voxels the predicted edges lie outside of the labelled ones.",
        good="Near 0.",
        action="Edges that bleed come from labels that are drawn too wide, or from too coarse voxels.",
    ),
    "dice_ratio": Guide(
        shown="Dice of the thinnest class, divided by the Dice of the others.",
        good="Near 1.",
        action="Far below 1 the thin structures are lost: plan with a smaller voxel size.",
    ),
    "seconds": Guide(
        shown="The time of every epoch.",
        good="A level line.",
        action="Peaks come from other programs on the machine. `seconds_waited_for_data` in metrics.jsonl "
        "tells whether the patches come too slowly.",
    ),
}


def read_logs(model: Path) -> dict[str, list[LogRow]]:
    """Read the logs of all folds of a model folder, each up to its first damaged line.

    Those that are missing, or damaged from the first line on, are passed over.
    """
    logs: dict[str, list[LogRow]] = {}
    for name in sorted({*fold_names(model), *unfinished_folds(model)}):
        path = fold_folder(model, name) / METRICS_LOG
        try:
            lines = read_text(path, LARGEST_LOG).splitlines()
        except (OSError, ValueError, FormatError) as error:
            logger.debug("%s is not drawn: %s", path, error)
            continue
        if rows := list(_complete_rows(lines)):
            logs[name] = rows
    return logs


def training_section(logs: Logs) -> ReportSection:
    """Return the learning curves of all folds, the readings of the mechanisms, and what monitors have said.

    Args:
        logs: Rows of each fold, at least one.
    """
    return ReportSection(
        key="training", title="Training", figures=tuple(_figures(logs)), tables=tuple(_warnings(logs))
    )


def _complete_rows(lines: Sequence[str]) -> Iterator[LogRow]:
    """Yield the rows of a log up to the first line that is incomplete: its process was killed, or goes on."""
    for line in filter(None, lines):
        try:
            row = parse_json(line)
        except ValueError as error:
            logger.debug("a log is drawn up to %r: %s", line[:40], error)
            return
        if isinstance(row, dict):
            yield row


def short_training_fact(logs: Logs, recipe: TrainingPlan) -> Fact | None:
    """Return a warning of a model that was hardly trained; None for other models.

    Args:
        logs: Rows of each complete fold; the one with the fewest steps counts.
        recipe: Recipe of its plan.
    """
    taken = [number(rows[-1].get("step")) for rows in logs.values() if rows]
    steps = min((each for each in taken if math.isfinite(each)), default=math.inf)
    if not recipe.is_cut_short(steps):
        return None
    return Fact(
        name="hardly trained",
        value=f"{steps:.0f} of {recipe.steps} steps",
        reason="its scores say little of what it can learn: train it for longer before you judge by them",
    )


def _figures(logs: Logs) -> Iterator[ReportFigure]:
    plain: tuple[tuple[str, str, Callable[[LogRow], object], dict[str, float]], ...] = (
        ("loss", "Loss", lambda row: row.get("loss"), {"low": 0.0}),
        (
            "held_out",
            "Dice on held-out cases",
            lambda row: row.get("held_out_dice"),
            {"low": 0.0, "high": 1.0},
        ),
        ("learning_rate", "Learning rate", lambda row: row.get("learning_rate"), {"low": 0.0}),
        ("foreground_ratio", "Foreground: predicted / labelled", _reading("foreground_ratio"), {"low": 0.0}),
        ("border_shift", "Edges: voxels too far out", _reading("border_shift"), {}),
        ("dice_ratio", "Thinnest class: Dice / Dice of the others", _reading("dice_ratio"), {"low": 0.0}),
        ("seconds", "Seconds per epoch", lambda row: row.get("seconds"), {"low": 0.0}),
    )
    for key, title, value, ends in plain:
        lines = {f"fold {name}": line_of(rows, value) for name, rows in logs.items()}
        yield from _figure(key, title, lines, ends)
        if key == "held_out":
            by_class = _mean_lines(logs, lambda row: _items(row.get("pseudo_dice")))
            yield from _figure("pseudo_dice", "Dice on training patches", by_class, {"low": 0.0, "high": 1.0})
    fusion = _mean_lines(logs, lambda row: _numbered(row.get("fusion_weights"), "kernel"))
    yield from _figure("fusion", "Fusion weights", fusion, {})
    gamma = _mean_lines(logs, lambda row: _numbered(row.get("gamma"), "stage"))
    yield from _figure("gamma", "Attention: mean |γ|", gamma, {"low": 0.0})


def _figure(
    key: str, title: str, lines: Mapping[str, Sequence[tuple[float, float]]], ends: Mapping[str, float]
) -> Iterator[ReportFigure]:
    """Yield a chart, unless nothing of it was recorded."""
    if any(math.isfinite(y) for points in lines.values() for _, y in points):
        svg = line_chart(lines, title=title, x_title="epoch", y_title="", **ends)
        yield ReportFigure(title=title, svg=svg, guide=LEARNING_GUIDES[key])


def line_of(rows: Sequence[LogRow], value: Callable[[LogRow], object]) -> list[tuple[float, float]]:
    """Return the points (epoch, value) of a line, thinned out to `MOST_POINTS`."""
    points = [(_epoch(row, i), number(value(row))) for i, row in enumerate(rows, start=1)]
    return points[:: max(1, math.ceil(len(points) / MOST_POINTS))]


def _mean_lines(
    logs: Logs, values: Callable[[LogRow], Mapping[str, object]]
) -> dict[str, list[tuple[float, float]]]:
    """Return a line for each name in the rows: the mean over the folds in every epoch."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rows in logs.values():
        for i, row in enumerate(rows, start=1):
            for name, value in values(row).items():
                if math.isfinite(y := number(value)):
                    found[name][_epoch(row, i)].append(y)
    lines = {
        name: [(epoch, sum(ys) / len(ys)) for epoch, ys in sorted(by_epoch.items())]
        for name, by_epoch in found.items()
    }
    return {name: points[:: max(1, math.ceil(len(points) / MOST_POINTS))] for name, points in lines.items()}


def _reading(name: str) -> Callable[[LogRow], object]:
    """Return what finds a monitor's reading in a row."""
    return lambda row: _items(row.get("monitors")).get(name)


def _items(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _numbered(value: object, noun: str) -> dict[str, object]:
    return {f"{noun} {i}": each for i, each in enumerate(value, start=1)} if isinstance(value, list) else {}


def _epoch(row: LogRow, position: int) -> float:
    epoch = number(row.get("epoch"))
    return position if math.isnan(epoch) else epoch


def _warnings(logs: Logs) -> Iterator[ReportTable]:
    """Yield the table of what the monitors have warned of, if anything."""
    rows = [
        (fold, f"{_epoch(row, i):g}", kind, str(text))
        for fold, entries in logs.items()
        for i, row in enumerate(entries, start=1)
        for kind, text in _items(row.get("warnings")).items()
    ]
    if rows:
        yield ReportTable(
            title="Warnings of the monitors",
            columns=("fold", "epoch", "kind", "what it says"),
            rows=tuple(rows),
            numeric=(1,),
            guide=Guide(
                shown="What the monitors have warned of, with the epoch of the first time.",
                good="No warning at all: then there is no such table.",
                action="Each sentence says what it means and what to try.",
            ),
        )
