"""One DICOM series from a folder or a file: found by its headers and sorted by position; gaps are refused."""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Num

from autospine.core.errors import FAULTS_MENTIONED, ImageError, counted, listed
from autospine.core.geometry import Grid, check_spacing
from autospine.core.types import Modality
from autospine.io.dicom_header import DicomFile, SliceHeader, is_dicom, read_header
from autospine.io.dicom_pixels import read_slices
from autospine.io.formats import file_ending, grouped, is_named_dicom, slice_fault, unread_names
from autospine.io.slice_stack import SliceStack, stack_of, tilt
from autospine.storage.file_names import escape_non_utf8, is_utf8

PIXEL_TOLERANCE = 1e-3
"""Pixels of slices may differ in size by this share: headers round it."""

MOST_LOOKED_INTO = 500
"""Most folders that are searched for images below one that is given."""

GUESSED = ("", "OT", "SC", "XA", "DX")
"""Modalities in headers that leave open what an image is: converted images, and X-ray volumes of a C-arm or a
dental scanner (DICOM PS3.3, A.53 and A.54), which are like CT."""

NEITHER = {
    "PT": "positron emission tomography",
    "NM": "nuclear medicine",
    "MG": "mammography",
    "US": "ultrasound",
    "IVUS": "ultrasound within vessels",
    "OCT": "optical coherence tomography",
    "OPT": "optical coherence tomography",
    "CR": "radiography",
    "RG": "radiography",
    "RF": "fluoroscopy",
    "PX": "panoramic X-ray",
    "IO": "X-ray within the mouth",
    "SM": "microscopy",
    "BMD": "bone density",
    "RTIMAGE": "radiotherapy image",
    "TG": "thermography",
    "ES": "endoscopy",
}
"""Modalities in headers of images that are neither CT nor MR (DICOM PS3.3, C.7.3.1.1.1)."""

