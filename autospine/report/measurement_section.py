"""The parts of a report that are about measured spines: the numbers of each case, and of each level."""

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from autospine.core.errors import AutospineError
from autospine.measurements.measurement_failures import FAILURES, read_failures
from autospine.measurements.measurement_files import JSON_ENDING, read_measurements
from autospine.measurements.spine_measurements import SpineMeasurements
from autospine.report.charts import ChartPoint, strip_plot
from autospine.report.measurement_page import (
    DISC_COLUMNS,
    PAGE_ENDING,
    grouped_notes,
    pictures_box,
    table_cell,
    vertebra_columns,
)
from autospine.report.picture_layers import PictureLayers
from autospine.report.report_content import Fact, Guide, ReportCase, ReportFigure, ReportSection, ReportTable
from autospine.report.vertebra_names import name_findings, named_vertebrae, names_table, read_names
from autospine.storage.file_names import same_name
from autospine.system.log import get_logger, track
from autospine.vertebrae.levels import INDEX

logger = get_logger(__name__)

PICTURE_QUALITY = 70
"""Quality of the picture of a case, of 100: its letters stay sharp."""

LEAST_SLIP_MM = 3.0
"""Least slip of a vertebra that a case mentions."""

MEASUREMENT_GUIDE = Guide(
    shown="All cases: those that could not be measured, then those with the most severe findings. Beside the "
    "table the chosen case: the spine from the side and from the front with what was measured, and its "
    "numbers.",
    good="Outlines that lie on the endplates, every vertebra with the name that it has, and no findings.",
    action="Look at the outlines before you believe a number. Mark a case whose outlines are wrong: its "
    "label map needs correction.",
)

MEASURED_CHARTS: tuple[tuple[str, str, str, Guide], ...] = (
    (
        "wedge_ratio",
        "Anterior over posterior height",
        "",
        Guide(
            shown="A point for each vertebra, placed by its anterior height divided by its posterior height, "
            "both at the walls; the line is the median. A point opens its case.",
            good="Points near 1, a little below in the thoracic spine.",
            action="Below 0.8 a vertebra is wedged: open it, and see whether its outline is right.",
        ),
    ),
    (
        "posterior_height_mm",
        "Posterior height",
        " mm",
        Guide(
            shown="A point for each vertebra, placed by the height of its back wall; the line is the median. "
            "A point opens its case.",
            good="Heights that grow from the head down, and lie together within a level.",
            action="A height far from the others of its level is a fracture, a vertebra of another name, or "
            "two that are labelled as one.",
        ),
    ),
    (
        "canal_area_mm2",
        "Area of the canal",
        " mm²",
        Guide(
            shown="A point for each vertebra, placed by the area of the canal behind it; the line is the "
            "median. A point opens its case.",
            good="Areas that change little from level to level.",
            action="Open a point far to the left: the canal is narrow there, or its label has a gap.",
        ),
    ),
    (
        "ring_area_mm2",
        "Area of the vertebral ring",
        " mm²",
        Guide(
            shown="A point for each vertebra of a map without a label of the canal, placed by the area that "
            "its own bone encloses; the line is the median. A point opens its case.",
            good="Areas that change little from level to level; they are a fifth to a half larger than the "
            "canal's, and must not be compared with them.",
            action="Open a point far to the left: the label of the bone runs into the canal there, or the "
            "canal is narrow.",
        ),
    ),
    (
        "trabecular_hu",
        "Density of the trabecular core",
        " HU",
        Guide(
            shown="A point for each vertebra in CT, placed by the mean of its core; the line is the median. "
            "A point opens its case.",
            good="The vertebrae of a case lie together.",
            action="A vertebra far to the right is sclerotic, cemented or near metal, one far to the left "
            "has lost bone. Contrast medium and the tube's voltage shift all of a case.",
        ),
    ),
)
"""Field, title, unit and guide of each chart by level."""


def read_measured(folder: Path) -> dict[str, SpineMeasurements]:
    """Read the measurements in a folder, by case.

    Damaged ones are warned of and left out, and so are those of cases that failed when measured again.
    """
    found, failed = {}, _failures(folder)
    for path in sorted(folder.glob(f"*{JSON_ENDING}")):
        try:
            measured = read_measurements(path)
        except AutospineError as error:
            logger.warning("the report leaves a case out: %s", error)
            continue
        if measured.case not in failed:
            found[measured.case] = measured
    return found


