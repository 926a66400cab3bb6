"""NIfTI files: header and geometry by nibabel, voxels by our own checked stream.

SimpleITK fills the missing part of a truncated file with zeros, turns NaN voxels into zeros and impossible
voxel sizes into 1 mm, takes axes that the header does not state to run along L, P and S, all without a
warning; and it refuses axes that are not exactly perpendicular, which hundreds of public files have.
"""

import gzip
import zlib
from collections.abc import Callable
from io import BufferedIOBase
from math import prod
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float64

from autospine.core.errors import ImageError
from autospine.core.geometry import Grid, grid_of_axes, triple
from autospine.io.text_headers import SAME_SIZE, check_volume, unstated
from autospine.io.voxel_data import ImageFile, VoxelData, cause, damaged, unsupported

ENDINGS = (".nii.gz", ".nii")

GZIP = b"\x1f\x8b"
"""First bytes of a gzip file: some programs name compressed and plain files alike."""

NOTED = 1e-3
"""Share by which voxel sizes that a header states twice may differ without a note."""

ROUNDED = 1e-5
"""Share by which the affine's voxel sizes may differ from those of `pixdim` by single precision alone."""

MOST_TURN = 45.0
"""Degrees by which an axis of the sform may be turned against that of the qform; more of them exchange axes.
The letters of axes alone say nothing: those of a grid at 45 degrees change with the rounding."""

UNITS_MM = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
"""Length in mm of the units of a NIfTI header by their codes (nifti1.h): unknown, metre, mm, micrometre."""

MOST_SKIPPED = 1 << 26
"""Most bytes between header and voxels: extensions, of which the largest hold DICOM headers."""

_LPS = np.asarray([-1.0, -1.0, 1.0])
"""Signs that lead from the RAS of NIfTI and nibabel to LPS."""


def is_nifti(path: Path) -> bool:
    """Return whether a file's name says NIfTI."""
    return path.name.lower().endswith(ENDINGS)


