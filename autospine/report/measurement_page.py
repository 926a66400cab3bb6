"""The page of a measured case: the spine from the side and from the front, and its numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Num
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from autospine.core.colours import class_colours
from autospine.core.geometry import Grid
from autospine.core.types import LabelArray, Modality, Position
from autospine.measurements.measure_spine import MeasuredSpine
from autospine.measurements.measured_bodies import MeasuredBody
from autospine.measurements.spine_measurements import SpineMeasurements, VertebraMeasurements
from autospine.report.figures import new_figure, save_figure
from autospine.report.views import CT_WINDOW_HU, MR_PERCENTILES

PAGE_ENDING = "_measurements.png"
"""Ending of the page of a case."""

PAGE_INCHES = 15.5
"""Width of the page; it is as high as its pictures and its table need."""

HEAD_INCHES, FOOT_INCHES = 0.87, 0.55
"""Height of what is above and below the pictures and the table."""

LARGEST_INCHES = 8.7
"""Largest height of the pictures."""

ROW_INCHES, LINE_INCHES = 0.22, 0.18
"""Height of a row of the table, and of a line of text."""

MOST_ROWS_INCHES = 5.7
"""Height into which the rows of many vertebrae are pressed."""

DPI = 110
PAPER, INK, FAINT, WARNING = "white", "#1a1a1a", "#6b6b6b", "#b03a00"
OUTLINE, NAME = "#ffb000", "#ffd166"
BACK, BONE = 0.06, 0.5
"""Grey of a label map that is shown without an image: of the background, and of what is no vertebra."""

MOST_LINES = 30
"""Most lines of text below the table."""

LONGEST = 125
"""Most characters of such a line."""

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

LEFT_INCHES, ACROSS_INCHES = 0.31, 6.66
"""Left edge of the pictures, and width of both together."""

GAP_INCHES = 0.19
"""Gap between them."""

TITLE_INCHES = 0.28
"""Height of the line above each."""

TABLE = (0.465, 0.99)
"""Left and right edge of the table, in parts of the page's width."""

INNER_MM = 4.0
"""Least distance of a name from the edge of its picture."""

EXPECTED = ("the border of the image cuts", "no body with two endplates")
"""Beginnings of notes on what is cut, which are no warnings."""


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
    measured = spine.measurements
    sizes = _sizes_of_pictures(spine, grid)
    remarks = _remarks(measured)
    row = _row_inches(measured)
    table = row * len(measured.vertebrae) + LINE_INCHES * (len(remarks) + 2)
    tallest = max((tall for _, tall in sizes.values()), default=0.0)
    height = HEAD_INCHES + max(tallest, table) + FOOT_INCHES
    figure = new_figure(PAGE_INCHES, height, dpi=DPI, background=PAPER)
    _write(figure, LEFT_INCHES, 0.31, measured.case, size=17, weight="bold", color=INK)
    spacing = " x ".join(f"{value:.2f}" for value in measured.spacing_mm)
    about = f"voxels {spacing} mm (S, P, L); patient lying in the scanner"
    _write(figure, LEFT_INCHES, 0.54, about, size=9, color=FAINT)
    left = LEFT_INCHES
    for side, (wide, tall) in sizes.items():
        place = (left / PAGE_INCHES, 1 - (HEAD_INCHES + tall) / height, wide / PAGE_INCHES, tall / height)
        _picture(figure.add_axes(place), side, spine, labels, grid, image, modality)
        left += wide + GAP_INCHES
    if not sizes:
        _write(figure, LEFT_INCHES, HEAD_INCHES, "no vertebral body was found", size=9.5, color=FAINT)
    below = _table(figure, measured, row)
    for line, (text, colour) in enumerate(remarks):
        shown = text if len(text) < LONGEST else f"{text[: LONGEST - 3]}..."
        y = below + (line + 0.5) * LINE_INCHES
        _write(figure, TABLE[0] * PAGE_INCHES, y, shown, size=8.3, va="top", color=colour)
    _write(figure, LEFT_INCHES, height - 0.2, measured.disclaimer, size=9.5, weight="bold", color=WARNING)
    save_figure(figure, path)


def pictures_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the box of a page's pictures with their titles: left, upper, right and lower pixel."""
    pixels = width / PAGE_INCHES
    return (
        round((LEFT_INCHES - GAP_INCHES / 2) * pixels),
        round((HEAD_INCHES - TITLE_INCHES) * pixels),
        round((LEFT_INCHES + ACROSS_INCHES + GAP_INCHES / 2) * pixels),
        round(height - (FOOT_INCHES - GAP_INCHES / 2) * pixels),
    )


