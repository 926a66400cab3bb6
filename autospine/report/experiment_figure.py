"""The figure of an experiment: scores of each design, and differences from the first with their intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from autospine.core.colours import BLUE, VERMILION, class_colours
from autospine.report.figures import new_figure, save_figure

DPI = 110
WIDTH_INCHES = 11.0
ROW_INCHES = 0.5
FRAME_INCHES = 1.9
INK = "#24292f"
MUTED = "#6e7781"
MOST_CLASSES = 8
"""Most classes that are drawn one by one; of more, only the mean is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DesignPoint:
    """One row of the figure."""

    name: str
    dice: float
    """Mean Dice; NaN where it is undefined."""

    by_class: Mapping[str, float]
    """Dice of each class; NaN where it is undefined."""

    difference: tuple[float, float, float] | None
    """Difference in mean Dice from the first design and the ends of its interval, NaN where there is none;
    None for the first design."""

    seconds_per_step: float
    memory_bytes: int
    """Estimated peak memory of a training step."""


def write_experiment_figure(path: Path, points: Sequence[DesignPoint], *, title: str) -> None:
    """Draw the designs from top to bottom: Dice at the left, differences from the first at the right.

    Args:
        path: Path of the PNG, which is replaced as a whole.
        points: The designs, the first being what the others are compared with.
        title: Title above both panels.
    """
    height = FRAME_INCHES + ROW_INCHES * len(points)
    figure = new_figure(WIDTH_INCHES, height, dpi=DPI, background="white")
    scores, differences = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    figure.suptitle(title, color=INK, fontsize=12, x=0.02, ha="left")
    _draw_scores(scores, points)
    _draw_differences(differences, points)
    scores.set_yticks(
        range(len(points)), [f"{point.name}\n{point.seconds_per_step:.2g} s per step" for point in points]
    )
    scores.invert_yaxis()
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    save_figure(figure, path)


def _draw_scores(axes: Axes, points: Sequence[DesignPoint]) -> None:
    names = list(points[0].by_class)
    if 1 < len(names) <= MOST_CLASSES:
        colours = class_colours(names)
        for name in names:
            values = [point.by_class[name] for point in points]
            axes.scatter(
                values, range(len(points)), s=26, color=[colours[name]], edgecolor=MUTED, lw=0.5, label=name
            )
    axes.scatter(
        [point.dice for point in points], range(len(points)), s=60, marker="|", color=INK, lw=2, label="mean"
    )
    axes.set_xlabel("Dice of held-out cases", color=INK)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=7, frameon=False, ncols=5, loc="lower left", bbox_to_anchor=(0, 1))


def _draw_differences(axes: Axes, points: Sequence[DesignPoint]) -> None:
    axes.axvline(0, color=MUTED, lw=1)
    for row, point in enumerate(points):
        if point.difference is None or math.isnan(point.difference[0]):
            continue
        value, low, high = point.difference
        sure = low > 0 or high < 0
        colour = VERMILION if sure and value < 0 else BLUE if sure else MUTED
        if not math.isnan(low):
            axes.plot([low, high], [row, row], color=colour, lw=2)
        axes.scatter([value], [row], s=36, color=[colour], zorder=3)
    axes.set_xlabel("difference in mean Dice, 95 % interval", color=INK)
    axes.tick_params(left=False, labelleft=False)
    axes.grid(axis="x", alpha=0.3)
