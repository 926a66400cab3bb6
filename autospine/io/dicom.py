"""One DICOM series from a folder: found by its headers and sorted by position; gaps and tilt are refused."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float64

from autospine.core.errors import ImageError
from autospine.core.geometry import triple
from autospine.core.types import Modality
from autospine.storage.file_names import escape_non_utf8, is_utf8

SERIES, DESCRIPTION, MODALITY, INSTANCE = "0020|000e", "0008|103e", "0008|0060", "0008|0018"
POSITION, ORIENTATION = "0020|0032", "0020|0037"

STEP_TOLERANCE = 0.05
"""Steps between slices may differ by this share of the median step ..."""

STEP_TOLERANCE_MM = 0.02
"""... or by this much: positions are often written with two decimals."""

TILT_TOLERANCE_MM = 0.1
"""Slices may lie beside the normal through the first one by this much ..."""

TILT_TOLERANCE = 1e-3
"""... and by this share of their distance from it: direction cosines may have three decimals."""

VOXEL_TYPES = {
    getattr(sitk, f"sitk{name}"): np.dtype(name.lower())
    for name in ("UInt8", "Int8", "UInt16", "Int16", "UInt32", "Int32", "Int64", "Float32", "Float64")
}
"""NumPy type of each of SimpleITK's pixel types."""

PIXEL_TOLERANCE = 1e-3
"""Pixels of slices may differ in size by this share: headers round it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """The only series of a folder, checked."""

    files: tuple[Path, ...]
    """One file per slice, in the order of the volume."""

    notes: tuple[str, ...] = ()
    """Notes on files that were left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slice:
    path: Path
    series: str
    instance: str
    description: str
    modality: str
    position_mm: tuple[float, float, float]
    orientation: tuple[float, ...]
    size: tuple[int, int]
    """Columns and rows."""

    pixel_mm: tuple[float, float]
    """Width and height of a pixel."""

    @property
    def normal(self) -> Float64[np.ndarray, "3"]:
        """Unit vector perpendicular to the slice."""
        row, column = np.asarray(self.orientation[:3]), np.asarray(self.orientation[3:])
        normal: np.ndarray = np.cross(row, column)
        return normal

    @property
    def along_mm(self) -> float:
        """Position of the slice along its normal."""
        return float(self.normal @ np.asarray(self.position_mm))


def find_series(folder: Path) -> Series:
    """Find the only series of a folder, sorted by position.

    Files that are copies of one another count once; other DICOM files, and damaged ones, are left out.

    Raises:
        ImageError: If there is no series or more than one, or if slices are missing, double, tilted or of
            different sizes.
    """
    files = [file for file in folder.iterdir() if _is_dicom(file)]
    for file in files:
        check_name(file)
    readable = list(_slices(folder))
    found = sorted(_one_series(readable, folder), key=lambda s: (s.along_mm, s.instance))
    slices = _without_copies(found)
    _check_alike(slices, folder)
    _check_steps(slices, folder)
    left_out = {
        "copies of others": len(found) - len(slices),
        "damaged or no slices": len(files) - len(readable),
    }
    notes = [f"{n} of {len(files)} DICOM files left out: {what}" for what, n in left_out.items() if n]
    return Series(files=tuple(s.path for s in slices), notes=tuple(notes))


def read_series(files: Sequence[Path]) -> sitk.Image:
    """Read the slices of a series as one volume.

    SimpleITK alone returns a wrong spacing where a slice is missing; `find_series` checks positions first.

    Args:
        files: `Series.files`.

    Returns:
        The image with the scanner's rescaling applied (HU for CT).

    Raises:
        ImageError: If a file is damaged.
    """
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    try:
        reader.SetOutputPixelType(_voxel_type(files))
        image: sitk.Image = reader.Execute()
    except RuntimeError as error:
        raise ImageError(
            f"expected a readable DICOM series in {files[0].parent}, found "
            f"{str(error).splitlines()[-1]}; export it again"
        ) from None
    return image


def _voxel_type(files: Sequence[Path]) -> int:
    """Return SimpleITK's pixel type that holds the voxels of every slice.

    Slices may have different rescaling. SimpleITK by itself reads all of them as the type of the first, and
    truncates fractions.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    found = set()
    for file in files:
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
        found.add(reader.GetPixelID())
    if len(found) == 1 or not found <= VOXEL_TYPES.keys():
        return int(sitk.sitkUnknown)  # that of the first one
    common = np.result_type(*(VOXEL_TYPES[number] for number in found))
    return next(int(number) for number, dtype in VOXEL_TYPES.items() if dtype == common)


def is_series(folder: Path) -> bool:
    """Whether a folder holds DICOM slices."""
    if not folder.is_dir():
        return False
    return next(_slices(folder), None) is not None or any(
        _is_dicom(file) and not is_utf8(file) for file in folder.iterdir()
    )


def check_name(path: Path) -> None:
    """Raise unless SimpleITK can take a path, with which it would end the process.

    Raises:
        ImageError: If a name in it is not UTF-8.
    """
    if not is_utf8(path):
        raise ImageError(f"expected a name in UTF-8, found {escape_non_utf8(str(path))}; rename it")


def series_modality(folder: Path) -> Modality | None:
    """Return the modality in the first slice's header; None if it is neither CT nor MR."""
    first = next(_slices(folder), None)
    if first is None:
        return None
    return "CT" if first.modality == "CT" else "MR" if first.modality == "MR" else None