def _write(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    """Write a text at a distance in inches from the left and from the upper edge of the page."""
    figure.text(left / PAGE_INCHES, 1 - top / figure.get_figheight(), text, **style)


def _row_inches(measured: SpineMeasurements) -> float:
    return min(ROW_INCHES, MOST_ROWS_INCHES / max(len(measured.vertebrae), 1))


def _sizes_of_pictures(spine: MeasuredSpine, grid: Grid) -> dict[Side, tuple[float, float]]:
    """Return the width and height of both pictures in inches, with a millimetre as long in both."""
    sides: tuple[Side, ...] = ("sagittal", "coronal")
    bodies = [found for found in spine.bodies if found.body is not None]
    if not bodies:
        return {}
    centres = grid.index(np.array([found.centre_mm for found in bodies]))
    sizes = []
    for side in sides:
        rows, columns = _window(centres, AXIS[side], grid)
        wide = (columns[1] - columns[0]) * grid.spacing_mm[AXIS[side]]
        sizes.append((wide, (rows[1] - rows[0]) * grid.spacing_mm[0]))
    across = ACROSS_INCHES - GAP_INCHES
    inches = min(across / (sizes[0][0] + sizes[1][0]), LARGEST_INCHES / sizes[0][1])
    return {side: (inches * wide, inches * tall) for side, (wide, tall) in zip(sides, sizes, strict=True)}


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
    centres = grid.index(np.array([found.centre_mm for found in bodies]))
    axis = AXIS[side]
    rows, columns = _window(centres, axis, grid)
    cut = slice(*columns)
    classes = _curved_slice(labels, centres, 3 - axis, rows)[:, cut]
    colours = class_colours([found.level for found in spine.bodies])
    if image is None:
        shown: np.ndarray = np.full((*classes.shape, 3), BACK)
        shown[classes > 0] = BONE
        for found in spine.bodies:
            shown[classes == found.integer] = 0.5 * np.add(colours[found.level], BONE)
        window: tuple[float, float] = (0.0, 1.0)
    else:
        shown = _curved_slice(image, centres, 3 - axis, rows)[:, cut]
        window = CT_WINDOW_HU
        if modality != "CT":
            window = tuple(np.percentile(shown[np.isfinite(shown)], MR_PERCENTILES).tolist())
    extent = _extent(rows, columns, axis, grid)
    plot.imshow(
        shown,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        origin="lower",
        extent=extent,
        aspect="equal",
        interpolation="nearest" if image is None else "bilinear",
    )
    for found in spine.bodies if image is not None else ():
        inside = classes == found.integer
        if inside.any() and not inside.all():
            colour = colours[found.level]
            plot.contour(inside, (0.5,), colors=(colour,), linewidths=0.8, origin="lower", extent=extent)
    plot.set_xlim(columns[0] * grid.spacing_mm[axis], columns[1] * grid.spacing_mm[axis])
    plot.set_ylim(rows[0] * grid.spacing_mm[0], rows[1] * grid.spacing_mm[0])
    for found in bodies:
        _outline(plot, found, side, axis, grid)
    if side == "sagittal" and spine.sacrum is not None:
        ends = _places([spine.sacrum.front_corner_mm, spine.sacrum.back_corner_mm], axis, grid)
        plot.plot(*ends.T, color="#00c2a8", linewidth=2)


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
    low, high = sorted(plot.get_ylim())
    up = min(max(up, low + INNER_MM), high - INNER_MM)
    name = plot.text(across, up, found.level, color=colour, size=7, ha="center", va="center", weight="bold")
    name.set_path_effects([withStroke(linewidth=2, foreground="black")])
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


def _table(figure: Figure, measured: SpineMeasurements, row: float) -> float:
    """Write the numbers of vertebrae and discs beside the pictures; return where they end, in inches."""
    left, right = (edge * PAGE_INCHES for edge in TABLE)
    own = vertebra_columns(measured.vertebrae)
    columns = (*own, *DISC_COLUMNS)
    width = (right - left) / len(columns)
    middles = [left + (place + 0.5) * width for place in range(len(columns))]
    for middle, (heading, _, _) in zip(middles, columns, strict=True):
        _write(figure, middle, HEAD_INCHES - 0.41, heading, size=8, ha="center", va="top", color=FAINT)
    discs = {disc.upper: disc for disc in measured.discs}
    y = HEAD_INCHES + 0.05
    for vertebra in measured.vertebrae:
        cells = [table_cell(vertebra, *column[1:]) for column in own]
        cells += [table_cell(discs.get(vertebra.level), *column[1:]) for column in DISC_COLUMNS]
        colour = WARNING if vertebra.genant_grade else INK
        for middle, cell in zip(middles, cells, strict=True):
            weight = "bold" if middle == middles[0] else "normal"
            _write(figure, middle, y, cell, size=8.5, ha="center", va="top", color=colour, weight=weight)
        y += row
    return y


def vertebra_columns(vertebrae: Sequence[VertebraMeasurements]) -> tuple[tuple[str, str, str], ...]:
    """Return the columns of the table of vertebrae, with the ring where rings were measured."""
    rings = any(vertebra.ring_area_mm2 is not None for vertebra in vertebrae)
    return (*COLUMNS, *(RING_COLUMNS if rings else CANAL_COLUMNS))


def table_cell(entry: object, name: str, form: str) -> str:
    """Return a field of a vertebra or a disc as the table shows it; a dash where it was not measured."""
    value = None if entry is None else getattr(entry, name)
    return "–" if value is None else form.format(value)


def _remarks(measured: SpineMeasurements) -> list[tuple[str, str]]:
    """Return lines with angles, alignment and notes, at most `MOST_LINES`, each with its colour."""
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
    for note in grouped_notes(measured.vertebrae):
        lines.append((note, FAINT if note.partition(": ")[2].startswith(EXPECTED) else WARNING))
    lines += [
        (f"{disc.upper}/{disc.lower}: {note}", WARNING) for disc in measured.discs for note in disc.notes
    ]
    if len(lines) > MOST_LINES:
        left_out = len(lines) - MOST_LINES + 1
        lines = [*lines[: MOST_LINES - 1], (f"and {left_out} more notes in the JSON", FAINT)]
    return lines


def grouped_notes(vertebrae: Sequence[VertebraMeasurements]) -> list[str]:
    """Return each note once, with the levels that it is of."""
    levels: dict[str, list[str]] = {}
    for vertebra in vertebrae:
        for note in vertebra.notes:
            levels.setdefault(note, []).append(vertebra.level)
    return [f"{', '.join(names)}: {note}" for note, names in levels.items()]
