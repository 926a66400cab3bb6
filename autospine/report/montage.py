"""Montage of cases with their reference and prediction, for visual inspection."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from autospine.core.colours import Colour, class_colours
from autospine.core.geometry import IDENTITY, Grid, triple
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray, Modality, Vector3
from autospine.report.case_views import CaseMaps, CaseView, middle_views
from autospine.report.figures import new_figure, save_figure
from autospine.report.views import index_names, labelled, stored_behind, windowed

DPI = 120
PAGE_INCHES = 13.0
EDGE_INCHES = 0.3
GAP_INCHES = 0.06
PLANE_GAP_INCHES = 0.28
TALLEST_INCHES = 4.2
LOWEST_INCHES = 1.2
"""Least height of slices; if they would be lower with two planes side by side, the planes are stacked."""

HEADER_INCHES = 0.3
CAPTION_INCHES = 0.24
CASE_GAP_INCHES = 0.26
LEGEND_LINE_INCHES = 0.27

BACKGROUND = "#0d1117"
INK = "#f0f3f6"
MUTED = "#9198a1"
RULE = "#30363d"
FILL_ALPHA = 0.38


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One case of a montage."""

    title: str
    """Name of the case."""

    image: Num[np.ndarray, "S P L"]
    """Grey values (S, P, L), in HU for CT."""

    prediction: LabelArray
    """(S, P, L) stored indices, as of `LabelSpace.encode`."""

    spacing_mm: Vector3
    """(S, P, L)."""

    reference: LabelArray | None = None
    """(S, P, L) stored indices, where there is a reference."""

    modality: Modality | None = None
    """Modality, which decides the grey-value window; None is treated as MR."""

    score: str = ""
    """Score of the case for the heading, such as `Dice 0.91`."""

    @property
    def maps(self) -> CaseMaps:
        """The case as reports have it, on a grid without a place of its own."""
        grid = Grid(
            shape=triple(self.prediction.shape),
            spacing_mm=self.spacing_mm,
            origin_mm=(0.0, 0.0, 0.0),
            direction=IDENTITY,
        )
        return CaseMaps(image=self.image, prediction=self.prediction, reference=self.reference, grid=grid)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tile:
    """One slice and its position on the page."""

    view: CaseView
    image: Float[np.ndarray, "H W"]
    """Grey values in [0, 1]."""

    caption: str
    labels: Integer[np.ndarray, "H W"] | None
    """Stored indices drawn over the image; None for the image alone."""

    left: float
    """Distance from the page's left edge in inches."""

    top: float
    """Distance from the top of the case in inches."""

    width: float
    """Width in inches."""

    height: float
    """Height in inches."""


def write_montage(path: Path, panels: Sequence[Panel], labels: LabelSpace, *, title: str = "") -> None:
    """Write a PNG with one row for each case: sagittal and coronal slices along the middle of the spine.

    They are those of reports (see `case_views.middle_views`), but for the axial one, which is shown where the
    image extends in that plane alone. Each plane is shown three times: the image alone, with the reference
    (if there is one) and with the prediction. Superior is up; anterior is at the left of sagittal slices, and
    the patient's right at the left of coronal ones. The aspect ratio is true; slices with a reference are
    cropped to the labelled spine.

    Args:
        path: Path of the PNG, which is replaced as a whole.
        panels: Cases from top to bottom, at least one.
        labels: Label space of the stored indices.
        title: Title above all cases.
    """
    names = index_names(labels)
    colours = class_colours(list(dict.fromkeys(names)))
    behind = stored_behind(names)
    layouts = [list(_layout(panel, behind)) for panel in panels]
    legend = _legend_lines([name for name in dict.fromkeys(names) if name in _occurring(panels, names)])
    heights = [HEADER_INCHES + max(tile.top + tile.height for tile in tiles) for tiles in layouts]
    head = EDGE_INCHES + (0.45 if title else 0.0) + LEGEND_LINE_INCHES * len(legend)
    total = head + sum(heights) + CASE_GAP_INCHES * len(heights) + EDGE_INCHES / 2
    figure = new_figure(PAGE_INCHES, total, dpi=DPI, background=BACKGROUND)
    page = _Page(figure, total)
    if title:
        page.text(EDGE_INCHES, EDGE_INCHES - 0.05, title, size=17.0, color=INK, weight="bold")
    _draw_legend(page, legend, colours, head - LEGEND_LINE_INCHES * len(legend))
    top = head + CASE_GAP_INCHES
    by_index = [colours[name] for name in names]
    for panel, tiles, height in zip(panels, layouts, heights, strict=True):
        _draw_case(page, panel, tiles, by_index, top)
        top += height + CASE_GAP_INCHES
    save_figure(figure, path)


