"""The page of a measured case: the spine from the side and from the front, and its numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, Num
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure

from autospine.core.geometry import Grid
from autospine.core.types import LabelArray, Modality, Position
from autospine.measurements.measure_spine import MeasuredSpine
from autospine.measurements.measured_bodies import MeasuredBody
from autospine.measurements.spine_measurements import SpineMeasurements, VertebraMeasurements
from autospine.report.figures import new_figure, save_figure
from autospine.report.views import CT_WINDOW_HU, MR_PERCENTILES

PAGE_ENDING = "_measurements.png"
"""Ending of the page of a case."""

PAGE_INCHES = (15.5, 10.2)
DPI = 110
PAPER, INK, FAINT, WARNING = "white", "#1a1a1a", "#6b6b6b", "#b03a00"
OUTLINE, NAME = "#ffb000", "#ffd166"
MARGIN_MM = 25.0
"""Margin of the pictures around the bodies."""

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("", "level", "{}"),
    ("ant.\nmm", "anterior_height_mm", "{:.1f}"),
    ("mid.\nmm", "middle_height_mm", "{:.1f}"),
    ("post.\nmm", "posterior_height_mm", "{:.1f}"),
    ("wedge\nratio", "wedge_ratio", "{:.2f}"),
    ("Genant", "genant_grade", "{}"),
    ("depth\nmm", "depth_mm", "{:.1f}"),
    ("width\nmm", "width_mm", "{:.1f}"),
    ("volume\nml", "volume_ml", "{:.1f}"),
    ("core\nHU", "trabecular_hu", "{:.0f}"),
)
"""Heading, field and format of each column of the table of vertebrae; those of the canal or ring follow."""

CANAL_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("canal\nmm²", "canal_area_mm2", "{:.0f}"),
    ("canal\nAP mm", "canal_depth_mm", "{:.1f}"),
)

RING_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("ring\nmm²", "ring_area_mm2", "{:.0f}"),
    ("ring\nAP mm", "ring_depth_mm", "{:.1f}"),
)

DISC_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("disc\nmm", "height_mm", "{:.1f}"),
    ("slip\nmm", "slip_mm", "{:+.1f}"),
)

Side = Literal["sagittal", "coronal"]

AXIS: dict[Side, int] = {"sagittal": 1, "coronal": 2}
"""Axis of an array that runs across the picture of each side."""

PICTURES = (0.02, 0.06, 0.43, 0.855)
"""Left, bottom, width and height of the pictures' place, in parts of the page."""

GAP = 0.012
"""Gap between them, in parts of the page's width."""


def write_measurement_page(
    path: Path,
    spine: MeasuredSpine,
    labels: LabelArray,
    grid: Grid,
    image: Num[np.ndarray, "S P L"] | None,
    modality: Modality | None,
) -> None:
    """Write the page of a case as a PNG, which is replaced as a whole.

    Args:
        path: File of the page.
        spine: Measurements with their geometry.
        labels: (S, P, L) label map; it is shown where there is no image.
        grid: Grid of the map.
        image: (S, P, L) image on the same grid; None if there is none.
        modality: Modality of the image, which decides the grey-value window.
    """
    figure = new_figure(*PAGE_INCHES, dpi=DPI, background=PAPER)
    measured = spine.measurements
    figure.text(0.02, 0.965, measured.case, size=17, weight="bold", color=INK)
    spacing = " x ".join(f"{value:.2f}" for value in measured.spacing_mm)
    figure.text(
        0.02, 0.942, f"voxels {spacing} mm (S, P, L); patient lying in the scanner", size=9, color=FAINT
    )
    for side, place in _places_of_pictures(spine, grid).items():
        _picture(figure.add_axes(place), side, spine, labels, grid, image, modality)
    _table(figure, measured)
    figure.text(0.02, 0.015, measured.disclaimer, size=9.5, weight="bold", color=WARNING)
    save_figure(figure, path)


def pictures_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the box of a page's pictures with their titles: left, upper, right and lower pixel."""
    left, bottom, wide, tall = PICTURES
    return (
        round((left - GAP / 2) * width),
        round((1 - bottom - tall - 2 * GAP) * height),
        round((left + wide + GAP / 2) * width),
        round((1 - bottom + GAP / 2) * height),
    )