HOUNSFIELD = ("HU", "HU_MOD", "US")
"""Rescale types of CT whose values are HU, or such with corrections (DICOM PS3.3, C.11.1.1.2), and `US` for
unspecified, which ITK writes into every CT."""


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
    entries = [path] if path.is_file() else sorted(path.iterdir())
    files = [file for file in entries if is_dicom(file)]
    for file in files:
        check_name(file)
    headers = [read_header(file) for file in files]
    dicom = set(files)
    beside = [entry for entry in entries if entry not in dicom]
    found, left_out = _one_series(headers, beside, path)
    found.sort(key=lambda s: (s.along_mm, s.instance))
    _check_one_source(found, path)
    slices = _without_copies(found)
    _check_alike(slices, path)
    stack = stack_of(slices, path)
    return Series(
        slices=tuple(slices),
        stack=stack,
        notes=(
            *_left_out_notes(left_out, len(found) - len(slices), len(files)),
            *_unread_notes(beside),
            *_geometry_notes(slices, stack),
            *_value_notes(slices),
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
    name = str(series.files[0].parent)
    check_spacing(grid.spacing_mm, name)  # before memory is taken, which follows from it
    return grid.straightened(voxels, name), grid


def is_series(folder: Path) -> bool:
    """Return whether a folder holds DICOM images, or files that by content or name are damaged DICOM."""
    return folder.is_dir() and (
        next(_images(folder), None) is not None
        or any(is_named_dicom(file) and not file.is_dir() and not is_dicom(file) for file in folder.iterdir())
    )


def folders_with_images(path: Path, known: Collection[Path] = ()) -> Iterator[Path]:
    """Yield a folder and those below it that hold images themselves, looking into `MOST_LOOKED_INTO` of them.

    Args:
        path: The folder.
        known: Folders in it that are not looked into.
    """
    for count, (name, below, files) in enumerate(os.walk(path)):
        folder = Path(name)
        below[:] = sorted(f for f in below if not f.startswith(".") and folder / f not in known)
        if count > MOST_LOOKED_INTO:
            return
        inside = (folder / f for f in sorted(files) if not f.startswith("."))
        if any(file_ending(file) or is_named_dicom(file) or is_dicom(file) for file in inside):
            yield folder


def both(path: Path, slices: Sequence[str], others: Sequence[str]) -> str:
    """Return the words on slices beside something else that may be what was meant."""
    return (
        f"expected either DICOM slices or other images and folders in {path}, found both: "
        f"{listed(slices)} beside {listed(others)}; give the slices their own folder, or name what is meant"
    )


def check_name(path: Path) -> None:
    """Raise unless SimpleITK can take a path, with which it would end the process.

    Raises:
        ImageError: If a name in it is not UTF-8.
    """
    if not is_utf8(path):
        raise ImageError(f"expected a name in UTF-8, found {escape_non_utf8(str(path))}; rename it")


def dicom_modality(path: Path, channels: Sequence[str] = ()) -> Modality | None:
    """Return the modality in the header of a DICOM file, or of the first slice of a folder.

    Args:
        path: The file or folder.
        channels: Names of the model's channels.

    Returns:
        None if the header leaves it open (`GUESSED`), or there is no DICOM slice.

    Raises:
        ImageError: If it is one of `NEITHER`, unless a channel has its name.
    """
    if not (path.is_dir() or is_dicom(path)):
        return None
    first = next((file.slices[0] for file in _images(path) if file.slices), None)
    stated = first.modality.upper() if first else ""
    if stated in NEITHER and stated not in {name.upper().replace("PET", "PT") for name in channels}:
        raise ImageError(
            f"expected CT or MR in {path}, found images of Modality {stated} ({NEITHER[stated]}) in its "
            "header; leave them out, or state CT or MR for the case if the header is wrong"
        )
    return "CT" if stated == "CT" else "MR" if stated == "MR" else None


def _images(path: Path) -> Iterator[DicomFile]:
    """Yield the headers of images and damaged files."""
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if is_dicom(file) and (header := read_header(file)).other is None:
            yield header


def _one_series(
    files: Sequence[DicomFile], beside: Sequence[Path], path: Path
) -> tuple[list[SliceHeader], list[DicomFile]]:
    """Return the slices of the only series, and the other DICOM files.

    Raises:
        ImageError: If there is none or several, a file of the series cannot be used, or something beside them
            may have been one of the slices, or may be what was meant.
    """
    by_series: dict[str, list[SliceHeader]] = defaultdict(list)
    for file in files:
        if file.slices:
            by_series[file.series] += file.slices
    slice_files = {s.path for slices in by_series.values() for s in slices}
    rest = [entry for entry in beside if not entry.is_dir() and not file_ending(entry)]
    doubtful = [(entry.name, fault) for entry in rest if (fault := slice_fault(entry, slice_files))]
    if not by_series:
        if not files and not doubtful:
            raise ImageError(
                f"expected DICOM slices in {path}, as a folder means here, found "
                f"{listed(unread_names(beside)) or 'none'}; name an image file itself"
            )
        raise ImageError(
            f"expected DICOM slices in grey with positions and pixel sizes in {path}, found "
            f"{grouped([*map(_fault_of, files), *doubtful])}; export the original slices, or convert them to "
            "NIfTI"
        )
    if len(by_series) > 1:
        several = listed(
            [f"{s[0].description or uid} ({counted(len(s), 'slice')})" for uid, s in by_series.items()],
            FAULTS_MENTIONED,
        )
        raise ImageError(f"expected one DICOM series in {path}, found {several}; give each its own folder")
    ((series, slices),) = by_series.items()
    # A file that is damaged may have been one of the slices.
    wrong = [_fault_of(file) for file in files if file.fault and file.series in ("", series)] + doubtful
    if wrong:
        raise ImageError(
            f"expected sound DICOM slices in {path}, found {grouped(wrong)}; export them again, or move "
            "what does not belong to the series elsewhere"
        )
    if others := [entry.name for entry in beside if _is_meant(entry)]:
        raise ImageError(both(path, [file.name for file in sorted(slice_files)], others))
    return slices, [file for file in files if not file.slices]


def _fault_of(file: DicomFile) -> tuple[str, str]:
    return file.path.name, file.other or file.fault or ""


def _is_meant(entry: Path) -> bool:
    """Return whether something beside slices is another image, or a folder with DICOM images."""
    if entry.name.startswith("."):
        return False
    return any(map(is_series, folders_with_images(entry))) if entry.is_dir() else bool(file_ending(entry))


def _unread_notes(beside: Sequence[Path]) -> list[str]:
    """Return notes on what lies beside slices and is not read."""
    notes = []
    if names := unread_names(entry for entry in beside if not entry.is_dir()):
        notes.append(
            f"files beside the slices that are no images AutoSpine reads are left out: {listed(names)}"
        )
    folders = [entry for entry in beside if entry.is_dir() and not entry.name.startswith(".")]
    if below := [entry.name for entry in folders if any(True for _ in folders_with_images(entry))]:
        notes.append(f"images in folders beside the slices are not looked at: {listed(below)}")
    return notes


def _left_out_notes(left_out: Sequence[DicomFile], n_copies: int, n_files: int) -> list[str]:
    notes = [f"{n_copies} of {n_files} DICOM files left out: copies of others"] if n_copies else []
    if left_out:
        described = grouped(_fault_of(file) for file in left_out)
        notes.append(f"{len(left_out)} of {n_files} DICOM files left out: {described}")
    return notes


def _geometry_notes(slices: Sequence[SliceHeader], stack: SliceStack) -> list[str]:
    notes = []
    if stack.tilted:
        notes.append(
            f"slices are tilted by {tilt(stack):.1f} degrees against their stack: straightened by "
            "interpolation"
        )
    if not stack.regular:
        steps = np.diff([s.along_mm for s in slices])
        notes.append(
            f"steps between slices are {steps.min():.3g} to {steps.max():.3g} mm: interpolated to "
            f"{stack.step_mm:.3g} mm, where label maps lie, but for DICOM segmentations"
        )
    return notes


def _value_notes(slices: Sequence[SliceHeader]) -> list[str]:
    if slices[0].modality != "CT":
        inverted = any(s.inverted for s in slices)
        note = "is displayed inverted (MONOCHROME1); values are taken as they are stored"
        return [note] if inverted else []
    notes = []
    if bare := [s.name for s in slices if s.unit is None]:
        notes.append(
            f"{len(bare)} of {len(slices)} CT slices state no rescale slope and intercept ({listed(bare)}): "
            "their values may not be HU"
        )
    if others := sorted({s.unit for s in slices if s.unit and s.unit.upper() not in HOUNSFIELD}):
        notes.append(f"its Rescale Type is {listed(others)} instead of HU: its values may not be HU")
    return notes


def _check_one_source(slices: Sequence[SliceHeader], path: Path) -> None:
    """Refuse slices of two patients, spaces or modalities in one series; empty entries count as any."""
    sources: tuple[tuple[str, Callable[[SliceHeader], str]], ...] = (
        ("modality", lambda s: s.modality),
        ("patient", lambda s: s.patient),
        ("frame of reference", lambda s: s.frame_of_reference),
    )
    for what, of in sources:
        stating = [s for s in slices if of(s)]
        other = next((s for s in stating if of(s) != of(stating[0])), None)
        if other is not None:
            # Patients are not named: messages end up in logs and reports.
            ends = ("", "") if what == "patient" else (f" ({of(stating[0])})", f" ({of(other)})")
            raise ImageError(
                f"expected slices of one {what} in {path}, found {stating[0].name}{ends[0]} and "
                f"{other.name}{ends[1]} of another; give each its own folder"
            )


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