def _slices(folder: Path) -> Iterator[_Slice]:
    for file in sorted(folder.iterdir()):
        if _is_dicom(file) and is_utf8(file) and (found := _slice(file)):
            yield found


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        marked = file.read(132)[128:] == b"DICM"
    # GDCM also recognises old files without the mark, but not damaged ones.
    return marked or (
        is_utf8(path) and sitk.ImageFileReader.GetImageIOFromFileName(str(path)) == "GDCMImageIO"
    )


def _slice(path: Path) -> _Slice | None:
    """Read the position of a slice from its header; None if the file is no image with a position."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    position, orientation = _numbers(reader, POSITION), _numbers(reader, ORIENTATION)
    if len(position) != 3 or len(orientation) != 6:
        return None
    return _Slice(
        path=path,
        series=_text(reader, SERIES),
        instance=_text(reader, INSTANCE),
        description=_text(reader, DESCRIPTION),
        modality=_text(reader, MODALITY),
        position_mm=triple(position),
        orientation=orientation,
        size=reader.GetSize()[:2],
        pixel_mm=reader.GetSpacing()[:2],
    )


def _text(reader: sitk.ImageFileReader, key: str) -> str:
    """Return a header entry; empty if it is missing."""
    if not reader.HasMetaDataKey(key):
        return ""
    # Headers have letters of many encodings; those beyond UTF-8 come as halves of characters.
    text: str = reader.GetMetaData(key).encode(errors="surrogateescape").decode(errors="replace")
    # DICOM pads to even length, with NUL where older software does.
    return text.strip(" \0")


def _numbers(reader: sitk.ImageFileReader, key: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in _text(reader, key).split("\\"))
    except ValueError:
        return ()


def _one_series(slices: Sequence[_Slice], folder: Path) -> list[_Slice]:
    by_series: dict[str, list[_Slice]] = defaultdict(list)
    for found in slices:
        by_series[found.series].append(found)
    if not by_series:
        raise ImageError(
            f"expected DICOM slices with positions, one per file, in {folder}, found none; "
            "convert enhanced (multi-frame) files to NIfTI"
        )
    if len(by_series) > 1:
        listed = ", ".join(f"{s[0].description or uid} ({len(s)} slices)" for uid, s in by_series.items())
        raise ImageError(f"expected one DICOM series in {folder}, found {listed}; give each its own folder")
    return next(iter(by_series.values()))


def _without_copies(slices: Sequence[_Slice]) -> list[_Slice]:
    """Keep one slice of those with the same instance, position and voxels."""
    kept: list[_Slice] = []
    # Positions of copies are equal to the digit, so that copies are neighbours.
    for _, same in groupby(slices, key=lambda s: (s.along_mm, s.position_mm, s.orientation, s.instance)):
        first, *others = same
        kept += [first, *(other for other in others if not _same_voxels(first.path, other.path))]
    return kept


def _same_voxels(first: Path, second: Path) -> bool:
    try:
        pair = [sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (first, second)]
    except RuntimeError:  # damaged: no copy
        return False
    return np.array_equal(*pair)


def _check_alike(slices: Sequence[_Slice], folder: Path) -> None:
    """Refuse slices that are no stack; SimpleITK takes the first one's pixels to be those of all."""
    first = slices[0]
    for s in slices:
        if not np.allclose(s.orientation, first.orientation, atol=1e-4):
            raise ImageError(
                f"expected parallel slices in {folder}, found different orientations; "
                "give each stack of slices its own folder"
            )
        if s.size != first.size:
            raise ImageError(
                f"expected slices of one size in {folder}, found {first.size[0]}x{first.size[1]} pixels in "
                f"{first.path.name} and {s.size[0]}x{s.size[1]} in {s.path.name}; "
                "give each stack of slices its own folder"
            )
        if not np.allclose(s.pixel_mm, first.pixel_mm, rtol=PIXEL_TOLERANCE, atol=0):
            raise ImageError(
                f"expected pixels of one size in {folder}, found {first.pixel_mm[0]:.4g} x "
                f"{first.pixel_mm[1]:.4g} mm in {first.path.name} and {s.pixel_mm[0]:.4g} x "
                f"{s.pixel_mm[1]:.4g} mm in {s.path.name}; give each stack of slices its own folder"
            )


def _check_steps(slices: Sequence[_Slice], folder: Path) -> None:
    if len(slices) < 2:
        raise ImageError(
            f"expected a series of at least two slices in {folder}, found {len(slices)}; add the others"
        )
    steps = np.diff([s.along_mm for s in slices])
    typical = float(np.median(steps))
    double = [
        slices[int(i) + 1].path.name for i in np.flatnonzero(steps < STEP_TOLERANCE * max(typical, 1e-6))
    ]
    if double:
        raise ImageError(
            f"expected one slice per position in {folder}, found {len(double)} double ones "
            f"({', '.join(double[:3])}); remove the copies"
        )
    wide = np.flatnonzero(np.abs(steps - typical) > max(STEP_TOLERANCE * typical, STEP_TOLERANCE_MM))
    if len(wide):
        place = slices[int(wide[0])]
        raise ImageError(
            f"expected slices {typical:.3g} mm apart in {folder}, found a step of {steps[wide[0]]:.3g} mm "
            f"after {place.path.name}; add the missing slices"
        )
    first, normal = np.asarray(slices[0].position_mm), slices[0].normal
    for s in slices:
        offset = np.asarray(s.position_mm) - first
        along = float(offset @ normal)
        beside = float(np.linalg.norm(offset - along * normal))
        if beside > TILT_TOLERANCE_MM + TILT_TOLERANCE * along:
            raise ImageError(
                f"expected slices stacked along their normal in {folder}, found {s.path.name} "
                f"{beside:.3g} mm beside it (a tilted gantry); resample it to a rectangular grid first"
            )