def _places_of_pictures(spine: MeasuredSpine, grid: Grid) -> dict[Side, tuple[float, float, float, float]]:
    """Return where both pictures lie on the page, so that a millimetre is as long in both."""
    left, bottom, width, height = PICTURES
    sides: tuple[Side, ...] = ("sagittal", "coronal")
    bodies = [found for found in spine.bodies if found.body is not None]
    if not bodies:
        return {"sagittal": PICTURES}
    centres = grid.index(np.array([found.centre_mm for found in bodies]))
    sizes = []
    for side in sides:
        rows, columns = _window(centres, AXIS[side], grid)
        sizes.append(
            (
                (columns[1] - columns[0]) * grid.spacing_mm[AXIS[side]],
                (rows[1] - rows[0]) * grid.spacing_mm[0],
            )
        )
    inches = min(
        (width - GAP) * PAGE_INCHES[0] / (sizes[0][0] + sizes[1][0]), height * PAGE_INCHES[1] / sizes[0][1]
    )
    tall = inches * sizes[0][1] / PAGE_INCHES[1]
    places: dict[Side, tuple[float, float, float, float]] = {}
    for side, (wide_mm, _) in zip(sides, sizes, strict=True):
        wide = inches * wide_mm / PAGE_INCHES[0]
        places[side] = (left, bottom + height - tall, wide, tall)
        left += wide + GAP
    return places


def _picture(
    plot: Plot,
    side: Side,
    spine: MeasuredSpine,
    labels: LabelArray,
    grid: Grid,
    image: Num[np.ndarray, "S P L"] | None,
    modality: Modality | None,
) -> None:
    """Draw a slice that follows the bodies' centres, with the outline of each body."""
    plot.set_axis_off()
    plot.set_title(
        "from the side (front at the left)" if side == "sagittal" else "from the front", size=9.5, color=INK
    )
    bodies = [found for found in spine.bodies if found.body is not None]
    if not bodies:
        plot.text(0.5, 0.5, "no vertebral body was found", ha="center", color=FAINT)
        return
    centres = grid.index(np.array([found.centre_mm for found in bodies]))
    axis = AXIS[side]
    rows, columns = _window(centres, axis, grid)
    shown = _curved_slice(labels if image is None else image, centres, 3 - axis, rows)[
        :, columns[0] : columns[1]
    ]
    window: tuple[float, float] = (0.0, 2.5)
    if image is None:
        shown = shown > 0
    elif modality == "CT":
        window = CT_WINDOW_HU
    else:
        window = tuple(np.percentile(shown[np.isfinite(shown)], MR_PERCENTILES).tolist())
    plot.imshow(
        shown,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        origin="lower",
        extent=_extent(rows, columns, axis, grid),
        aspect="equal",
        interpolation="bilinear",
    )
    for found in bodies:
        _outline(plot, found, side, axis, grid)
    if side == "sagittal" and spine.sacrum is not None:
        ends = _places([spine.sacrum.front_corner_mm, spine.sacrum.back_corner_mm], axis, grid)
        plot.plot(*ends.T, color="#00c2a8", linewidth=2)
    plot.set_xlim(columns[0] * grid.spacing_mm[axis], columns[1] * grid.spacing_mm[axis])
    plot.set_ylim(rows[0] * grid.spacing_mm[0], rows[1] * grid.spacing_mm[0])


