"""One volume made ready for the network: cropped, resampled, kept as 16-bit integers.

Training and inference both come through here, so that they see the same image.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16, UInt8

from autospine.core.geometry import Box, triple
from autospine.core.modality import HU_RANGE, fits_hu, stored_range
from autospine.core.types import ChannelArray, ImageArray, LabelArray, Modality, Shape3, Vector3, VolumeArray
from autospine.io.images import Volume
from autospine.plan import Normalisation
from autospine.preprocessing.normalise import IntensityTransform, intensity_transform
from autospine.preprocessing.resample import (
    BLOCK,
    Orders,
    image_orders,
    needed_rows,
    resample_labels,
    resample_rows,
    target_shape,
)

LEVELS = 65_000
"""Steps of the 16-bit scale that an MR channel's clipping range is spread over, and the range of a CT that is
not in HU."""

CORNERS_THAT_AGREE = 3
"""Corners that must hold the same value for it to count as padding.

Padding left by a rotation, a gantry tilt or a fixed matrix fills several corners with one number; in an
image that fills its volume, noise makes them differ.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """Conversion of stored 16-bit integers to intensities, per channel: value = stored * scale + offset."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def decode(self, stored: Int16[np.ndarray, "C *shape"]) -> Float32[np.ndarray, "C *shape"]:
        """Convert stored integers to a new float32 array in the image's units."""
        image = stored.astype(np.float32)
        for values, scale, offset in zip(image, self.scale, self.offset, strict=True):
            if scale != 1:
                values *= np.float32(scale)
            if offset != 0:
                values += np.float32(offset)
        return image


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An image at the plan's spacing, with everything needed to map results back."""

    image: Int16[np.ndarray, "C S P L"]
    encoding: Encoding
    transform: IntensityTransform
    crop: Box
    """Part of the volume that was kept, in voxels of its canonical grid."""

    source_shape: Shape3
    """Voxels of the volume before the crop."""

    spacing_mm: Vector3
    """Spacing of the configuration; as outer edges coincide, the true one differs by rounding."""

    @property
    def shape(self) -> Shape3:
        """Voxels of the prepared image."""
        return triple(self.image.shape[1:])

    def normalised(self) -> ImageArray:
        """Return the network's input, float32 (C, S, P, L); a new array at each call."""
        return self.transform.apply(self.encoding.decode(self.image))


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """A volume about to be prepared: everything is decided, and rows are computed on demand."""

    array: VolumeArray
    """Cropped volume, as read."""

    shape: Shape3
    """Voxels of the prepared image."""

    orders: Orders
    bounds: tuple[tuple[float, float], ...]
    """Clipping bounds of each channel, in the image's units."""

    encoding: Encoding
    transform: IntensityTransform
    crop: Box
    """Part of the volume that is kept, in voxels of its canonical grid."""

    source_shape: Shape3
    spacing_mm: Vector3

    def rows(self, rows: slice) -> Int16[np.ndarray, "C s P L"]:
        """Compute some rows of the prepared image from the part of the volume that they depend on.

        Args:
            rows: Range of rows along S. If it begins and ends at multiples of `resample.BLOCK` or at the
                image's ends, the result is the same to the last bit; else it may differ by one rounding step.
        """
        stored = np.empty((len(self.array), rows.stop - rows.start, *self.shape[1:]), dtype=np.int16)
        for start in range(rows.start, rows.stop, BLOCK):
            block = slice(start, min(start + BLOCK, rows.stop))
            self._make(block, stored[:, block.start - rows.start : block.stop - rows.start])
        return stored

    def _make(self, rows: slice, stored: Int16[np.ndarray, "C S P L"]) -> None:
        """Write some rows into their place; little besides them is held in memory."""
        n = self.array.shape[1]
        needed = needed_rows(n, self.shape[0], self.orders[0], rows)
        for channel, values in enumerate(self.array):
            bounds = self.bounds[channel]
            clipped = values[needed].astype(np.float32)
            np.clip(clipped, *bounds, out=clipped)
            fine = resample_rows(clipped, needed, n, self.shape, self.orders, rows)
            # A cubic spline overshoots at edges.
            np.clip(fine, *bounds, out=fine)
            fine -= np.float32(self.encoding.offset[channel])
            fine /= np.float32(self.encoding.scale[channel])
            stored[channel] = np.rint(fine, out=fine)

    def whole(self) -> Prepared:
        """Compute the whole prepared image."""
        return Prepared(
            image=self.rows(slice(0, self.shape[0])),
            encoding=self.encoding,
            transform=self.transform,
            crop=self.crop,
            source_shape=self.source_shape,
            spacing_mm=self.spacing_mm,
        )