def holds_measurements(folder: Path) -> bool:
    """Return whether a folder has measurements of a spine, or spines that could not be measured."""
    return (folder / FAILURES).is_file() or next(folder.glob(f"*{JSON_ENDING}"), None) is not None


def measured_cases(folder: Path, measured: Mapping[str, SpineMeasurements]) -> tuple[ReportCase, ...]:
    """Return the cases that could not be measured, then the measured ones, the most severe findings first."""
    bare = ReportCase(name="", modality="", site="", status="measured", score=None)
    cases = [
        with_measurements(replace(bare, name=name), folder, each)
        for name, each in track(sorted(measured.items()), "drawing the report")
    ]
    worst = {
        name: max((each.genant_grade or 0 for each in of.vertebrae), default=0)
        for name, of in measured.items()
    }
    cases.sort(key=lambda case: (-worst[case.name], -len(case.findings), case.name))
    unmeasured = [
        replace(bare, name=name, status="failed", findings=(f"it could not be measured: {reason}",))
        for name, reason in sorted(_failures(folder).items())
    ]
    return (*unmeasured, *cases)


def measured_summary(cases: Sequence[ReportCase]) -> tuple[Fact, ...]:
    """Return how many cases were measured, and what is most severe, for the summary of the page."""
    if not cases:
        return (Fact(name="cases", value="none", reason="no file of measurements can be read"),)
    counts = Counter(case.status for case in cases)
    return (
        Fact(name="cases", value=", ".join(f"{n} {status}" for status, n in counts.items())),
        Fact(name="first to look at", value=cases[0].name, reason=cases[0].findings[0]),
    )


def _failures(folder: Path) -> dict[str, str]:
    """Return why cases could not be measured; a damaged file of that is warned of and left out."""
    try:
        return read_failures(folder)
    except AutospineError as error:
        logger.warning("the report leaves out which cases could not be measured: %s", error)
        return {}


def add_measurements(
    cases: Sequence[ReportCase], folder: Path, measured: Mapping[str, SpineMeasurements]
) -> tuple[ReportCase, ...]:
    """Return cases with the measurements that their folder has of them."""
    by_name = {same_name(name): each for name, each in measured.items()}
    return tuple(
        case
        if (found := by_name.get(same_name(case.name))) is None
        else with_measurements(case, folder, found)
        for case in cases
    )


def with_measurements(case: ReportCase, folder: Path, measured: SpineMeasurements) -> ReportCase:
    """Return a case with its measurements, its figure, and the names of its vertebrae."""
    vertebrae, tables, findings = case.vertebrae, [], [*case.findings, *_findings(measured)]
    if not vertebrae:
        places = [folder, *([Path(measured.label_map).parent] if measured.label_map else [])]
        names = read_names(places, measured.case)
        vertebrae = () if names is None else named_vertebrae(names)
        tables = [names_table(vertebrae)] if vertebrae else []
        findings += [] if names is None else name_findings(vertebrae, (), names.notes)
    picture = _figure(folder / f"{measured.case}{PAGE_ENDING}")
    return replace(
        case,
        findings=tuple(findings) or ("nothing remarkable was measured",),
        facts=(*case.facts, *_spine_facts(measured)),
        tables=(*case.tables, _vertebra_table(measured), *tables),
        vertebrae=vertebrae,
        pictures=(*case.pictures, *picture),
    )


def measurement_section(
    cases: Sequence[ReportCase], measured: Mapping[str, SpineMeasurements]
) -> ReportSection | None:
    """Return the charts of what was measured, by level; None if nothing was."""
    if not measured:
        return None
    vertebrae = [each for of in measured.values() for each in of.vertebrae]
    whole = sum(each.posterior_height_mm is not None for each in vertebrae)
    grades = [each for each in vertebrae if each.genant_grade]
    return ReportSection(
        key="measurements",
        title="Measurements",
        notes=(next(iter(measured.values())).disclaimer,),
        facts=(
            Fact(name="vertebrae", value=f"{whole} of {len(vertebrae)} measured"),
            Fact(
                name="Genant grade 1 to 3",
                value=str(len(grades)),
                reason="from T4 to L4, by the heights of the body alone",
            ),
        ),
        figures=tuple(figure for chart in MEASURED_CHARTS for figure in _by_level(cases, measured, *chart)),
    )