def _window(
    centres: Float64[np.ndarray, "n 3"], axis: int, grid: Grid
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows along S and the columns along an axis that are shown."""
    spans = []
    for along in (0, axis):
        margin = (MARGIN_MM + (10 if along == 0 else 25)) / grid.spacing_mm[along]
        low, high = centres[:, along].min() - margin, centres[:, along].max() + margin
        spans.append((max(0, int(low)), min(grid.shape[along], int(high) + 1)))
    return spans[0], spans[1]


def _curved_slice(
    array: Num[np.ndarray, "S P L"], centres: Float64[np.ndarray, "n 3"], across: int, rows: tuple[int, int]
) -> Num[np.ndarray, "rows columns"]:
    """Return one line of voxels of each row, at the place of the spine along the third axis."""
    order = np.argsort(centres[:, 0])
    heights = np.arange(*rows)
    places = np.interp(heights, centres[order, 0], centres[order, across])
    at = np.clip(np.rint(places).astype(int), 0, array.shape[across] - 1)
    lines = [
        array[row, :, place] if across == 2 else array[row, place, :]
        for row, place in zip(heights, at, strict=True)
    ]
    return np.stack(lines)


def _extent(
    rows: tuple[int, int], columns: tuple[int, int], axis: int, grid: Grid
) -> tuple[float, float, float, float]:
    """Return where a slice lies on the plot, in mm: head up, front to the left, the patient's left right."""
    height, width = grid.spacing_mm[0], grid.spacing_mm[axis]
    return (
        (columns[0] - 0.5) * width,
        (columns[1] - 0.5) * width,
        (rows[0] - 0.5) * height,
        (rows[1] - 0.5) * height,
    )


def _places(points: Sequence[Position], axis: int, grid: Grid) -> Float64[np.ndarray, "n 2"]:
    """Return positions in LPS as mm on the plot."""
    index = grid.index(np.array(points)) * grid.spacing_mm
    return index[:, [axis, 0]]


def _outline(plot: Plot, found: MeasuredBody, side: Side, axis: int, grid: Grid) -> None:
    """Draw a body's endplates and walls, and its level."""
    body = found.body
    if body is None:
        return
    across, up = _places([found.centre_mm], axis, grid)[0].tolist()
    colour = NAME if found.heights is not None else "#9aa0a6"
    plot.text(across, up, found.level, color=colour, size=7, ha="center", va="center", weight="bold")
    if found.cut or found.heights is None:
        return
    corners = []
    for cranial, ends in ((True, (-1, 1)), (False, (1, -1))):
        for end in ends:
            if side == "sagittal":
                corners.append(body.corner(anterior=end < 0, cranial=cranial))
            else:
                a, b, _ = body.upper if cranial else body.lower
                x = 0.5 * end * body.width_mm
                corners.append(body.frame.at(x, 0.0, a + b * x))
    outline = _places([*corners, corners[0]], axis, grid)
    plot.plot(*outline.T, color=OUTLINE, linewidth=0.9)


def _table(figure: Figure, measured: SpineMeasurements) -> None:
    """Write the numbers beside the pictures: vertebrae, then angles, alignment and notes."""
    left, right, top = 0.465, 0.99, 0.955
    own = vertebra_columns(measured.vertebrae)
    columns = (*own, *DISC_COLUMNS)
    width = (right - left) / len(columns)
    for place, (heading, _, _) in enumerate(columns):
        figure.text(left + (place + 0.5) * width, top, heading, size=8, ha="center", va="top", color=FAINT)
    discs = {disc.upper: disc for disc in measured.discs}
    row = min(0.0215, 0.56 / max(len(measured.vertebrae), 1))
    y = top - 0.045
    for vertebra in measured.vertebrae:
        cells = [table_cell(vertebra, *column[1:]) for column in own]
        cells += [table_cell(discs.get(vertebra.level), *column[1:]) for column in DISC_COLUMNS]
        colour = WARNING if vertebra.genant_grade else INK
        for place, cell in enumerate(cells):
            weight = "bold" if place == 0 else "normal"
            figure.text(
                left + (place + 0.5) * width,
                y,
                cell,
                size=8.5,
                ha="center",
                va="top",
                color=colour,
                weight=weight,
            )
        y -= row
    _remarks(figure, measured, left, y - 0.012)


def vertebra_columns(vertebrae: Sequence[VertebraMeasurements]) -> tuple[tuple[str, str, str], ...]:
    """Return the columns of the table of vertebrae, with the ring where rings were measured."""
    rings = any(vertebra.ring_area_mm2 is not None for vertebra in vertebrae)
    return (*COLUMNS, *(RING_COLUMNS if rings else CANAL_COLUMNS))


def table_cell(entry: object, name: str, form: str) -> str:
    """Return a field of a vertebra or a disc as the table shows it; a dash where it was not measured."""
    value = None if entry is None else getattr(entry, name)
    return "–" if value is None else form.format(value)


def _remarks(figure: Figure, measured: SpineMeasurements, left: float, y: float) -> None:
    """Write angles, alignment and notes, as many as there is room for."""
    lines = [
        (f"{a.name}: {a.degrees:.1f}°  ({a.upper} to {a.lower}{', ' + a.note if a.note else ''})", INK)
        for a in measured.angles
    ]
    alignment = measured.alignment
    if alignment.sagittal_vertical_axis_mm is not None:
        lines.append(
            (
                f"C7 lies {alignment.sagittal_vertical_axis_mm:+.0f} mm in front of the sacrum's back "
                f"corner, {alignment.coronal_balance_mm:+.0f} mm to the left of its middle",
                INK,
            )
        )
    lines += [(note, FAINT) for note in measured.notes]
    lines += [(note, WARNING) for note in grouped_notes(measured.vertebrae)]
    lines += [
        (f"{disc.upper}/{disc.lower}: {note}", WARNING) for disc in measured.discs for note in disc.notes
    ]
    room = int((y - 0.045) / 0.0175)
    if len(lines) > room:
        lines = [*lines[: room - 1], (f"and {len(lines) - room + 1} more notes in the JSON", FAINT)]
    for text, colour in lines:
        figure.text(
            left, y, text if len(text) < 125 else f"{text[:122]}...", size=8.3, va="top", color=colour
        )
        y -= 0.0175


def grouped_notes(vertebrae: Sequence[VertebraMeasurements]) -> list[str]:
    """Return each note once, with the levels that it is of."""
    levels: dict[str, list[str]] = {}
    for vertebra in vertebrae:
        for note in vertebra.notes:
            levels.setdefault(note, []).append(vertebra.level)
    return [f"{', '.join(names)}: {note}" for note, names in levels.items()]
