"""Training curves from the rows of `metrics.jsonl`."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from autospine.report.colours import BLUE, ORANGE, PALETTE, SKY, VERMILION, Colour, class_colours
from autospine.report.figures import new_figure, save_figure

Row = Mapping[str, Any]

DPI = 110
PANEL_INCHES = (4.4, 2.9)
COLUMNS = 3
INK = "#24292f"
MUTED = "#6e7781"
LEGEND_CLASSES = 6
"""With more classes than this, only their spread and mean are drawn."""


def write_curves(path: Path, rows: Sequence[Row], *, title: str) -> None:
    """Draw what a training recorded as small panels in one PNG.

    Panels: loss and its parts, Dice of each class on the training patches, learning rate, seconds per
    epoch, fusion weights, size of the attention's gamma. Those of which nothing was recorded are left
    out, and so are single values that are missing, null or not finite.

    Args:
        path: of the PNG, replaced as a whole.
        rows: one mapping per epoch, in order.
        title: above the panels.
    """
    panels = [draw for draw, keys in _PANELS if any(_recorded(rows, key) for key in keys)]
    columns = max(1, min(COLUMNS, len(panels)))
    lines = max(1, math.ceil(len(panels) / columns))
    width, height = PANEL_INCHES[0] * columns, PANEL_INCHES[1] * lines + 0.45
    figure = new_figure(width, height, dpi=DPI, background="white")
    figure.suptitle(
        title, x=0.14 / width, y=1 - 0.12 / height, ha="left", va="top", size=13, weight="bold", color=INK
    )
    for index, draw in enumerate(panels):
        left, top = index % columns * PANEL_INCHES[0], 0.45 + index // columns * PANEL_INCHES[1]
        axes = figure.add_axes(
            (
                (left + 0.62) / width,
                1 - (top + PANEL_INCHES[1] - 0.5) / height,
                (PANEL_INCHES[0] - 0.85) / width,
                (PANEL_INCHES[1] - 0.9) / height,
            )
        )
        draw(axes, rows)
    if not panels:
        figure.text(0.5, 0.45, "nothing recorded yet", ha="center", color=MUTED)
    save_figure(figure, path)


def _draw_loss(axes: Axes, rows: Sequence[Row]) -> None:
    _prepare(axes, "Loss")
    for key, name, colour in (
        ("loss", "loss", INK),
        ("ce", "cross-entropy", VERMILION),
        ("dice_loss", "1 − Dice", SKY),
    ):
        _line(axes, rows, _column(rows, key), name, colour, width=2.0 if key == "loss" else 1.3)
    _finish(axes, floor=True)


def _draw_dice(axes: Axes, rows: Sequence[Row]) -> None:
    _prepare(axes, "Dice on training patches")
    names = list(dict.fromkeys(name for row in rows for name in _mapping(row, "pseudo_dice")))
    values = np.array([[_number(_mapping(row, "pseudo_dice").get(name)) for row in rows] for name in names])
    some = ~np.isnan(values).all(axis=0)
    mean = np.full(len(rows), np.nan)
    mean[some] = np.nanmean(values[:, some], axis=0)
    if len(names) > LEGEND_CLASSES:
        low, high = mean.copy(), mean.copy()
        low[some], high[some] = np.nanmin(values[:, some], axis=0), np.nanmax(values[:, some], axis=0)
        axes.fill_between(_epochs(rows), low, high, color=SKY, alpha=0.3, lw=0, label="all classes")
    else:
        colours = class_colours(names)
        for name, line in zip(names, values, strict=True):
            _line(axes, rows, line, name, _darker(colours[name]))
    if len(names) > 1:
        _line(axes, rows, mean, "mean", INK, width=2.0)
    _finish(axes)
    axes.set_ylim(0, 1)


def _draw_rate(axes: Axes, rows: Sequence[Row]) -> None:
    _prepare(axes, "Learning rate")
    _line(axes, rows, _column(rows, "learning_rate"), "learning rate", BLUE, width=1.8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _finish(axes, floor=True)


def _draw_seconds(axes: Axes, rows: Sequence[Row]) -> None:
    _prepare(axes, "Seconds per epoch")
    _line(axes, rows, _column(rows, "seconds"), "all", INK, width=1.8)
    _line(axes, rows, _column(rows, "seconds_waited_for_data"), "waiting for data", ORANGE)
    _finish(axes, floor=True)


def _draw_fusion(axes: Axes, rows: Sequence[Row]) -> None:
    _prepare(axes, "Fusion weights")
    _family(axes, rows, "fusion_weights", "w")


def _draw_gamma(axes: Axes, rows: Sequence[Row]) -> None:
    _prepare(axes, "Attention: mean |γ| of each stage")
    _family(axes, rows, "gamma", "stage ")


_PANELS: tuple[tuple[Callable[[Axes, Sequence[Row]], None], tuple[str, ...]], ...] = (
    (_draw_loss, ("loss", "ce", "dice_loss")),
    (_draw_dice, ("pseudo_dice",)),
    (_draw_rate, ("learning_rate",)),
    (_draw_seconds, ("seconds", "seconds_waited_for_data")),
    (_draw_fusion, ("fusion_weights",)),
    (_draw_gamma, ("gamma",)),
)
"""What can be drawn, and the keys that it is drawn from."""


def _family(axes: Axes, rows: Sequence[Row], key: str, prefix: str) -> None:
    """One line for each place of a list."""
    found = [row.get(key) for row in rows]
    lists: list[list[Any]] = [value if isinstance(value, list) else [] for value in found]
    for index in range(max(map(len, lists))):
        values = np.array([_number(row[index]) if index < len(row) else np.nan for row in lists])
        colour = _darker(PALETTE[index % len(PALETTE)])
        _line(axes, rows, values, f"{prefix}{index + 1}", colour)
    _finish(axes)


def _prepare(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", size=10, color=INK, pad=6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#d0d7de")
    axes.grid(axis="y", color="#eaeef2", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8, length=3)
    axes.set_xlabel("epoch", color=MUTED, size=8, labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _line(
    axes: Axes, rows: Sequence[Row], values: np.ndarray, name: str, colour: str | Colour, width: float = 1.3
) -> None:
    """A line through the values that are there; a lone one is a dot."""
    there = ~np.isnan(values)
    if there.any():
        marker = "o" if there.sum() == 1 else ""
        axes.plot(
            _epochs(rows)[there], values[there], color=colour, lw=width, label=name, marker=marker, ms=4
        )


def _finish(axes: Axes, *, floor: bool = False) -> None:
    """Limits and legend; with `floor` the axis starts at zero if no value lies below."""
    lowest = min((float(np.min(line.get_ydata())) for line in axes.lines), default=0.0)
    if floor and lowest >= 0:
        axes.set_ylim(bottom=0)
    epochs = np.concatenate([line.get_xdata() for line in axes.lines]) if axes.lines else np.zeros(1)
    if np.ptp(epochs) == 0:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        legend = axes.legend(fontsize=7.5, framealpha=0.8, edgecolor="none", ncols=1 + (len(handles) > 4))
        legend.set_zorder(5)


def _epochs(rows: Sequence[Row]) -> np.ndarray:
    numbers = [_number(row.get("epoch")) for row in rows]
    return np.array([index + 1 if math.isnan(n) else n for index, n in enumerate(numbers)])


def _column(rows: Sequence[Row], key: str) -> np.ndarray:
    return np.array([_number(row.get(key)) for row in rows])


def _recorded(rows: Sequence[Row], key: str) -> bool:
    return any(any(not math.isnan(_number(item)) for item in _items(row.get(key))) for row in rows)


def _items(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _mapping(row: Row, key: str) -> Mapping[str, Any]:
    value = row.get(key)
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float:
    """A finite number, or NaN."""
    usable = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if usable else math.nan  # type: ignore[arg-type]


def _darker(colour: Colour) -> Colour:
    """Bright colours, made for a black ground, on white."""
    red, green, blue = (0.82 * part for part in colour)
    return red, green, blue
