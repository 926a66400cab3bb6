"""Checks and repairs of NIfTI files that SimpleITK lacks.

Its reader fills the missing part of a truncated file with zeros, turns NaN voxels into zeros and
impossible voxel sizes into 1 mm, all without a warning; and it refuses axes that are not exactly
perpendicular, which hundreds of public files have.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from jaxtyping import Float64

from autospine.core.errors import ImageError
from autospine.core.geometry import Grid, repaired_direction, triple, vector

ENDINGS = (".nii.gz", ".nii")

_CHUNK = 1 << 22
"""Bytes read at a time; a multiple of every voxel's size."""

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,  # an unknown voxel type
    zlib.error,
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
)


SAME_SIZE = 0.01
"""Voxel sizes that a header states twice may differ by this share: some round them to two decimals."""


def is_nifti(path: Path) -> bool:
    """Whether a file's name says NIfTI."""
    return path.name.lower().endswith(ENDINGS)


def check_nifti(path: Path) -> None:
    """Check a file by reading it once from beginning to end, without keeping it in memory.

    Raises:
        ImageError: If the file ends early or has no voxels, if their size is zero, negative or not finite, or
            if the values of some are not finite.
    """
    with _damage_named(path), _opened(path) as file:
        header = _header(file)
        _check_size(header, path)
        _check_spacing(header, path)
        dtype = header.get_data_dtype()
        expected = int(np.prod(header.get_data_shape(), dtype=np.int64)) * dtype.itemsize
        file.seek(int(header.get_data_offset()))
        found = not_finite = 0
        while chunk := file.read(_CHUNK):
            if dtype.kind == "f" and found < expected:
                voxels = np.frombuffer(chunk[: expected - found], dtype=dtype, count=-1)
                not_finite += voxels.size - int(np.isfinite(voxels).sum())
            found += len(chunk)
    if found < expected:
        raise ImageError(
            f"expected {expected} bytes of voxels in {path}, found {found}: the file is truncated; "
            "copy it again"
        )
    if not_finite:
        raise ImageError(
            f"expected finite voxels in {path}, found {not_finite} NaN or infinite ones; replace them"
        )


def read_repaired(path: Path) -> tuple[np.ndarray, Grid, str]:
    """Read a file whose axes are not exactly perpendicular.

    Returns:
        The array as stored (ITK's axis order), its grid with the nearest perpendicular axes, and a note
        on the repair.

    Raises:
        ImageError: If the file is damaged, no 3D volume, or its axes are too far from perpendicular.
    """
    with _damage_named(path):
        image = cast(nibabel.spatialimages.SpatialImage, nibabel.load(path))
        array = np.asanyarray(image.dataobj)
    array, grid, note = unpack_nibabel(array, image.affine, str(path))
    return array, grid, note or "direction matrix was not exactly orthonormal; repaired"


def unpack_nibabel(array: np.ndarray, affine: np.ndarray, name: str) -> tuple[np.ndarray, Grid, str | None]:
    """Return a nibabel image's array, in ITK's order of axes, and its grid.

    Args:
        array: Voxels in nibabel's order of axes: i, j, k.
        affine: Affine (4, 4) from voxels to RAS positions in mm.
        name: Name of the image in messages.

    Returns:
        The array, its grid with perpendicular axes, and a note on the repair if one was needed.

    Raises:
        ImageError: If it is no 3D volume, or its axes are too far from perpendicular.
    """
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3 or array.dtype.kind not in "biuf":
        raise ImageError(
            f"expected a 3D volume of single values in {name}, found shape {array.shape} of {array.dtype}; "
            "save it as one 3D file per channel"
        )
    # nibabel's world is RAS: x and y point the other way in LPS.
    flipped = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=np.float64)
    spacing = np.linalg.norm(flipped[:3, :3], axis=0)
    if not (np.isfinite(spacing).all() and spacing.all()):
        raise ImageError(f"expected positive voxel sizes in {name}, found {spacing} mm; mend the affine")
    direction, note = repaired_direction(flipped[:3, :3] / spacing, name)
    array = array.transpose(2, 1, 0)
    grid = Grid(
        shape=triple(array.shape),
        spacing_mm=vector(spacing[::-1]),
        origin_mm=vector(flipped[:3, 3]),
        direction=direction,
    )
    return array, grid, note


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageError(
            f"expected a readable image, found {path} damaged: {reason}; copy or convert it again"
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    if path.name.lower().endswith(".gz"):
        with gzip.open(path) as packed:
            yield packed
    else:
        with path.open("rb") as file:
            yield file


def _header(file: BufferedIOBase) -> Any:
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
    return kinds[size](block, check=False)


def _check_size(header: Any, path: Path) -> None:
    """Check the number of voxels along each axis; SimpleITK reads 0 as 1."""
    shape = header.get_data_shape()
    if not all(n > 0 for n in shape[:3]):
        found = "x".join(str(n) for n in shape)
        raise ImageError(f"expected voxels along every axis of {path}, found size {found}; convert it again")


def _check_spacing(header: Any, path: Path) -> None:
    """Check the voxel sizes: SimpleITK takes those of `pixdim`, other programs those of the sform."""
    stated = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    with_sform = int(header["sform_code"]) > 0
    spacing = np.linalg.norm(np.asarray(header.get_sform(), dtype=np.float64)[:3, :3], axis=0)
    for sizes in (stated, spacing) if with_sform else (stated,):
        if not (np.isfinite(sizes).all() and (sizes > 0).all()):
            raise ImageError(
                f"expected positive voxel sizes in {path}, found {_sizes(sizes)} mm; "
                "mend the header or convert it again"
            )
    if with_sform and not np.allclose(stated, spacing, rtol=SAME_SIZE):
        raise ImageError(
            f"expected the same voxel sizes in pixdim and sform of {path}, found {_sizes(stated)} and "
            f"{_sizes(spacing)} mm; mend the header or convert it again"
        )


def _sizes(spacing: Float64[np.ndarray, "3"]) -> str:
    return " x ".join(f"{value:g}" for value in spacing)
