"""Images of other libraries in memory, read as volumes, and results of the same kind."""

from collections.abc import Sequence
from math import inf
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias, cast

import nibabel
import numpy as np
import SimpleITK as sitk

from autospine.core.errors import ImageError
from autospine.core.geometry import IDENTITY, Grid, check_spacing, orientation, triple, vector
from autospine.core.types import LabelArray, ScoreMap, Vector3
from autospine.io.dicom import is_series
from autospine.io.images import Channel, Volume, checked_channel, pack, read_channel, stack_channels, unpack
from autospine.io.nifti import unpack_nibabel
from autospine.io.slice_stack import for_file
from autospine.io.text_headers import unstated

Image: TypeAlias = Any
"""One channel: a NumPy array (S, P, L), an image of SimpleITK or nibabel, or a file's name; or all channels
as one array (C, S, P, L). Other kinds are refused where they come in."""


_CODES = ("qform_code", "sform_code")
"""Metadata that SimpleITK keeps of a NIfTI header: whether it states the orientation."""


def as_volume(image: Image | Sequence[Image], spacing_mm: Vector3 | None = None) -> Volume:
    """Return the volume of an image of any kind.

    Args:
        image: One image, or one per channel.
        spacing_mm: Voxel size along S, P and L, for NumPy arrays only; other kinds have their own.

    Raises:
        ImageError: If a kind is not known, if the spacing is missing, superfluous or of no scanner, or if
            the image is no sound volume; see `autospine.io.images.read_volume`.
    """
    images = list(image) if isinstance(image, list | tuple) else [image]
    for each in images:
        if isinstance(each, np.ndarray):
            _check_array(each)
    spacing_mm = None if spacing_mm is None else checked_spacing(spacing_mm)
    if any(isinstance(each, np.ndarray) for each in images) != (spacing_mm is not None):
        raise ImageError(
            "expected spacing_mm=(S, P, L) with NumPy arrays and with nothing else, found "
            f"{'none' if spacing_mm is None else spacing_mm}; images of other kinds bring their own"
        )
    volume = stack_channels([channel for each in images for channel in _channels(each, spacing_mm)])
    check_spacing(
        volume.grid.spacing_mm, str(images[0]) if isinstance(images[0], str | Path) else "the image"
    )
    return volume


def like(image: Image | Sequence[Image], values: LabelArray | ScoreMap, volume: Volume) -> Any:
    """Convert a label map, or a map of probabilities, to the kind of the image.

    Args:
        image: Image that was given to `as_volume`.
        values: Map (S, P, L) on the volume's canonical grid.
        volume: Result of `as_volume`.

    Returns:
        A NumPy array (S, P, L), an image of nibabel with the image's affine, or else one of SimpleITK.
    """
    first = image[0] if isinstance(image, list | tuple) else image
    if isinstance(first, np.ndarray):
        return values
    stored = orientation(volume.stored).to_stored(values)
    if isinstance(first, nibabel.spatialimages.SpatialImage):
        make: Any = nibabel.Nifti1Image
        return make(np.ascontiguousarray(stored.transpose(2, 1, 0)), first.affine)
    return pack(*for_file(stored, volume.stored))


def checked_spacing(spacing_mm: object) -> Vector3:
    """Check a spacing that a user gave, and return it as floats.

    Raises:
        ImageError: If it is not three positive numbers.
    """
    numbers = list(spacing_mm) if isinstance(spacing_mm, list | tuple | np.ndarray) else []
    if len(numbers) != 3 or not all(isinstance(d, Real) and 0 < float(d) < inf for d in numbers):
        raise ImageError(
            f"expected spacing_mm=(S, P, L) as three positive numbers, found {spacing_mm!r}; give "
            "the size of a voxel along each axis"
        )
    return vector(np.asarray(numbers))


def _channels(image: Any, spacing_mm: Vector3 | None) -> list[Channel]:
    if isinstance(image, np.ndarray):
        return _array_channels(image, spacing_mm)
    if isinstance(image, sitk.Image):
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise ImageError(
                f"expected a 3D image of single values, found {image.GetDimension()} axes and "
                f"{image.GetNumberOfComponentsPerPixel()} values per voxel; give one image per channel"
            )
        _check_codes(image)
        return [unpack(image, "the image")]
    if isinstance(image, nibabel.spatialimages.SpatialImage):
        array, grid, notes = unpack_nibabel(image, "the image")
        return [checked_channel(Channel(name="the image", array=array, grid=grid, notes=notes))]
    if isinstance(image, str | Path):
        path = Path(image)
        if path.is_dir() and not is_series(path):
            raise ImageError(
                f"expected an image or a folder of DICOM slices, found {path}, a folder without any; name a "
                "file in it, or segment every case in it with `autospine.predict_folder`"
            )
        return [read_channel(path)]
    raise ImageError(
        f"expected an image of NumPy, SimpleITK or nibabel, or a file's name, found {type(image).__name__}; "
        "convert it"
    )


def _check_codes(image: sitk.Image) -> None:
    """Refuse an image that SimpleITK has read from a NIfTI file without orientation: it fills one in."""
    codes = [image.GetMetaData(key) for key in _CODES if image.HasMetaDataKey(key)]
    if len(codes) == len(_CODES) and set(codes) == {"0"}:
        raise unstated(
            "the image",
            "orientation",
            f"it in the file's sform; or set the direction and erase the metadata {' and '.join(_CODES)}",
        )


def _check_array(array: np.ndarray) -> None:
    if array.ndim not in (3, 4):
        raise ImageError(
            f"expected an array (S, P, L) or (C, S, P, L), found shape {array.shape}; give a whole volume"
        )
    if array.dtype.kind not in "iufb":
        raise ImageError(f"expected an array of numbers, found one of {array.dtype}; convert it")


def _array_channels(array: np.ndarray, spacing_mm: Vector3 | None) -> list[Channel]:
    """Return every channel of an array (S, P, L) or (C, S, P, L)."""
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    grid = Grid(
        shape=triple(array.shape[-3:]),
        spacing_mm=cast(Vector3, spacing_mm),
        origin_mm=(0.0, 0.0, 0.0),
        direction=IDENTITY,
    )
    parts = array if array.ndim == 4 else array[np.newaxis]
    return [checked_channel(Channel(name="the array", array=part, grid=grid)) for part in parts]