def _findings(measured: SpineMeasurements) -> Iterator[str]:
    for vertebra in sorted(measured.vertebrae, key=lambda each: -(each.genant_grade or 0)):
        if vertebra.genant_grade:
            yield f"{vertebra.level}: Genant grade {vertebra.genant_grade}, {vertebra.genant_shape}"
    for disc in measured.discs:
        if disc.slip_mm is not None and abs(disc.slip_mm) >= LEAST_SLIP_MM:
            way = "forwards" if disc.slip_mm > 0 else "backwards"
            yield f"{disc.upper} has slipped {abs(disc.slip_mm):.1f} mm {way} over {disc.lower}"
    yield from grouped_notes(measured.vertebrae)
    yield from measured.notes


def _spine_facts(measured: SpineMeasurements) -> Iterator[Fact]:
    for angle in measured.angles:
        ends = f"{angle.upper} to {angle.lower}"
        yield Fact(
            name=angle.name,
            value=f"{angle.degrees:.1f}°",
            reason=f"{ends}, {angle.note}" if angle.note else ends,
        )
    alignment = measured.alignment
    for name, value in (
        ("sagittal vertical axis", alignment.sagittal_vertical_axis_mm),
        ("coronal balance", alignment.coronal_balance_mm),
        ("largest deviation", alignment.largest_deviation_mm),
    ):
        if value is not None:
            yield Fact(name=name, value=f"{value:.1f} mm")
    yield Fact(name="voxels S P L", value=" × ".join(f"{mm:.3g}" for mm in measured.spacing_mm) + " mm")


def _vertebra_table(measured: SpineMeasurements) -> ReportTable:
    discs = {disc.upper: disc for disc in measured.discs}
    shown = vertebra_columns(measured.vertebrae)
    columns = tuple(heading.replace("\n", " ") or "level" for heading, _, _ in (*shown, *DISC_COLUMNS))
    rows = [
        (
            *(table_cell(vertebra, *column[1:]) for column in shown),
            *(table_cell(discs.get(vertebra.level), *column[1:]) for column in DISC_COLUMNS),
        )
        for vertebra in measured.vertebrae
    ]
    return ReportTable(
        title="Vertebrae, and the disc below each",
        columns=columns,
        rows=tuple(rows),
        numeric=tuple(range(1, len(columns))),
    )


def _figure(path: Path) -> Iterator[PictureLayers]:
    """Yield the pictures of the page that was written of a case, if it is there and can be read."""
    try:
        with Image.open(path) as picture:
            buffer, shown = io.BytesIO(), picture.convert("RGB").crop(pictures_box(*picture.size))
            shown.save(buffer, format="webp", quality=PICTURE_QUALITY, method=4)
    except (OSError, ValueError) as error:
        logger.debug("%s is not shown: %s", path, error)
        return
    yield PictureLayers(
        title="what was measured, over the middle of the spine from the side and from the front",
        plane="page",
        width=shown.width,
        height=shown.height,
        image=f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}",
        prediction="",
        reference="",
        difference="",
        marked=None,
    )


def _by_level(
    cases: Sequence[ReportCase],
    measured: Mapping[str, SpineMeasurements],
    name: str,
    title: str,
    unit: str,
    guide: Guide,
) -> Iterator[ReportFigure]:
    """Yield the chart of a field of all vertebrae, unless it was measured nowhere."""
    places = {same_name(case.name): i for i, case in enumerate(cases)}
    rows: dict[str, list[ChartPoint]] = {}
    for case, of in measured.items():
        for vertebra in of.vertebrae:
            if (x := getattr(vertebra, name)) is not None:
                point = ChartPoint(name=f"{case} {vertebra.level}", x=x, case=places.get(same_name(case)))
                rows.setdefault(vertebra.level, []).append(point)
    if rows:
        ordered = dict(sorted(rows.items(), key=lambda item: INDEX.get(item[0], len(INDEX))))
        low = 0.0 if unit else None  # ratios lie close together, far from 0
        svg = strip_plot(ordered, title=f"{title} of each vertebra, by level", unit=unit, low=low)
        yield ReportFigure(title=f"{title}, by level", svg=svg, guide=guide)
