"""The content of a report: what the page shows, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from markupsafe import Markup

from autospine.report.case_volumes import CaseVolumes
from autospine.report.picture_layers import PictureLayers


@dataclass(frozen=True, kw_only=True, slots=True)
class Guide:
    """How to read a figure or a table."""

    shown: str
    """Content of the figure or table."""

    good: str
    """Look of a good result."""

    action: str
    """Remedy where it is not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One line about a folder or a case."""

    name: str
    value: str
    reason: str = ""
    """Why it is so; empty if that is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportTable:
    """A table of texts and numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()
    """Columns that hold numbers."""

    guide: Guide | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportFigure:
    """A chart."""

    title: str
    svg: Markup
    """The chart as SVG, in which every name is escaped."""

    guide: Guide


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSection:
    """A part of the page with a heading of its own."""

    key: str
    """Anchor of the section."""

    title: str
    facts: tuple[Fact, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences about what is missing or remarkable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedVertebra:
    """A vertebra of a case and its name."""

    level: str
    """The likeliest level."""

    known: bool
    """Whether it is likely enough for the vertebra to be called so."""

    confidence: float
    """Probability of the level, 0 to 1."""

    called: str
    """Level that the label map called it before; empty for points."""

    cut: bool
    """Whether the border of the image cuts it."""

    reference: str = ""
    """Level that the reference has there; empty if that is not known."""

    @property
    def right(self) -> bool | None:
        """Whether the reference has the same level; None if that is not known."""
        return self.reference == self.level if self.reference else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportCase:
    """One case of the table."""

    name: str
    modality: str
    """Empty if it is unknown."""

    site: str
    """Empty if it is unknown."""

    status: str
    """`evaluated`, `predicted`, `measured`, `failed` or `no prediction`."""

    score: float | None
    """Mean of the first metric over the classes; None if it is undefined or there is no reference."""

    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Value of each metric of each class."""

    findings: tuple[str, ...] = ()
    """Sentences about what is wrong, the largest first."""

    facts: tuple[Fact, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    """Tables beside the pictures, such as one of vertebrae."""

    vertebrae: tuple[NamedVertebra, ...] = ()
    """Vertebrae that were named, from the head down."""

    pictures: tuple[PictureLayers, ...] = ()
    volumes: CaseVolumes | None = None
    """Volumes for the viewer in 3D; None without an image, or where they have no room."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportContent:
    """A whole page."""

    title: str
    folder: str
    """Absolute path of the folder that it is about."""

    written: str
    """Day and time in words."""

    cases: tuple[ReportCase, ...] = ()
    """Cases, the worst first."""

    case_guide: Guide | None = None
    """How to read the cases; None for what is said of cases with or without scores."""

    metric: str = ""
    """Title of the first metric; empty without scores."""

    higher_is_better: bool = True
    """Whether large values of the first metric are good."""

    legend: tuple[tuple[str, str], ...] = ()
    """Name and colour of each class, as `#rrggbb`."""

    indices: tuple[tuple[str, str], ...] = ()
    """Name and colour of each stored index from 1 on, by which volumes are coloured."""

    summary: tuple[Fact, ...] = ()
    sections: tuple[ReportSection, ...] = ()
    exclusion: str = ""
    """Command that leaves marked cases out of the next training; empty if there are none to train on."""

    repetition: str = ""
    """Command that predicts failed cases again; empty if they are not predictions of images."""

    foot: tuple[Fact, ...] = ()
    """Versions, digests and the command to repeat it."""
