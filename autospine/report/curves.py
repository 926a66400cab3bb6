"""Training curves from the rows of `metrics.jsonl`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float64, Num
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from autospine.core.colours import BLUE, ORANGE, PALETTE, SKY, VERMILION, Colour, class_colours
from autospine.report.figures import new_figure, save_figure

Row = Mapping[str, Any]

DPI = 110
PANEL_INCHES = (4.4, 3.1)
COLUMNS = 3
INK = "#24292f"
MUTED = "#6e7781"
LEGEND_COLUMNS = 5
LEGEND_CLASSES = 6
"""Largest number of classes that are drawn one by one; of more, range, mean and the worst ones are drawn."""

WORST_CLASSES = (VERMILION, ORANGE, BLUE)
"""Colours of the classes that are drawn by name where not all are, the worst first."""


def write_curves(path: Path, rows: Sequence[Row], *, title: str) -> None:
    """Draw how well a network learns: loss, Dice on training patches, and Dice on held-out cases.

    Panels without any value are left out, and so are single values that are missing, null or not finite. A
    dotted grey line marks the epoch after which a training began to stop early.

    Args:
        path: Path of the PNG, which is replaced as a whole.
        rows: Rows of metrics.jsonl, one per epoch, in order.
        title: Title above the panels.
    """
    _write_page(path, rows, _LEARNING, title)


def write_mechanisms(
    path: Path, rows: Sequence[Row], *, title: str, limits: Mapping[str, float] = MappingProxyType({})
) -> None:
    """Draw how a network learns: learning rate, monitors, fusion weights, the attention's gamma, and time.

    Values and panels are left out as by `write_curves`. A dotted red line marks each epoch in which a monitor
    has warned, a thin line the value that a reading should have.

    Args:
        path: Path of the PNG, which is replaced as a whole.
        rows: Rows of metrics.jsonl, one per epoch, in order.
        title: Title above the panels.
        limits: Limits of the monitors' readings by name, drawn as dashed lines.
    """
    _write_page(path, rows, _MECHANISMS, title, limits)


def _write_page(
    path: Path,
    rows: Sequence[Row],
    panels: Sequence["_CurvePanel"],
    title: str,
    limits: Mapping[str, float] = MappingProxyType({}),
) -> None:
    rows = [_flat(row) for row in rows]
    shown = [draw for draw, keys in panels if any(_recorded(rows, key) for key in keys)]
    columns = max(1, min(COLUMNS, len(shown)))
    lines = max(1, math.ceil(len(shown) / columns))
    width, height = PANEL_INCHES[0] * columns, PANEL_INCHES[1] * lines + 0.45
    figure = new_figure(width, height, dpi=DPI, background="white")
    figure.suptitle(
        title, x=0.14 / width, y=1 - 0.12 / height, ha="left", va="top", size=13, weight="bold", color=INK
    )
    for index, draw in enumerate(shown):
        left, top = index % columns * PANEL_INCHES[0], 0.45 + index // columns * PANEL_INCHES[1]
        axes = figure.add_axes(
            (
                (left + 0.62) / width,
                1 - (top + PANEL_INCHES[1] - 0.5) / height,
                (PANEL_INCHES[0] - 0.85) / width,
                (PANEL_INCHES[1] - 1.15) / height,
            )
        )
        draw(axes, rows)
        for key, limited in _LIMITED.items():
            if limited.panel is draw and key in limits and _recorded(rows, key):
                warned = [
                    epoch
                    for epoch, row in zip(_epochs(rows), rows, strict=True)
                    if any(kind in _mapping(row, "warnings") for kind in limited.warnings)
                ]
                _draw_limit(axes, limited, limits[key], warned)
    if not shown:
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
    parts = dict.fromkeys(name for row in rows for name in _mapping(row, "loss_parts"))
    for index, name in enumerate(parts):
        values = np.array([_number(_mapping(row, "loss_parts").get(name)) for row in rows])
        _line(axes, rows, values, name, _darker(PALETTE[index % len(PALETTE)]))
    _finish(axes, floor=True)


def _draw_dice(axes: Axes, rows: Sequence[Row]) -> None:
    _prepare(axes, "Dice on training patches")
    mean = _draw_classes(axes, rows, "pseudo_dice")
    if len(_names(rows, "pseudo_dice")) > 1:
        _line(axes, rows, mean, "mean", INK, width=2.0)
    _finish(axes)
    axes.set_ylim(0, 1)


def _draw_held_out(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the Dice on held-out cases, with its best and its last mean in numbers."""
    mean = _column(rows, "held_out_dice")
    known = np.flatnonzero(~np.isnan(mean))
    best, last = int(known[np.argmax(mean[known])]), int(known[-1])
    epochs = _epochs(rows)
    _prepare(
        axes, f"Dice on held-out cases: {mean[last]:.2f} (best {mean[best]:.2f}, epoch {epochs[best]:g})"
    )
    _draw_classes(axes, rows, "held_out_dice_by_class")
    _line(axes, rows, mean, "mean", INK, width=2.0)
    axes.plot(epochs[best], mean[best], marker="o", ms=5, mfc="white", mec=INK, ls="", zorder=5)
    for epoch, row in zip(epochs, rows, strict=True):
        if row.get("early_stop"):
            axes.axvline(epoch, color=MUTED, lw=1.0, ls=":")
    _finish(axes)
    axes.set_ylim(0, 1)