class _Page:
    """Figure with coordinates in inches from its upper left corner."""

    def __init__(self, figure: Figure, height: float) -> None:
        self._figure, self._height = figure, height

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes of a size at a distance from the left and from the top, all in inches."""
        bottom = self._height - top - height
        return self._figure.add_axes(
            (
                left / PAGE_INCHES,
                bottom / self._height,
                width / PAGE_INCHES,
                height / self._height,
            )
        )

    def text(
        self,
        left: float,
        top: float,
        text: str,
        *,
        size: float,
        color: str,
        weight: str = "normal",
        align: str = "left",
    ) -> None:
        """Write a line whose top lies at a distance from the left and from the top, both in inches."""
        self._figure.text(
            left / PAGE_INCHES,
            1 - top / self._height,
            text,
            size=size,
            color=color,
            weight=weight,
            ha=align,
            va="top",
        )

    def box(self, left: float, top: float, width: float, height: float, color: str | Colour) -> None:
        corner = (left / PAGE_INCHES, 1 - (top + height) / self._height)
        patch = Rectangle(corner, width / PAGE_INCHES, height / self._height, color=color, lw=0)
        self._figure.add_artist(patch)


def _layout(panel: Panel, behind: Sequence[int]) -> Iterator[_Tile]:
    """Arrange the slices of a case: planes side by side, or stacked if the slices are wide."""
    views = middle_views(panel.maps, behind)
    views = tuple(view for view in views if view.plane != "axial") or views
    count = 2 if panel.reference is None else 3
    room = PAGE_INCHES - 2 * EDGE_INCHES
    beside = room - 2 * (count - 1) * GAP_INCHES - PLANE_GAP_INCHES
    height = beside / (count * sum(view.aspect for view in views))
    if height >= LOWEST_INCHES:
        yield from _tiles(views, panel, [min(height, TALLEST_INCHES)] * len(views), below=False)
        return
    alone = room - (count - 1) * GAP_INCHES
    tall = [min(alone / (count * view.aspect), TALLEST_INCHES) for view in views]
    yield from _tiles(views, panel, tall, below=True)


def _tiles(
    views: Sequence[CaseView], panel: Panel, heights: Sequence[float], *, below: bool
) -> Iterator[_Tile]:
    left, top = EDGE_INCHES, CAPTION_INCHES
    for view, height in zip(views, heights, strict=True):
        assert view.image is not None  # a panel has an image
        image, width = windowed(view.image, panel.modality), height * view.aspect
        shown = [("", None), ("reference", view.reference), ("prediction", view.prediction)]
        for name, labels in shown:
            if name == "reference" and labels is None:
                continue
            caption = name or view.plane
            yield _Tile(
                view=view,
                image=image,
                caption=caption,
                labels=labels,
                left=left,
                top=top,
                width=width,
                height=height,
            )
            left += width + GAP_INCHES
        left += PLANE_GAP_INCHES - GAP_INCHES
        if below:
            left, top = EDGE_INCHES, top + height + CAPTION_INCHES + 2 * GAP_INCHES


def _draw_case(
    page: _Page, panel: Panel, tiles: Sequence[_Tile], colours: Sequence[Colour], top: float
) -> None:
    page.box(EDGE_INCHES, top - CASE_GAP_INCHES / 2, PAGE_INCHES - 2 * EDGE_INCHES, 0.008, RULE)
    page.text(EDGE_INCHES, top, panel.title, size=12.5, color=INK, weight="bold")
    about = "    ".join(part for part in (panel.modality, panel.score) if part)
    page.text(PAGE_INCHES - EDGE_INCHES, top, about, size=12.5, color=INK, align="right")
    for tile in tiles:
        place = top + HEADER_INCHES + tile.top
        page.text(tile.left, place - CAPTION_INCHES + 0.03, tile.caption, size=9.5, color=MUTED)
        axes = page.axes(tile.left, place, tile.width, tile.height)
        _draw_tile(axes, tile, colours)


def _draw_tile(axes: Axes, tile: _Tile, colours: Sequence[Colour]) -> None:
    rows, columns = tile.image.shape
    axes.imshow(
        tile.image,
        cmap="gray",
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="bicubic",
    )
    if tile.labels is not None:
        _overlay(axes, tile.labels, colours)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)  # the first row is the top
    axes.set_axis_off()
    if tile.labels is None:
        for x, side in zip((0.03, 0.97), "AP" if tile.view.plane == "sagittal" else "RL", strict=True):
            axes.text(
                x,
                0.5,
                side,
                transform=axes.transAxes,
                color=INK,
                size=9,
                alpha=0.8,
                ha="left" if x < 0.5 else "right",
                va="center",
                path_effects=[withStroke(linewidth=2, foreground=BACKGROUND)],
            )


def _overlay(axes: Axes, labels: Integer[np.ndarray, "H W"], colours: Sequence[Colour]) -> None:
    """Fill each class and draw its outline."""
    # Repeated edge voxels move the outline of a class that is cut off outside the visible slice.
    padded = np.pad(labels, 1, mode="edge")
    x, y = np.arange(-1, labels.shape[1] + 1), np.arange(-1, labels.shape[0] + 1)
    for index in np.unique(labels[labelled(labels)]):
        mask = (padded == index).astype(np.float32)
        colour = colours[int(index) - 1]
        axes.contourf(x, y, mask, levels=[0.5, 1.5], colors=[colour], alpha=FILL_ALPHA, antialiased=True)
        if mask.min() < 0.5:
            axes.contour(x, y, mask, levels=[0.5], colors=[colour], linewidths=1.3)


def _occurring(panels: Sequence[Panel], names: Sequence[str]) -> set[str]:
    """Return the classes that occur in the reference or the prediction of any case."""
    classes: set[str] = set()
    for panel in panels:
        for labels in (panel.prediction, panel.reference):
            if labels is not None:
                classes.update(names[int(i) - 1] for i in np.unique(labels[labelled(labels)]))
    return classes


def _legend_lines(names: Sequence[str]) -> list[list[tuple[float, str]]]:
    """Break the names of the legend into lines; each name has its distance from the left edge in inches."""
    lines: list[list[tuple[float, str]]] = []
    left = PAGE_INCHES
    for name in names:
        width = 0.42 + 0.085 * len(name)
        if left + width > PAGE_INCHES - EDGE_INCHES:
            lines.append([])
            left = EDGE_INCHES
        lines[-1].append((left, name))
        left += width
    return lines


def _draw_legend(
    page: _Page, lines: Sequence[Sequence[tuple[float, str]]], colours: Mapping[str, Colour], top: float
) -> None:
    for number, line in enumerate(lines):
        place = top + number * LEGEND_LINE_INCHES
        for left, name in line:
            page.box(left, place, 0.15, 0.15, colours[name])
            page.text(left + 0.21, place - 0.01, name, size=10.0, color=INK)
