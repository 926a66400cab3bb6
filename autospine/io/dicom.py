"""One DICOM series from a folder or a file: found by its headers and sorted by position; gaps are refused."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import atan2, degrees
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Num

from autospine.core.errors import ImageError
from autospine.core.geometry import Grid, vector
from autospine.core.types import Modality
from autospine.io.dicom_header import DicomFile, SliceHeader, is_dicom, read_header
from autospine.io.dicom_pixels import read_slices
from autospine.io.slice_stack import SliceStack
from autospine.storage.file_names import escape_non_utf8, is_utf8

STEP_TOLERANCE = 0.05
"""Steps between slices may differ by this share of the median step ..."""

STEP_TOLERANCE_MM = 0.02
"""... or by this much: positions are often written with two decimals."""

TILT_TOLERANCE_MM = 0.1
"""Slices may lie beside the normal through the first one, or beside a tilted line, by this much ..."""

TILT_TOLERANCE = 1e-3
"""... and by this share of their distance from it: direction cosines may have three decimals."""

LARGEST_TILT = 45.0
"""Largest angle in degrees between the normal and the line through the slices; gantries tilt by up to 30."""

PIXEL_TOLERANCE = 1e-3
"""Pixels of slices may differ in size by this share: headers round it."""

MENTIONED = 3
"""Most files that a message names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """The only series of a folder or file, checked."""

    slices: tuple[SliceHeader, ...]
    """Headers in the order of the volume."""

    stack: SliceStack
    """Places of the slices."""

    notes: tuple[str, ...] = ()
    """Notes on the geometry and on files that were left out."""

    @property
    def files(self) -> tuple[Path, ...]:
        """File of each slice."""
        return tuple(s.path for s in self.slices)


def find_series(path: Path) -> Series:
    """Find the only series of a folder or of a file with several frames, sorted by position.

    Slices that are copies of one another count once; DICOM files that are no slices are left out.

    Raises:
        ImageError: If there is no series or more than one, if slices are missing, double, damaged, of
            different sizes or not on one line, or if a header does not state what their places follow from.
    """
    files = [path] if path.is_file() else [file for file in sorted(path.iterdir()) if is_dicom(file)]
    for file in files:
        check_name(file)
    headers = [read_header(file) for file in files]
    found, left_out = _one_series(headers, path)
    found.sort(key=lambda s: (s.along_mm, s.instance))
    slices = _without_copies(found)
    _check_alike(slices, path)
    stack = _stack(slices, path)
    return Series(
        slices=tuple(slices),
        stack=stack,
        notes=(
            *_left_out_notes(left_out, len(found) - len(slices), len(files)),
            *_geometry_notes(slices, stack),
        ),
    )


def read_series(series: Series) -> tuple[Num[np.ndarray, "k j i"], Grid]:
    """Read the slices of a series as one volume, rescaled as each header says (HU for CT).

    Returns:
        The voxels and their grid: that of the slices themselves if it has perpendicular axes, else a
        `StraightenedGrid` that they were interpolated onto.

    Raises:
        ImageError: If a file is damaged.
    """
    voxels = read_slices(series.slices)
    if series.stack.straight:
        return voxels, series.stack.grid()
    grid = series.stack.straight_grid()
    return grid.straightened(voxels), grid


def is_series(folder: Path) -> bool:
    """Whether a folder holds DICOM images, or damaged DICOM files."""
    return folder.is_dir() and next(_images(folder), None) is not None


def check_name(path: Path) -> None:
    """Raise unless SimpleITK can take a path, with which it would end the process.

    Raises:
        ImageError: If a name in it is not UTF-8.
    """
    if not is_utf8(path):
        raise ImageError(f"expected a name in UTF-8, found {escape_non_utf8(str(path))}; rename it")


def dicom_modality(path: Path) -> Modality | None:
    """Return the modality in the header of a DICOM file, or of the first slice of a folder.

    Returns:
        None if it is neither CT nor MR, or there is no DICOM slice.
    """
    if not (path.is_dir() or is_dicom(path)):
        return None
    first = next((file.slices[0] for file in _images(path) if file.slices), None)
    if first is None:
        return None
    return "CT" if first.modality == "CT" else "MR" if first.modality == "MR" else None


def _images(path: Path) -> Iterator[DicomFile]:
    """Yield the headers of images and damaged files."""
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if is_dicom(file) and (header := read_header(file)).other is None:
            yield header


