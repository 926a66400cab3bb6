"""DICOM segmentations: label maps that refer to the slices of their image.

They are written with highdicom, which is needed only here and only when one is written.
"""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt

from autospine import __version__
from autospine.core.errors import AutospineError, ImageError
from autospine.core.geometry import Grid, orientation
from autospine.core.labels import VERTEBRAE
from autospine.core.types import LabelArray
from autospine.io.dicom import Series, find_series
from autospine.io.library_chatter import without_warnings
from autospine.io.segments import Segment, present, rgb
from autospine.io.slice_stack import StraightenedGrid
from autospine.storage.atomic import replacing
from autospine.system.log import get_logger

logger = get_logger(__name__)

ENDING = ".dcm"

SERIES_NUMBER = 300
"""Series number of the segmentations, above those of the scanner's own series, which count from 1."""

LONGEST_NAME = 64
"""Most characters of a segment's label (value representation LO)."""

STRUCTURES = {
    r"vertebrae?": "Vertebra",
    r"sacrum": "Sacrum",
    r"coccyx": "Coccyx",
    r"(spinal )?cord": "SpinalCord",
    r"(spinal |vertebral )?canal": "VertebralCanal",
}
"""Names of classes (spaces for underscores) -> keywords of SNOMED CT's codes in DICOM PS3.16, as pydicom has
them. A vertebra by level has a code of its own, and so has a disc (context group 7604)."""

_VERTEBRA = re.compile(r"(?:vertebrae? )?([CTL]\d+)", re.IGNORECASE)
_DISC = re.compile(
    r"(?:intervertebral )?dis[ck] "
    r"(?:below (?P<one>[CTL]\d+)|(?P<above>[CTL]\d+) ?(?P<below>[CTL]\d+|S1?|sacrum))",
    re.IGNORECASE,
)

_COLUMN = (*(name for name in VERTEBRAE if name not in ("C1", "T13", "L6")), "S1")
"""Levels between whose neighbours lie the discs with codes (context group 7604 of DICOM PS3.16)."""

_LAST = ("T11", "T12", "L4", "L5")
"""Levels whose lower neighbour varies from person to person, and with it the code of the disc below."""

_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
"""Attributes that a slice must have, though they may be empty; older and anonymising software omits them."""


def require_highdicom() -> None:
    """Raise unless highdicom is installed.

    Raises:
        AutospineError: Naming the command that installs it.
    """
    if find_spec("highdicom") is None:
        raise AutospineError(
            "expected highdicom for writing DICOM segmentations, found none; "
            "install it with: pip install 'autospine[dicom]'"
        )


