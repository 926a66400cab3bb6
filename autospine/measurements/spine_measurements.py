"""The measurements of a case, as they are written into `CASE_measurements.json`.

Definitions are in docs/concepts/measurements.md. A value that is None was not measured; `notes` say why.
"""

from dataclasses import dataclass
from typing import Literal

from autospine.core.types import Vector3
from autospine.storage.serialization import stored_as

FORMAT_VERSION = 2
"""Version of the file; in version 1 the vertebral ring was written where the canal is."""

DISCLAIMER = "AutoSpine is not a medical device; these numbers must not be used for diagnosis or treatment."

CanalSource = Literal["canal label", "vertebral ring"]
AnglePlane = Literal["coronal", "sagittal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VertebraMeasurements:
    """One vertebra."""

    level: str
    centre_mm: Vector3
    """Centroid of the body in LPS; of the whole bone where it has no body, or none was found."""

    volume_ml: float | None = None
    """Volume of the label: of the whole vertebra, or of the body where only bodies are labelled."""

    body_ml: float | None = None
    anterior_height_mm: float | None = None
    middle_height_mm: float | None = None
    posterior_height_mm: float | None = None
    depth_mm: float | None = None
    width_mm: float | None = None
    wedge_ratio: float | None = None
    """Anterior over posterior height."""

    genant_grade: int | None = None
    """0 to 3, from T4 to L4."""

    genant_shape: str | None = None
    """Wedge, biconcave or crush, of grades above 0."""

    coronal_tilt_deg: float | None = None
    """Angle of the superior axis to the patient's in the coronal plane; positive leans to the left."""

    sagittal_tilt_deg: float | None = None
    """The same in the sagittal plane; positive leans forwards."""

    trabecular_hu: float | None = None
    trabecular_sd_hu: float | None = None
    canal_area_mm2: float | None = None
    """Cross-section of the labelled canal."""

    canal_depth_mm: float | None = None
    """Anteroposterior diameter of the canal in the midline."""

    canal_width_mm: float | None = None
    canal_source: CanalSource | None = None
    """Whether the labelled canal was measured or, without a label of it, the ring of bone around it."""

    ring_area_mm2: float | None = None
    """Area of the opening that the vertebra's own bone encloses; larger than the canal's."""

    ring_depth_mm: float | None = None
    """Anteroposterior diameter of this opening in the midline."""

    ring_width_mm: float | None = None
    notes: tuple[str, ...] = ()
    """Reasons for which measurements are doubtful, or impossible."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscMeasurements:
    """The space between two neighbouring vertebrae, or the last one and the sacrum."""

    upper: str
    lower: str
    height_mm: float | None = None
    anterior_height_mm: float | None = None
    posterior_height_mm: float | None = None
    angle_deg: float | None = None
    """Angle between the endplates in the sagittal plane; positive is open in front."""

    slip_mm: float | None = None
    """Distance by which the upper vertebra has slipped forwards (positive) or backwards."""

    slip_percent: float | None = None
    """The same in per cent of the lower endplate's depth."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SpineAngle:
    """An angle between two endplates."""

    name: str
    degrees: float
    plane: AnglePlane
    upper: str
    """Endplate at the upper end, such as `T4 upper`."""

    lower: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """Where the neck stands over the pelvis, as the patient lay in the scanner."""

    sagittal_vertical_axis_mm: float | None = None
    """Distance of the centre of C7 in front of (positive) the sacrum's back upper corner."""

    coronal_balance_mm: float | None = None
    """Distance of the centre of C7 to the left of the middle of the sacral endplate."""

    largest_deviation_mm: float | None = None
    """Largest distance of a body's centre, in the coronal plane, from the line of the first and the last."""

    largest_deviation_at: str | None = None


@stored_as("the measurements of a spine")
@dataclass(frozen=True, kw_only=True, slots=True)
class SpineMeasurements:
    """The content of `CASE_measurements.json`."""

    format_version: int
    case: str
    disclaimer: str
    spacing_mm: Vector3
    """Voxel size along S, P and L, which limits how exact lengths are."""

    coordinates: Literal["LPS"]
    """Positions in mm: x grows to the left, y to the back, z to the head."""

    vertebrae: tuple[VertebraMeasurements, ...]
    """From the head down."""

    discs: tuple[DiscMeasurements, ...]
    angles: tuple[SpineAngle, ...]
    alignment: Alignment
    notes: tuple[str, ...] = ()
    """Measurements that could not be made in this case, and why."""

    label_map: str = ""
    """Absolute path of the label map that was measured; empty in files of earlier versions."""


def rounded(value: float, digits: int = 2) -> float:
    """Return a measured value as it is written: to hundredths of its unit unless said otherwise."""
    return round(float(value), digits)