def _draw_classes(axes: Axes, rows: Sequence[Row], key: str) -> Float64[np.ndarray, "epochs"]:
    """Draw the Dice of each class or, of many, their range and the classes that are worst at last.

    Returns:
        Mean over the classes that have a value; NaN in epochs where none has.
    """
    names = _names(rows, key)
    values = np.full((max(1, len(names)), len(rows)), np.nan)
    for line, name in zip(values, names, strict=False):
        line[:] = [_number(_mapping(row, key).get(name)) for row in rows]
    some = ~np.isnan(values).all(axis=0)
    low, mean, high = (np.full(len(rows), np.nan) for _ in range(3))
    for line, summarised in ((low, np.nanmin), (mean, np.nanmean), (high, np.nanmax)):
        line[some] = summarised(values[:, some], axis=0)
    colours = class_colours(names)
    if len(names) <= LEGEND_CLASSES:
        for name, line in zip(names, values, strict=False):
            _line(axes, rows, line, name, _darker(colours[name]))
    elif some.any():
        axes.fill_between(_epochs(rows), low, high, color=SKY, alpha=0.3, lw=0, label="all classes")
        last = values[:, np.flatnonzero(some)[-1]]
        worst = np.argsort(last, kind="stable")[: np.count_nonzero(~np.isnan(last))]
        for rank, (index, colour) in enumerate(zip(worst.tolist(), WORST_CLASSES, strict=False)):
            _line(axes, rows, values[index], names[index] + (" (worst)" if rank == 0 else ""), colour)
    return mean


def _names(rows: Sequence[Row], key: str) -> list[str]:
    """Return the names of the classes that have values under a key, in their order."""
    return list(dict.fromkeys(name for row in rows for name in _mapping(row, key)))


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


def _draw_foreground(axes: Axes, rows: Sequence[Row]) -> None:
    _prepare(axes, "Foreground: predicted / true")
    axes.axhline(1, color=MUTED, lw=0.8)
    _line(axes, rows, _column(rows, "foreground_ratio"), "predicted / true", BLUE, width=1.8)
    _finish(axes, floor=True)


def _draw_edges(axes: Axes, rows: Sequence[Row]) -> None:
    _prepare(axes, "Edges: voxels too far out")
    axes.axhline(0, color=MUTED, lw=0.8)
    _line(axes, rows, _column(rows, "border_shift"), "voxels too far out", BLUE, width=1.8)
    _finish(axes)


def _draw_thinnest(axes: Axes, rows: Sequence[Row]) -> None:
    names = [row["thinnest_class"] for row in rows if row.get("thinnest_class")]
    _prepare(axes, f"Thinnest class: {names[-1] if names else '?'}")
    _line(axes, rows, _column(rows, "dice_ratio"), "Dice / others' Dice", BLUE, width=1.8)
    _line(axes, rows, _column(rows, "kernel_ratio"), "fusion kernel / thickness", ORANGE, width=1.8)
    _finish(axes, floor=True)


_CurvePanel = tuple[Callable[[Axes, Sequence[Row]], None], tuple[str, ...]]
"""Function that draws a panel, and the keys of the values that it draws."""

_LEARNING: tuple[_CurvePanel, ...] = (
    (_draw_loss, ("loss", "ce", "dice_loss", "loss_parts")),
    (_draw_dice, ("pseudo_dice",)),
    (_draw_held_out, ("held_out_dice",)),
)