def _one_series(files: Sequence[DicomFile], path: Path) -> tuple[list[SliceHeader], list[str]]:
    """Return the slices of the only series, and descriptions of the other files.

    Raises:
        ImageError: If there is none or several, or a file of the series cannot be used.
    """
    by_series: dict[str, list[SliceHeader]] = defaultdict(list)
    for file in files:
        if file.slices:
            by_series[file.series] += file.slices
    if not by_series:
        found = [_fault_of(file) for file in files]
        raise ImageError(
            f"expected DICOM slices in grey with positions and pixel sizes in {path}, found "
            f"{_first(found) or 'none'}; export the original slices, or convert them to NIfTI"
        )
    if len(by_series) > 1:
        listed = ", ".join(f"{s[0].description or uid} ({len(s)} slices)" for uid, s in by_series.items())
        raise ImageError(f"expected one DICOM series in {path}, found {listed}; give each its own folder")
    ((series, slices),) = by_series.items()
    # A file that is damaged may have been one of the slices.
    wrong = [_fault_of(file) for file in files if file.fault and file.series in ("", series)]
    if wrong:
        raise ImageError(
            f"expected sound DICOM slices in {path}, found {_first(wrong)}; export them again, or move "
            "what does not belong to the series elsewhere"
        )
    return slices, [_fault_of(file) for file in files if not file.slices]


def _fault_of(file: DicomFile) -> str:
    what = file.other or file.fault
    return f"{file.path.name} ({what})"


def _first(names: Sequence[str]) -> str:
    more = len(names) - MENTIONED
    return ", ".join(names[:MENTIONED]) + (f" and {more} more" if more > 0 else "")


def _left_out_notes(left_out: Sequence[str], n_copies: int, n_files: int) -> list[str]:
    notes = [f"{n_copies} of {n_files} DICOM files left out: copies of others"] if n_copies else []
    if left_out:
        notes.append(f"{len(left_out)} of {n_files} DICOM files left out: {_first(left_out)}")
    return notes


def _geometry_notes(slices: Sequence[SliceHeader], stack: SliceStack) -> list[str]:
    notes = []
    if stack.tilted:
        notes.append(
            f"slices are tilted by {_tilt(stack):.1f} degrees against their stack: straightened by "
            "interpolation"
        )
    if not stack.regular:
        steps = np.diff([s.along_mm for s in slices])
        notes.append(
            f"steps between slices are {steps.min():.3g} to {steps.max():.3g} mm: interpolated to "
            f"{stack.step_mm:.3g} mm, where label maps lie, but for DICOM segmentations"
        )
    if any(s.inverted for s in slices) and slices[0].modality != "CT":
        notes.append("is displayed inverted (MONOCHROME1); values are taken as they are stored")
    return notes


def _without_copies(slices: Sequence[SliceHeader]) -> list[SliceHeader]:
    """Keep one slice of those with the same instance, position and voxels."""
    kept: list[SliceHeader] = []
    # Positions of copies are equal to the digit, so that copies are neighbours.
    for _, same in groupby(slices, key=lambda s: (s.along_mm, s.position_mm, s.orientation, s.instance)):
        first, *others = same
        kept += [first, *(other for other in others if not _same_voxels(first, other))]
    return kept


def _same_voxels(first: SliceHeader, second: SliceHeader) -> bool:
    if first.size != second.size or first.path == second.path:
        return False
    try:
        return np.array_equal(read_slices([first]), read_slices([second]))
    except ImageError:  # damaged: no copy
        return False


def _check_alike(slices: Sequence[SliceHeader], path: Path) -> None:
    """Refuse slices that are no stack."""
    first = slices[0]
    for s in slices:
        if not np.allclose(s.orientation, first.orientation, atol=1e-4):
            raise ImageError(
                f"expected parallel slices in {path}, found different orientations; "
                "give each stack of slices its own folder"
            )
        if s.size != first.size:
            raise ImageError(
                f"expected slices of one size in {path}, found {first.size[0]}x{first.size[1]} pixels in "
                f"{first.name} and {s.size[0]}x{s.size[1]} in {s.name}; "
                "give each stack of slices its own folder"
            )
        if not np.allclose(s.pixel_mm, first.pixel_mm, rtol=PIXEL_TOLERANCE, atol=0):
            raise ImageError(
                f"expected pixels of one size in {path}, found {first.pixel_mm[0]:.4g} x "
                f"{first.pixel_mm[1]:.4g} mm in {first.name} and {s.pixel_mm[0]:.4g} x "
                f"{s.pixel_mm[1]:.4g} mm in {s.name}; give each stack of slices its own folder"
            )