def prepare_image(
    volume: Volume,
    modality: Modality,
    spacing_mm: Vector3,
    normalisation: Normalisation,
    labels: LabelArray | None = None,
) -> Prepared:
    """Crop, resample and encode a volume; the arguments are those of `begin_preparation`."""
    return begin_preparation(volume, modality, spacing_mm, normalisation, labels).whole()


def begin_preparation(
    volume: Volume,
    modality: Modality,
    spacing_mm: Vector3,
    normalisation: Normalisation,
    labels: LabelArray | None = None,
) -> Preparation:
    """Decide how a volume is cropped, resampled and encoded.

    Args:
        volume: Volume in canonical orientation.
        modality: Modality of the volume.
        spacing_mm: Voxel size of the configuration.
        normalisation: The plan's rule for this modality.
        labels: Label map (S, P, L) on the volume's grid; if given, the crop keeps every labelled voxel.
    """
    box = content_box(volume.array)
    if labels is not None and (labelled := Box.around(labels)):
        box = Box.hull((box, labelled))
    array = volume.array[(slice(None), *box.slices)]
    transform = intensity_transform(array, normalisation)
    bounds = tuple(zip(transform.lower, transform.upper, strict=True))
    if modality == "CT":
        bounds = tuple(HU_RANGE if fits_hu(channel) else stored_range(channel) for channel in array)
    return Preparation(
        array=array,
        shape=target_shape(box.shape, volume.grid.spacing_mm, spacing_mm),
        orders=image_orders(volume.grid.spacing_mm, spacing_mm),
        bounds=bounds,
        encoding=_encoding(bounds, in_hu=modality == "CT"),
        transform=transform,
        crop=box,
        source_shape=volume.grid.shape,
        spacing_mm=spacing_mm,
    )


def prepare_labels(indices: LabelArray, prepared: Prepared) -> UInt8[np.ndarray, "s p l"]:
    """Crop and resample stored indices from a volume's grid to the prepared image's grid."""
    return resample_labels(indices[prepared.crop.slices], prepared.shape)


def _encoding(bounds: Sequence[tuple[float, float]], *, in_hu: bool) -> Encoding:
    """Return the encoding of channels with these clipping bounds: HU as they are, others spread over 16 bits.

    CT within `HU_RANGE` has steps of 1 HU; what a scanner resolves is coarser.
    """
    whole = [in_hu and each == HU_RANGE for each in bounds]
    scale = [
        (high - low) / LEVELS if high > low and not as_is else 1.0
        for (low, high), as_is in zip(bounds, whole, strict=True)
    ]
    offset = [
        0.0 if as_is else low + LEVELS / 2 * step
        for (low, _), step, as_is in zip(bounds, scale, whole, strict=True)
    ]
    return Encoding(scale=tuple(scale), offset=tuple(offset))


def content_box(array: VolumeArray) -> Box:
    """Return the smallest box outside which every channel is padding.

    Padding is the value that several corners of a channel share: 0, or -1024 in CT. A channel without such
    a value, or with nothing else, is content throughout.

    Args:
        array: (C, S, P, L).
    """
    paddings = [_padding_value(channel) for channel in array]
    known = [(channel, value) for channel, value in zip(array, paddings, strict=True) if value is not None]
    whole = Box.whole(array.shape[1:])
    if len(known) < len(array):
        return whole
    # Plane by plane: masks of the whole volume would take as much memory as the image.
    planes = (
        np.logical_or.reduce([channel[row] != value for channel, value in known])
        for row in range(array.shape[1])
    )
    return Box.around(planes) or whole


def _padding_value(channel: ChannelArray) -> int | float | None:
    """Return the value that several corners of a channel share; None if no value is."""
    corners = channel[
        :: max(1, channel.shape[0] - 1), :: max(1, channel.shape[1] - 1), :: max(1, channel.shape[2] - 1)
    ]
    value, count = Counter(corners.ravel().tolist()).most_common(1)[0]
    return value if count >= min(CORNERS_THAT_AGREE, corners.size) else None
