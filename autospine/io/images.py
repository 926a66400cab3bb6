"""Reading and writing of volumes: any orientation is read, axes are canonical inside, and label maps are
written on the input's own grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Num

from autospine.core.errors import ImageError, first_line, listed
from autospine.core.geometry import (
    Grid,
    canonical_grid,
    difference,
    grid_of_axes,
    orientation,
    triple,
    turning,
)
from autospine.core.labels import LabelSpace
from autospine.core.types import ChannelArray, LabelArray, ScoreMap, VolumeArray
from autospine.io.dicom import check_name, find_series, read_series
from autospine.io.dicom_header import is_dicom
from autospine.io.formats import ENDINGS, NRRD_ENDINGS, file_ending
from autospine.io.library_chatter import without_chatter
from autospine.io.nifti import is_nifti, read_nifti, write_oblique
from autospine.io.nrrd import nrrd_entries, read_nrrd
from autospine.io.segments import (
    Segment,
    labels_of_layers,
    present,
    slicer_header,
    stated_segments,
    values_by_name,
)
from autospine.io.slice_stack import for_file, is_oblique
from autospine.io.text_headers import check_volume, read_metaimage
from autospine.io.voxel_data import (
    ImageFile,
    check_voxels,
    damaged,
    read_layers,
    read_voxels,
    want_of_memory,
)
from autospine.storage.atomic import rename_durably
from autospine.storage.file_names import check_file

sitk.ProcessObject.SetGlobalWarningDisplay(False)

LARGEST = float(np.finfo(np.float32).max)
"""Largest voxel value: the network computes in float32."""

NEARLY_WHOLE = 0.01
"""Floating-point labels may be this far from whole numbers: programs that scale and round leave as much."""

FRACTIONS_NAMED = 5
"""Most values that are named of those that are no whole numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """One case's channels in canonical axes."""

    array: VolumeArray
    grid: Grid
    """Grid of the canonical array."""

    stored: Grid
    """Grid of the array as stored in the file, on which labels are written."""

    notes: tuple[str, ...] = ()
    """Notes on repairs to the header and on files that were left out."""

    def turned_to(self, grid: Grid) -> VolumeArray:
        """Return a view of the array whose axes are in the order of another grid of the same voxels."""
        return turning(self.grid, grid).to_canonical(self.array)


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """One image as stored, checked."""

    name: str
    """File, or another name for messages."""

    array: Num[np.ndarray, "k j i"]
    """Voxels in ITK's order of axes."""

    grid: Grid
    notes: tuple[str, ...] = ()
    """Notes on repairs to the header."""