def read_nifti(path: Path) -> ImageFile:
    """Read and check the header of a file, compressed or not, whatever its name says.

    Raises:
        ImageError: If it is damaged, no 3D volume of single values, or states no orientation or voxel size,
            or contradictory ones.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == GZIP
            file.seek(0)
            header = _header(gzip.GzipFile(fileobj=file) if compressed else file)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise damaged(path, cause(error)) from None
    offset = _field(path, "vox_offset", lambda: int(header.get_data_offset()))
    dtype = _voxel_type(header, path)
    shape = _field(path, "dim", lambda: [int(n) for n in header.get_data_shape()])
    _check_volume(path, shape, dtype)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise unsupported(path, f"voxels of the type {int(header['datatype'])} (NIfTI), {dtype}")
    # Four bytes that tell of extensions follow the header (nifti1.h).
    if not header.sizeof_hdr + 4 <= offset <= MOST_SKIPPED:
        raise damaged(path, f"its voxels begin at byte {offset}")
    slope, intercept = _field(path, "scl_slope or scl_inter", header.get_slope_inter)
    grid, notes = header_grid(header, triple(shape[2::-1]), str(path))
    voxels = VoxelData(
        name=str(path),
        files=(path,),
        shape=grid.shape,
        dtype=dtype,
        encoding="deflate" if compressed else "raw",
        start=0 if compressed else offset,
        skipped=offset if compressed else 0,
        scaling=(1.0 if slope is None else float(slope), float(intercept or 0.0)),
    )
    return ImageFile(voxels=voxels, grid=grid, notes=notes)


def write_oblique(path: Path, array: np.ndarray, grid: Grid) -> None:
    """Write an array whose third axis is oblique, which SimpleITK would silently make perpendicular.

    Args:
        path: File to write.
        array: Voxels in ITK's order of axes.
        grid: Grid of the array; the directions of its axes need not be perpendicular.
    """
    affine = np.eye(4)
    affine[:3, :3] = _LPS[:, None] * grid.axes_mm[:, ::-1]
    affine[:3, 3] = _LPS * np.asarray(grid.origin_mm)
    make: Any = nibabel.Nifti1Image
    image = make(array.transpose(2, 1, 0), affine)
    # Only the sform can hold it; programs that know nothing but the qform have to be told that there is none.
    image.set_qform(affine, code=0)
    image.set_sform(affine, code=1)
    nibabel.save(image, path)


def unpack_nibabel(image: Any, name: str) -> tuple[np.ndarray, Grid, tuple[str, ...]]:
    """Return the array of a nibabel image, in ITK's order of axes, its grid, and notes on repairs.

    Args:
        image: Spatial image of any format that nibabel knows.
        name: Name of the image in messages.

    Raises:
        ImageError: If it is no 3D volume, its axes are too far from perpendicular, or where they run is not
            stated: Analyze has no orientation, and nibabel fills one in.
    """
    dtype = np.dtype(image.get_data_dtype()) if hasattr(image, "get_data_dtype") else np.dtype(float)
    shape = [int(n) for n in image.shape]
    _check_volume(name, shape, dtype)
    array = np.asanyarray(image.dataobj).reshape(shape[:3]).transpose(2, 1, 0)
    if array.dtype.kind not in "biuf":
        raise ImageError(f"expected numbers as voxels of {name}, found {array.dtype}; convert the image")
    if array.dtype == np.float64 and dtype != np.float64:
        array = array.astype(np.float32)  # scaled on reading; files are read so, too
    if image.affine is None:
        raise unstated(name, "orientation", "it with an affine")
    header = image.header
    if isinstance(header, nibabel.Nifti1Header):
        grid, notes = header_grid(header, triple(shape[2::-1]), name, np.asarray(image.affine, np.float64))
        return array, grid, notes
    if isinstance(header, nibabel.analyze.AnalyzeHeader) or (
        isinstance(header, nibabel.freesurfer.mghformat.MGHHeader) and not header["goodRASFlag"]
    ):
        raise unstated(name, "orientation", "it in a NIfTI file")
    grid, notes = _affine_grid(np.asarray(image.affine, np.float64), None, triple(shape[2::-1]), name)
    return array, grid, notes


def _field(name: Path | str, field: str, read: Callable[[], Any]) -> Any:
    """Read one field of a header, as nibabel understands it.

    Raises:
        ImageError: If it makes no sense; the message names the field.
    """
    try:
        with np.errstate(all="ignore"):
            return read()
    except Exception as error:  # nibabel raises errors of many kinds where numbers make no sense
        raise damaged(name, f"its {field} makes no sense ({cause(error)})") from None


def _voxel_type(header: Any, path: Path) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (KeyError, nibabel.spatialimages.HeaderDataError):
        raise damaged(path, f"its voxels are of type {int(header['datatype'])}, which NIfTI lacks") from None
    return dtype


def _check_volume(name: Path | str, shape: list[int], dtype: np.dtype[Any]) -> None:
    """Refuse colours, complex numbers and vectors, which NIfTI has along a fifth axis, and time."""
    values = len(dtype.names or ()) or (2 if dtype.kind == "c" else 1)
    check_volume(name, shape[:4], values * prod(shape[4:]))


@np.errstate(all="ignore")  # What overflows is not finite, which is refused.
def header_grid(
    header: Any, shape: tuple[int, int, int], name: str, affine: Float64[np.ndarray, "4 4"] | None = None
) -> tuple[Grid, tuple[str, ...]]:
    """Return the grid that a NIfTI header states, and notes on repairs.

    Args:
        header: Header of NIfTI-1 or NIfTI-2.
        shape: Voxels along k, j, i.
        name: Name of the image in messages.
        affine: Affine of an image in memory; by default that of the header: of its sform, else its qform.

    Raises:
        ImageError: If neither is stated, both are and contradict each other, or voxel sizes are impossible.
    """
    with_sform, with_qform = (int(header[f"{form}_code"]) > 0 for form in ("sform", "qform"))
    if not (with_sform or with_qform):
        raise unstated(name, "orientation", "it in the sform, if where left and right are is known")
    stated = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    if affine is None:
        stated = np.asarray(header["pixdim"][1:4], dtype=np.float64)
        _check_sizes(stated, name)
        affine = np.asarray(header.get_sform() if with_sform else _qform(header, name), dtype=np.float64)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    _check_sizes(sizes, name)
    if not np.allclose(stated, sizes, rtol=SAME_SIZE):
        raise ImageError(
            f"expected the same voxel sizes in pixdim and sform of {name}, found {_sizes(stated)} and "
            f"{_sizes(sizes)} mm; mend the header or convert it again"
        )
    notes: tuple[str, ...] = ()
    if not np.allclose(stated, sizes, rtol=NOTED, atol=0):
        notes = (
            f"its pixdim says {_sizes(stated)} mm and its affine {_sizes(sizes)} mm; the affine is taken",
        )
    if with_sform and with_qform:
        notes += _compare_forms(header, name)
    # The other bits are the unit of time.
    code = int(header["xyzt_units"]) & 7
    unit = UNITS_MM.get(code)
    if unit is None:
        raise damaged(name, f"its xyzt_units has the unit of length {code}, which NIfTI lacks")
    grid, repairs = _affine_grid(affine * unit, stated * unit, shape, name)
    return grid, (*notes, *repairs)


def _qform(header: Any, name: str) -> np.ndarray:
    # nifti1.h takes a qfac (pixdim[0]) of 0 for 1.
    known = header.copy()
    if known["pixdim"][0] == 0:
        known["pixdim"][0] = 1
    affine: np.ndarray = _field(name, "qform", known.get_qform)
    return affine


def _compare_forms(header: Any, name: str) -> tuple[str, ...]:
    """Refuse two affines of a header that exchange axes, and return a note if they merely differ."""
    try:
        forms = [np.asarray(form, dtype=np.float64) for form in (header.get_sform(), _qform(header, name))]
    except ImageError:
        return ("its qform is no rotation; the sform is taken",)
    if not all(np.isfinite(form).all() for form in forms):
        return ("its qform is not finite; the sform is taken",)
    codes: Any = nibabel.aff2axcodes
    # An axis that is too short beside the others has no letter.
    letters = ["".join(letter or "?" for letter in codes(form)) for form in forms]
    if letters[0] != letters[1] and _turn(*forms) > MOST_TURN:
        raise ImageError(
            f"expected one orientation in {name}, found {letters[0]} in its sform and {letters[1]} in its "
            "qform; set both to the right one"
        )
    corner = np.asarray([*(n - 1 for n in header.get_data_shape()[:3]), 1.0])
    apart = max(
        float(np.linalg.norm((forms[0] - forms[1]) @ point)) for point in (corner, [0.0, 0.0, 0.0, 1.0])
    )
    return (f"its sform and qform differ by up to {apart:.3g} mm; the sform is taken",) if apart > 1 else ()


def _turn(one: Float64[np.ndarray, "4 4"], other: Float64[np.ndarray, "4 4"]) -> float:
    """Return the largest angle, in degrees, between an axis of one affine and the same axis of another."""
    axes = [form[:3, :3] / np.maximum(np.linalg.norm(form[:3, :3], axis=0), 1e-12) for form in (one, other)]
    cosines = np.clip((axes[0] * axes[1]).sum(axis=0), -1, 1)
    return float(np.degrees(np.arccos(cosines)).max())


def _affine_grid(
    affine: Float64[np.ndarray, "4 4"],
    stated: Float64[np.ndarray, "3"] | None,
    shape: tuple[int, int, int],
    name: str,
) -> tuple[Grid, tuple[str, ...]]:
    """Return the grid of an affine to RAS; the stated voxel sizes are taken where they are the same."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        directions = _LPS[:, None] * affine[:3, :3] / sizes
    if stated is not None:
        sizes = np.where(np.abs(stated - sizes) <= ROUNDED * sizes, stated, sizes)
    return grid_of_axes(shape, directions, sizes, _LPS * affine[:3, 3], name)


