"""The figure of accuracy against cost: Dice of each design by its time per step and by its memory."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from autospine.core.colours import class_colours
from autospine.report.experiment_figure import DPI, INK, MUTED, WIDTH_INCHES, DesignPoint
from autospine.report.figures import new_figure, save_figure

HEIGHT_INCHES = 5.0


def write_efficiency_figure(path: Path, points: Sequence[DesignPoint], *, title: str) -> None:
    """Draw Dice against seconds per step at the left and against memory at the right.

    Args:
        path: Path of the PNG, which is replaced as a whole.
        points: The designs; the first, a diamond, is the one as planned.
        title: Title above both panels.
    """
    figure = new_figure(WIDTH_INCHES, HEIGHT_INCHES, dpi=DPI, background="white")
    by_time, by_memory = figure.subplots(1, 2, sharey=True)
    figure.suptitle(title, color=INK, fontsize=12, x=0.02, ha="left")
    _draw(by_time, points, [point.seconds_per_step for point in points], "seconds per step")
    _draw(by_memory, points, [point.memory_bytes / 1e9 for point in points], "memory of a step, GB")
    by_time.set_ylabel("mean Dice of held-out cases", color=INK)
    figure.legend(
        *by_time.get_legend_handles_labels(), fontsize=8, frameon=False, ncols=4, loc="lower center"
    )
    figure.tight_layout(rect=(0, 0.11, 1, 0.95))
    save_figure(figure, path)


def _draw(axes: Axes, points: Sequence[DesignPoint], costs: Sequence[float], label: str) -> None:
    """Draw one point for each design, with the interval of its difference around its own value."""
    colours = class_colours([point.name for point in points])
    for number, (point, cost) in enumerate(zip(points, costs, strict=True)):
        if math.isnan(point.dice):
            continue
        if point.difference is not None and not math.isnan(point.difference[1]):
            value, low, high = point.difference
            ends = [point.dice - value + low, point.dice - value + high]
            axes.plot([cost, cost], ends, color=MUTED, lw=1, zorder=1)
        axes.scatter(
            [cost],
            [point.dice],
            s=60,
            marker="o" if number else "D",
            color=[colours[point.name]],
            edgecolor=INK,
            lw=0.6,
            zorder=3,
            label=point.name,
        )
    axes.set_xlabel(label, color=INK)
    axes.set_xlim(0, 1.1 * max(costs))
    axes.grid(alpha=0.3)