def read_volume(paths: Path | Sequence[Path]) -> Volume:
    """Read a case.

    Args:
        paths: One file per channel in order, or a single file or folder of DICOM slices.

    Returns:
        The channels in canonical axes, with the voxel type as stored.

    Raises:
        ImageError: If a file is unreadable or no 3D volume, if its header makes no sense, if voxels are not
            finite, if the channels lie on different grids, or if there is too little memory.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    try:
        return stack_channels([read_channel(file) for file in files])
    except MemoryError as error:
        raise want_of_memory(str(files[0]), "enough", f"too little ({error})") from None


def stack_channels(channels: Sequence[Channel]) -> Volume:
    """Stack channels into one volume in canonical axes.

    Raises:
        ImageError: If there is no channel, or they lie on different grids.
    """
    if not channels:
        raise ImageError("expected at least one image, found none")
    first = channels[0]
    for channel in channels[1:]:
        if different := difference(first.grid, channel.grid):
            raise ImageError(
                f"expected all channels of a case on one grid, found {channel.name} with {different} "
                f"compared to {Path(first.name).name}; resample it"
            )
    arrays = [turning(channel.grid, first.grid).to_canonical(channel.array) for channel in channels]
    array = arrays[0][np.newaxis] if len(arrays) == 1 else np.stack(arrays)
    return Volume(
        array=np.ascontiguousarray(orientation(first.grid).to_canonical(array)),
        grid=canonical_grid(first.grid),
        stored=first.grid,
        notes=tuple(dict.fromkeys(note for channel in channels for note in channel.notes)),
    )


def read_labels(path: Path, space: LabelSpace | None = None) -> Volume:
    """Read a label map; floating-point values are accepted if they are nearly whole numbers.

    Args:
        path: The file.
        space: Labels of the dataset that it belongs to; values of a file that names its segments, as those of
            3D Slicer do, are taken for the label of that name, and layers of segments are joined.

    Raises:
        ImageError: If the file cannot be read (see `read_volume`), if a value is further than `NEARLY_WHOLE`
            from a whole number, or if the names or overlaps of segments contradict the dataset's.
    """
    if space is None or path.is_dir() or not path.name.lower().endswith(NRRD_ENDINGS):
        return _whole_numbers(path)
    found = open_image(path)
    header = nrrd_entries(path)[0]
    if found.voxels.layers > 1:
        return _joined(path, found, header, space)
    changed = values_by_name(header, space, path)
    volume = _whole_numbers(path)
    if not changed:
        return volume
    named = {segment.value for segment in stated_segments(header) if segment.named}
    taken = set(changed.values()) - named
    if unclear := [
        value for value in sorted(taken) if any((plane == value).any() for plane in volume.array[0])
    ]:
        raise ImageError(
            f"expected every voxel of {path} in a named segment, as label values go by their names, found "
            f"the value {unclear[0]} in none, which another segment stands for; name its segment or delete it"
        )
    return _exchanged(volume, changed)


def _joined(path: Path, found: ImageFile, header: Mapping[str, str], space: LabelSpace) -> Volume:
    """Read layers of segments as one label map of the dataset."""
    layered = read_layers(found.voxels)
    integers, note = labels_of_layers(layered, header, space, path)
    table = np.asarray(integers, dtype=_smallest(min(integers), max(integers)))
    labels = np.empty(layered.numbers.shape, dtype=table.dtype)
    for plane, numbers in zip(labels, layered.numbers, strict=True):
        plane[...] = table[numbers]
    return stack_channels(
        [Channel(name=str(path), array=labels, grid=found.grid, notes=(*found.notes, note))]
    )


def _exchanged(volume: Volume, changed: Mapping[int, int]) -> Volume:
    """Return a label map with other values, each with the one in its place."""
    kind = np.result_type(volume.array.dtype, *(np.min_scalar_type(value) for value in changed.values()))
    labels = np.empty(volume.array.shape, dtype=kind)
    for plane, found in zip(labels[0], volume.array[0], strict=True):
        plane[...] = found
        for value, known in changed.items():
            plane[found == value] = known
    said = ", ".join(f"{value} is {known}" for value, known in sorted(changed.items()))
    note = f"label values go by the names of the segments: {said}"
    return Volume(array=labels, grid=volume.grid, stored=volume.stored, notes=(*volume.notes, note))


def _whole_numbers(path: Path) -> Volume:
    """Read a label map, with values that are nearly whole numbers rounded."""
    volume = read_volume(path)
    if np.issubdtype(volume.array.dtype, np.integer):
        return volume
    labels = np.empty(volume.array.shape, dtype=np.int32)
    furthest = 0.0
    fractions: set[float] = set()
    for plane, found in zip(labels[0], volume.array[0], strict=True):
        whole = np.rint(found)
        off = np.abs(found - whole)
        furthest = max(furthest, float(off.max()))
        if off.max() > NEARLY_WHOLE or np.abs(whole).max() > np.iinfo(np.int32).max:
            fractions.update(np.unique(found[(off > NEARLY_WHOLE) | (np.abs(whole) > 2**31 - 1)]).tolist())
        else:
            plane[...] = whole
    if fractions:
        named = listed([f"{value:.6g}" for value in sorted(fractions)], FRACTIONS_NAMED)
        raise ImageError(
            f"expected whole numbers as labels in {path}, found {named}; resample the label map with nearest "
            "neighbours, or give labels instead of probabilities"
        )
    notes = volume.notes
    if furthest:
        notes += (f"labels up to {furthest:.2g} from whole numbers were rounded",)
    return Volume(array=labels, grid=volume.grid, stored=volume.stored, notes=notes)


def write_labels(path: Path, labels: LabelArray, stored: Grid, segments: Sequence[Segment] = ()) -> None:
    """Write a label map on the grid that the input file had, compressed, in the smallest integer type.

    Args:
        path: File to write, with one of `ENDINGS`.
        labels: Label map (S, P, L) in canonical axes.
        stored: `Volume.stored` of the input.
        segments: Every class; NRRD keeps names and colours of those that have voxels.
    """
    smallest = _smallest(int(labels.min()), int(labels.max()))
    named = segments and path.name.lower().endswith(NRRD_ENDINGS)
    array, grid = for_file(orientation(stored).to_stored(labels.astype(smallest)), stored)
    header = slicer_header(present(segments, labels), grid.shape) if named else {}
    _write(path, array, grid, header)


def write_map(path: Path, values: ScoreMap, stored: Grid) -> None:
    """Write a map of numbers on the grid that the input file had, compressed.

    Args:
        path: File to write, with one of `ENDINGS`.
        values: Map (S, P, L) in canonical axes.
        stored: `Volume.stored` of the input.
    """
    array, grid = for_file(orientation(stored).to_stored(values), stored)
    _write(path, array, grid)


def _smallest(low: int, high: int) -> np.dtype[Any]:
    """Return the smallest integer type that holds these values."""
    return np.min_scalar_type(high if low >= 0 else min(low, -high - 1))


def write_array(path: Path, array: ChannelArray, grid: Grid) -> None:
    """Write an array (S, P, L) on its own grid, compressed, with its own voxel type."""
    _write(path, array, grid)


def read_channel(path: Path) -> Channel:
    """Read one file, or a folder of DICOM slices, as it was stored.

    Raises:
        ImageError: If the file cannot be read; see `read_volume`.
    """
    check_name(path)
    if path.is_dir() or (file_ending(path) is None and is_dicom(path)):
        series = find_series(path)
        array, grid = read_series(series)
        return checked_channel(Channel(name=str(path), array=array, grid=grid, notes=series.notes))
    found = open_image(path)
    array = read_voxels(found.voxels)
    return checked_channel(Channel(name=str(path), array=array, grid=found.grid, notes=found.notes))


def open_image(path: Path) -> ImageFile:
    """Read and check the header of an image file of any of `ENDINGS`.

    Raises:
        ImageError: If it is no plain file, or its header is damaged or makes no sense.
    """
    try:
        check_file(path)
    except OSError as error:
        raise ImageError(f"expected an image at {path}, found {error}; copy it there") from None
    ending = file_ending(path)
    if ending is None:
        raise ImageError(f"expected an image ending in {', '.join(ENDINGS)}, found {path}; convert it")
    try:
        if is_nifti(path):
            return read_nifti(path)
        return read_nrrd(path) if ending in NRRD_ENDINGS else read_metaimage(path)
    except OSError as error:
        raise damaged(path, error.strerror or error) from None


class _Voxels:
    """The voxels of an image as an array without a copy; keeps the image alive as long as the array."""

    def __init__(self, image: sitk.Image) -> None:
        self._image = image
        self.__array_interface__ = sitk.GetArrayViewFromImage(image).__array_interface__


def unpack(image: sitk.Image, name: str, notes: tuple[str, ...] = ()) -> Channel:
    """Return array and grid of a SimpleITK image.

    Args:
        image: Image with three axes.
        name: Name of the image in messages.
        notes: Notes on earlier repairs.

    Raises:
        ImageError: If its header makes no sense or voxels are not finite.
    """
    array = np.asarray(_Voxels(image))
    grid, repairs = grid_of_axes(
        triple(array.shape),
        np.asarray(image.GetDirection()).reshape(3, 3),
        np.asarray(image.GetSpacing()),
        np.asarray(image.GetOrigin()),
        name,
    )
    return checked_channel(Channel(name=name, array=array, grid=grid, notes=(*notes, *repairs)))


def checked_channel(channel: Channel) -> Channel:
    """Check a channel and return it.

    Raises:
        ImageError: If it has no voxels, or one that is not finite or too large for float32.
    """
    array, name = channel.array, channel.name
    check_volume(name, array.shape[::-1], 1)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ImageError(
            f"expected finite voxels in {name}, found {count} NaN or infinite ones; replace them"
        )
    if array.dtype == np.float64 and max(-array.min(), array.max()) > LARGEST:
        raise ImageError(
            f"expected voxels that float32 holds in {name}, found {array.min():g} to {array.max():g}; "
            "convert the image again"
        )
    return channel


def _write(
    path: Path, array: Num[np.ndarray, "k j i"], grid: Grid, header: Mapping[str, str] | None = None
) -> None:
    if file_ending(path) is None:
        raise ImageError(f"expected an output file ending in {', '.join(ENDINGS)}, found {path}; rename it")
    check_name(path)
    image = pack(array, grid)
    for key, value in (header or {}).items():
        image.SetMetaData(key, value)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder rather than a file: .mhd and .nhdr name their data file, so names must be the final ones.
        with TemporaryDirectory(prefix=".", suffix=".tmp", dir=path.parent) as folder:
            if is_nifti(path) and is_oblique(grid):
                write_oblique(Path(folder) / path.name, array, grid)
            else:
                with without_chatter():
                    sitk.WriteImage(image, str(Path(folder) / path.name), useCompression=True)
            if not is_oblique(grid):  # which is written only, and not read
                # The NIfTI library reports success even if the disk is full.
                check_voxels(open_image(Path(folder) / path.name).voxels)
            for part in sorted(Path(folder).iterdir(), key=lambda part: part.name == path.name):
                rename_durably(part, path.parent / part.name)
    except (OSError, RuntimeError, ImageError) as error:
        cut = isinstance(error, ImageError)
        reason = f"that it cannot be read back ({error})" if cut else first_line(error)
        raise ImageError(
            f"expected to write {path}, found {reason}; free some space or choose another folder"
        ) from None


def pack(array: Num[np.ndarray, "k j i"], grid: Grid) -> sitk.Image:
    """Return the SimpleITK image with this array, in ITK's order of axes, on this grid."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction)
    return image