def check_slices(series: Path, stored: Grid, segments: Sequence[Segment]) -> None:
    """Check that a segmentation can refer to these slices, by making one with a single voxel in memory.

    Args:
        series: Folder of the slices, or file of the frames.
        stored: `Volume.stored` of the series.
        segments: Every class of the label map.

    Raises:
        ImageError: If the slices' headers lack what a segmentation refers to.
    """
    found = find_series(series)
    voxel = np.zeros(found.stack.grid().shape, dtype=np.uint8)
    voxel[0, 0, 0] = 1
    headers = _headers(found)
    if not all(headers[0].get(keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID")):
        logger.warning("%s: study or series has no UID; the segmentation refers to made-up ones", series)
    _made(voxel, stored, segments, headers, series)


def write_segmentation(
    path: Path, labels: LabelArray, stored: Grid, segments: Sequence[Segment], series: Path
) -> None:
    """Write a binary DICOM SEG with one segment for each class that has voxels.

    Args:
        path: File to write.
        labels: Label map (S, P, L) in canonical axes.
        stored: `Volume.stored` of the series.
        segments: Every class of the label map.
        series: Folder of the labelled image's slices, or file of its frames.

    Raises:
        ImageError: As `check_slices`, or if the file cannot be written.
    """
    shown = present(segments, labels)
    found = find_series(series)
    on_slices = orientation(stored).to_stored(labels)
    if isinstance(stored, StraightenedGrid):
        on_slices = stored.on_slices(on_slices)
    numbers = _numbered(on_slices, shown)
    if found.slices[0].n_frames > 1:  # the segmentation refers to frames in the order of their file
        numbers = numbers[np.argsort([s.frame for s in found.slices])]
    made = _made(numbers, stored, shown, _headers(found), series)
    try:
        with replacing(path) as temporary:
            made.save_as(temporary)
    except OSError as error:
        raise ImageError(
            f"expected to write {path}, found {error}; free some space or choose another folder"
        ) from None


def _made(
    numbers: Integer[np.ndarray, "k j i"],
    stored: Grid,
    segments: Sequence[Segment],
    headers: Sequence[Any],
    series: Path,
) -> Any:
    """Make a segmentation of these slices or frames; voxels hold the numbers of the segments, from 1."""
    import highdicom as hd

    try:
        with without_warnings():
            return hd.seg.Segmentation(
                source_images=_completed(headers, stored),
                pixel_array=numbers,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _described(number, segment) for number, segment in enumerate(segments, start=1)
                ],
                series_instance_uid=hd.UID(),
                series_number=SERIES_NUMBER,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer="AutoSpine",
                manufacturer_model_name="AutoSpine",
                software_versions=__version__,
                device_serial_number="0",
                series_description="AutoSpine segmentation",
                specific_character_set="ISO_IR 192",  # UTF-8, for names of any language
            )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ImageError(
            f"expected slices that a DICOM segmentation can refer to in {series}, found headers that do not "
            f"allow it ({type(error).__name__}: {error}); predict with another --format"
        ) from error


def _headers(series: Series) -> list[Any]:
    """Read the headers of the files in the volume's order.

    Raises:
        ImageError: If one has no frame of reference.
    """
    import pydicom

    headers = []
    for file in dict.fromkeys(series.files):
        # Old files have no mark at their beginning, so that pydicom needs `force`.
        with without_warnings():
            headers.append(pydicom.dcmread(file, stop_before_pixels=True, force=True))
        if not headers[-1].get("FrameOfReferenceUID"):
            raise ImageError(
                f"expected slices with a frame of reference, which a DICOM segmentation refers to, found "
                f"none in {file}; predict with another --format"
            )
    return headers


def _completed(headers: Sequence[Any], stored: Grid) -> Sequence[Any]:
    """Fill in the attributes that the standard requires and these headers lack."""
    import pydicom

    step = pydicom.valuerep.format_number_as_ds(stored.spacing_mm[0])
    regular = not isinstance(stored, StraightenedGrid) or stored.slices.regular
    for header in headers:
        # The stated value may differ from the positions; steps that change have none.
        header.SpacingBetweenSlices = step if regular else None
        if "PerFrameFunctionalGroupsSequence" in header:
            _share_measures(header, step if regular else None, step)
        frame, meta = header.FrameOfReferenceUID, header.file_meta
        wanted = {
            "SOPClassUID": meta.get("MediaStorageSOPClassUID"),
            "SOPInstanceUID": meta.get("MediaStorageSOPInstanceUID"),
            # Anonymised slices may have none; the same ones again for what lies in the same frame.
            "StudyInstanceUID": pydicom.uid.generate_uid(entropy_srcs=[frame, "study"]),
            "SeriesInstanceUID": pydicom.uid.generate_uid(entropy_srcs=[frame, "series"]),
            "SliceThickness": step,
        }
        for keyword, value in wanted.items():
            if not header.get(keyword):
                setattr(header, keyword, value)
        for keyword in _EMPTY:
            if keyword not in header:
                setattr(header, keyword, None)
    return headers


def _share_measures(header: Any, step: str | None, thickness: str) -> None:
    """State once for all frames what they have in common, as highdicom looks for it there alone.

    Philips states pixel sizes and orientation frame by frame.
    """
    from pydicom import Dataset

    if not header.get("SharedFunctionalGroupsSequence"):
        header.SharedFunctionalGroupsSequence = [Dataset()]
    shared, first = header.SharedFunctionalGroupsSequence[0], header.PerFrameFunctionalGroupsSequence[0]
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if not shared.get(keyword) and first.get(keyword):
            shared[keyword] = first[keyword]
    for measures in shared.get("PixelMeasuresSequence", ()):
        if not measures.get("SliceThickness"):
            measures.SliceThickness = thickness
        if step is not None:
            measures.SpacingBetweenSlices = step
        elif "SpacingBetweenSlices" in measures:
            del measures.SpacingBetweenSlices


def _numbered(labels: Integer[np.ndarray, "k j i"], segments: Sequence[Segment]) -> UInt[np.ndarray, "k j i"]:
    """Convert integers on disk to numbers of the segments, from 1."""
    numbers = np.zeros(labels.shape, dtype=np.min_scalar_type(len(segments)))
    for number, segment in enumerate(segments, start=1):
        numbers[labels == segment.integer] = number
    return numbers


def _described(number: int, segment: Segment) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    return hd.seg.SegmentDescription(
        segment_number=number,
        # A backslash would part two values.
        segment_label=segment.name.replace("\\", "/")[:LONGEST_NAME],
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=getattr(codes.SCT, structure(segment.name)),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="AutoSpine", version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        display_color=hd.color.CIELabColor.from_rgb(*rgb(segment.colour)),
    )


def structure(name: str) -> str:
    """Return the keyword of the SNOMED CT code of a class; `AnatomicalStructure` for an unknown one.

    T13 and L6 have no codes of their own and are vertebrae. A disc has one where its name says which two
    vertebrae it lies between.
    """
    words = re.sub(r"[_/-]", " ", name)
    level = _VERTEBRA.fullmatch(words)
    if level and level[1].upper() in VERTEBRAE:
        return "Vertebra" if level[1].upper() in ("T13", "L6") else f"{level[1].upper()}Vertebra"
    if disc := _DISC.fullmatch(words):
        return _disc(disc)
    known = (keyword for names, keyword in STRUCTURES.items() if re.fullmatch(names, words, re.IGNORECASE))
    return next(known, "AnatomicalStructure")


def _disc(match: re.Match[str]) -> str:
    one, above, below = ((match[group] or "").upper() for group in ("one", "above", "below"))
    for pair in pairwise(_COLUMN):
        if pair == (above, re.sub("^S.*", "S1", below)) or (pair[0] == one and one not in _LAST):
            return f"{pair[0]}{pair[1]}Disc"
    return "AnatomicalStructure"