def _header(file: BufferedIOBase | gzip.GzipFile) -> Any:
    """Read the header as it is; nibabel's own loading would repair what must be refused here."""
    kinds: dict[int, Any] = {kind.sizeof_hdr: kind for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header)}
    block = file.read(4)
    # Either byte order: the header starts with its own size.
    size = next((n for n in kinds if block in (n.to_bytes(4, "little"), n.to_bytes(4, "big"))), None)
    if size is None:
        raise OSError("it does not start with a NIfTI header" if block else "it is empty")
    block += file.read(size - 4)
    if len(block) < size:
        raise EOFError(f"it ends within its header, after {len(block)} bytes")
    header = kinds[size](block, check=False)
    magic = bytes(header["magic"].item())[:3]
    if magic in (b"ni1", b"ni2"):
        raise OSError("its voxels are in another file (.img); convert the pair to one file")
    if magic not in (b"n+1", b"n+2"):
        raise OSError("it is of Analyze, which does not state the orientation; convert it from its source")
    return header


def _check_sizes(sizes: Float64[np.ndarray, "3"], name: str) -> None:
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ImageError(
            f"expected positive voxel sizes in {name}, found {_sizes(sizes)} mm; "
            "mend the header or convert it again"
        )


def _sizes(spacing: Float64[np.ndarray, "3"]) -> str:
    return " x ".join(f"{value:g}" for value in spacing)
