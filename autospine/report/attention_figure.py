"""The figure of a model's attention: its maps over the mid-sagittal slice, and the curve at boundaries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes

from autospine.core.colours import BLUE, ORANGE, SKY, VERMILION
from autospine.core.types import LabelArray, ScoreMap, Vector3
from autospine.report.figures import new_figure, save_figure

DPI = 110
PANEL_INCHES = 3.4
CAPTION_INCHES = 0.9
TITLE_INCHES = 0.5
COLUMNS = 4
INK = "#24292f"
MUTED = "#6e7781"
CURVES = (BLUE, VERMILION, ORANGE, SKY)
SHOWN_PERCENT = (1.0, 99.0)
"""Percentiles of the image that black and white stand for, and of a map its colours' ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionCurve:
    """Mean of a map by the distance to the nearest boundary."""

    name: str
    auc: float | None
    points: Sequence[tuple[float, float]]
    """Distance in mm, and the mean there."""


def write_attention_figure(
    path: Path,
    image: Num[np.ndarray, "S P L"],
    labels: LabelArray,
    spacing_mm: Vector3,
    maps: Mapping[str, ScoreMap],
    curves: Sequence[AttentionCurve],
    *,
    title: str,
) -> None:
    """Draw the image with the outline of the labels, each map in the same slice, and the curves.

    Args:
        path: Path of the PNG, which is replaced as a whole.
        image: Image (S, P, L).
        labels: Label values on its voxels; the slice is the one with most labelled voxels.
        spacing_mm: Voxel size along S, P and L.
        maps: Maps on its voxels, by name.
        curves: Curves of the last panel.
        title: Title above all panels.
    """
    column = int((labels > 0).sum(axis=(0, 1)).argmax()) if labels.any() else image.shape[2] // 2
    height_mm, width_mm = image.shape[0] * spacing_mm[0], image.shape[1] * spacing_mm[1]
    tall = PANEL_INCHES * min(2.0, max(0.6, height_mm / width_mm)) + CAPTION_INCHES
    rows = ceil((len(maps) + 2) / COLUMNS)
    figure = new_figure(PANEL_INCHES * COLUMNS, tall * rows + TITLE_INCHES, dpi=DPI, background="white")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel().tolist()
    first, others, last = panels[0], panels[1 : 1 + len(maps)], panels[1 + len(maps)]
    for unused in panels[2 + len(maps) :]:
        unused.axis("off")
    aspect = spacing_mm[0] / spacing_mm[1]
    low, high = np.percentile(image, SHOWN_PERCENT)
    for axes, name in ((first, "image"), *zip(others, maps, strict=True)):
        axes.imshow(image[:, :, column], cmap="gray", vmin=low, vmax=high, origin="lower", aspect=aspect)
        axes.set_title(name.replace("_", ", "), fontsize=9, color=INK)
        axes.axis("off")
    if labels.any():
        first.contour(labels[:, :, column] > 0, levels=[0.5], colors=["#f9e2af"], linewidths=0.8)
    for axes, values in zip(others, maps.values(), strict=True):
        _overlay(axes, values[:, :, column], aspect)
    _draw_curves(last, curves)
    figure.suptitle(title, color=INK, fontsize=11)
    figure.tight_layout()
    save_figure(figure, path)


def _overlay(axes: Axes, values: Num[np.ndarray, "S P"], aspect: float) -> None:
    low, high = np.percentile(values, SHOWN_PERCENT)
    shown = axes.imshow(
        values, cmap="magma", vmin=low, vmax=max(high, low + 1e-9), alpha=0.65, origin="lower", aspect=aspect
    )
    bar = axes.figure.colorbar(shown, ax=axes, orientation="horizontal", fraction=0.05, pad=0.03)
    bar.ax.tick_params(labelsize=7)


def _draw_curves(axes: Axes, curves: Sequence[AttentionCurve]) -> None:
    for curve, colour in zip(curves, CURVES, strict=False):
        if curve.points:
            known = "" if curve.auc is None else f", AUC {curve.auc:.2f}"
            distances, means = zip(*curve.points, strict=True)
            axes.plot(distances, means, "o-", ms=3, color=colour, label=curve.name + known)
    axes.set_xlabel("distance to the nearest boundary (mm)", color=INK)
    axes.set_ylabel("mean saliency (logits)", color=INK)
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(fontsize=8, frameon=False)