def _stack(slices: Sequence[SliceHeader], path: Path) -> SliceStack:
    """Return the places of slices.

    Raises:
        ImageError: If slices are missing or double, or are not on one line.
    """
    first = slices[0]
    step, regular = _checked_steps(slices, path)
    row = np.asarray(first.orientation[:3]) / np.linalg.norm(first.orientation[:3])
    return SliceStack(
        positions_mm=tuple(s.position_mm for s in slices),
        row=vector(row),
        column=vector(np.cross(first.normal, row)),  # exactly perpendicular, as rounded cosines are not
        pixel_mm=first.pixel_mm,
        size=first.size,
        step_mm=step,
        regular=regular,
        tilted=_checked_tilt(slices, path),
    )


def _checked_steps(slices: Sequence[SliceHeader], path: Path) -> tuple[float, bool]:
    """Return the step between slices, and whether all are equal; else it is the smallest common one.

    Steps may change only where the stated thickness of slices does; elsewhere slices are missing.
    """
    if len(slices) < 2:
        raise ImageError(
            f"expected a series of at least two slices in {path}, found {len(slices)}; add the others"
        )
    steps = np.diff([s.along_mm for s in slices])
    typical = float(np.median(steps))
    double = [slices[int(i) + 1].name for i in np.flatnonzero(steps < STEP_TOLERANCE * max(typical, 1e-6))]
    if double:
        raise ImageError(
            f"expected one slice per position in {path}, found {len(double)} double ones "
            f"({_first(double)}); remove the copies, or give each acquisition its own folder"
        )
    wide = np.flatnonzero(np.abs(steps - typical) > _step_tolerance(typical))
    if not len(wide):
        return float(steps.mean()), True
    common = _common_steps(slices, steps)
    if common is None:
        place = slices[int(wide[0])]
        raise ImageError(
            f"expected slices {typical:.3g} mm apart in {path}, found a step of {steps[wide[0]]:.3g} mm "
            f"after {place.name}; add the missing slices"
        )
    return min(common), False


def _step_tolerance(step: float) -> float:
    return max(STEP_TOLERANCE * step, STEP_TOLERANCE_MM)


def _common_steps(slices: Sequence[SliceHeader], steps: Float64[np.ndarray, "n"]) -> list[float] | None:
    """Return the step between slices of each thickness; None if it varies within one or they lie apart."""
    by_thickness: dict[float, list[float]] = defaultdict(list)
    for (below, above), step in zip(pairwise(slices), steps, strict=True):
        if below.thickness_mm and below.thickness_mm == above.thickness_mm:
            by_thickness[below.thickness_mm].append(float(step))
    common = {thickness: float(np.median(same)) for thickness, same in by_thickness.items()}
    if len(common) < 2 or {s.thickness_mm for s in slices} != common.keys():
        return None
    for (below, above), step in zip(pairwise(slices), steps, strict=True):
        ends = [common[s.thickness_mm] for s in (below, above) if s.thickness_mm]
        wanted = max(ends)
        too_wide = step - wanted > _step_tolerance(wanted)
        if too_wide or (ends[0] == ends[1] and wanted - step > _step_tolerance(wanted)):
            return None
    return list(common.values())


def _checked_tilt(slices: Sequence[SliceHeader], path: Path) -> bool:
    """Return whether slices are shifted within their planes, as those of a tilted gantry are.

    Raises:
        ImageError: If they are not on one line, or further from their normal than a gantry tilts.
    """
    offsets = np.asarray([s.position_mm for s in slices]) - np.asarray(slices[0].position_mm)
    normal = slices[0].normal
    along = offsets @ normal
    beside = offsets - along[:, None] * normal
    tolerance = TILT_TOLERANCE_MM + TILT_TOLERANCE * along
    if (np.linalg.norm(beside, axis=1) <= tolerance).all():
        return False
    off_line = np.linalg.norm(beside - along[:, None] / along[-1] * beside[-1], axis=1)
    worst = int(np.argmax(off_line - tolerance))
    if off_line[worst] > tolerance[worst]:
        raise ImageError(
            f"expected slices on one line in {path}, found {slices[worst].name} {off_line[worst]:.3g} mm "
            "beside it; give each stack of slices its own folder"
        )
    if (angle := degrees(atan2(float(np.linalg.norm(beside[-1])), float(along[-1])))) > LARGEST_TILT:
        raise ImageError(
            f"expected slices tilted by up to {LARGEST_TILT:g} degrees against their stack in {path}, found "
            f"{angle:.0f}; export the series again"
        )
    return True


def _tilt(stack: SliceStack) -> float:
    """Return the angle in degrees between the normal of slices and the line through them."""
    span = np.subtract(stack.positions_mm[-1], stack.positions_mm[0])
    i, j, k = stack.axes.T @ span
    return degrees(atan2(float(np.hypot(i, j)), float(k)))