_MECHANISMS: tuple[_CurvePanel, ...] = (
    (_draw_rate, ("learning_rate",)),
    (_draw_foreground, ("foreground_ratio",)),
    (_draw_edges, ("border_shift",)),
    (_draw_thinnest, ("dice_ratio", "kernel_ratio")),
    (_draw_fusion, ("fusion_weights",)),
    (_draw_gamma, ("gamma",)),
    (_draw_seconds, ("seconds", "seconds_waited_for_data")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Limited:
    """Reading of a monitor whose limit is drawn in a panel."""

    panel: Callable[[Axes, Sequence[Row]], None]
    """Function that draws the panel."""

    warnings: tuple[str, ...]
    """Kinds of the warnings whose epochs are marked."""

    colour: Colour
    below: bool
    """Whether the monitor warns below the limit; if not, it warns above."""


_LIMITED = {
    "foreground_ratio": _Limited(
        panel=_draw_foreground, warnings=("collapse", "flood"), colour=BLUE, below=True
    ),
    "border_shift": _Limited(panel=_draw_edges, warnings=("bleeding",), colour=BLUE, below=False),
    "dice_ratio": _Limited(panel=_draw_thinnest, warnings=("small_structures",), colour=BLUE, below=True),
    "kernel_ratio": _Limited(
        panel=_draw_thinnest, warnings=("small_structures",), colour=ORANGE, below=False
    ),
}


def _draw_limit(axes: Axes, limited: _Limited, value: float, epochs: Sequence[float]) -> None:
    """Draw a dashed line at a limit, widening the axis if needed, and dotted lines at warned epochs."""
    axes.axhline(value, color=limited.colour, lw=1.0, ls=(0, (4, 3)), zorder=1)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, value - 0.15 * abs(value)), max(high, 1.15 * value))
    axes.annotate(
        f"warns {'below' if limited.below else 'above'}",
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(0, -2 if limited.below else 2),
        textcoords="offset points",
        ha="right",
        va="top" if limited.below else "bottom",
        size=7,
        color=limited.colour,
    )
    for epoch in epochs:
        axes.axvline(epoch, color=VERMILION, lw=1.0, ls=":")


def _family(axes: Axes, rows: Sequence[Row], key: str, prefix: str) -> None:
    """Draw one line for each position in the lists of a column."""
    column = [row.get(key) for row in rows]
    lists: list[list[Any]] = [value if isinstance(value, list) else [] for value in column]
    for index in range(max(map(len, lists))):
        values = np.array([_number(row[index]) if index < len(row) else np.nan for row in lists])
        colour = _darker(PALETTE[index % len(PALETTE)])
        _line(axes, rows, values, f"{prefix}{index + 1}", colour)
    _finish(axes)


def _prepare(axes: Axes, title: str) -> None:
    _title(axes, title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#d0d7de")
    axes.grid(axis="y", color="#eaeef2", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8, length=3)
    axes.set_xlabel("epoch", color=MUTED, size=8, labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _title(axes: Axes, text: str, *, above: int = 0) -> None:
    """Set the title of a panel, above `above` lines of its legend."""
    axes.set_title(text, loc="left", size=10, color=INK, pad=6 + 12 * above)


def _line(
    axes: Axes,
    rows: Sequence[Row],
    values: Float64[np.ndarray, "epochs"],
    name: str,
    colour: str | Colour,
    width: float = 1.3,
) -> None:
    """Draw a line through the values that are not NaN, or a dot if there is a single one."""
    known = ~np.isnan(values)
    if known.any():
        marker = "o" if known.sum() == 1 else ""
        axes.plot(
            _epochs(rows)[known], values[known], color=colour, lw=width, label=name, marker=marker, ms=4
        )


def _finish(axes: Axes, *, floor: bool = False) -> None:
    """Set limits and legend; with `floor` the axis starts at zero unless a value lies below."""
    lowest = min((float(np.min(line.get_ydata())) for line in axes.lines), default=0.0)
    if floor and lowest >= 0:
        axes.set_ylim(bottom=0)
    epochs = np.concatenate([line.get_xdata() for line in axes.lines]) if axes.lines else np.zeros(1)
    if np.ptp(epochs) == 0:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        lines = 1 + (len(handles) > LEGEND_COLUMNS)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.98),
            ncols=math.ceil(len(handles) / lines),
            fontsize=7.5,
            frameon=False,
            handlelength=1.2,
            columnspacing=1.1,
        )
        _title(axes, axes.get_title(loc="left"), above=lines)


def _epochs(rows: Sequence[Row]) -> Num[np.ndarray, "epochs"]:
    """Return the epoch of each row; a row without one gets its position, from 1."""
    numbers = [_number(row.get("epoch")) for row in rows]
    return np.array([index + 1 if math.isnan(n) else n for index, n in enumerate(numbers)])


def _column(rows: Sequence[Row], key: str) -> Float64[np.ndarray, "epochs"]:
    """Return the values of a column; NaN where there is none."""
    return np.array([_number(row.get(key)) for row in rows])


def _recorded(rows: Sequence[Row], key: str) -> bool:
    """Tell whether any row has a finite number under a key, or in the list or mapping under it."""
    return any(any(not math.isnan(_number(item)) for item in _items(row.get(key))) for row in rows)


def _items(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _flat(row: Row) -> Row:
    """Add the monitors' readings to the columns of a row."""
    return {**row, **_mapping(row, "monitors")}


def _mapping(row: Row, key: str) -> Mapping[str, Any]:
    value = row.get(key)
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float:
    """Return a finite number as it is, and NaN for everything else."""
    usable = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if usable else math.nan  # type: ignore[arg-type]


def _darker(colour: Colour) -> Colour:
    """Darken a colour for a white background; the class colours are chosen for a black one."""
    red, green, blue = (0.82 * part for part in colour)
    return red, green, blue
