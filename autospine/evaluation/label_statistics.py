"""Numbers about the anatomy in a label map: volume, position, intensity and components of each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Integer, UInt8
from scipy import ndimage

from autospine.core.geometry import Box, Grid, triple, vector
from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.types import ChannelArray, LabelArray, MaskArray, Vector3
from autospine.evaluation.components import find_components

MOST_NAMED = 12
"""Most classes that a list names; of more, those in the middle are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelStatistics:
    """One class in one label map."""

    label: str
    """Name of the class."""

    integer: int
    """Label value that stands for it on disk."""

    voxels: int
    """Number of its voxels."""

    ml: float
    """Volume in ml."""

    centroid_mm: Vector3 | None
    """Mean position (x, y, z) of its voxels in LPS coordinates: x grows to the left, y to the back, z to the
    head, as in ITK and DICOM; None if it has no voxels."""

    mean_intensity: float | None
    """Mean of the first channel over its voxels; None if it has no voxels, or there is no image."""

    components: int
    """Number of connected components (26 neighbours)."""

    touches_border: bool
    """Whether it has a voxel at the border of the image, so that a part of the structure may be missing.

    Along an axis of one voxel an image has no border: all of it would lie there.
    """


class LabelledIntensities(NamedTuple):
    """The part of an image that the labels of a map can lie in."""

    values: ChannelArray
    """(S, P, L) values of the first channel."""

    box: Box
    """Box in the map that the values lie in."""


def intensities_at(labels: LabelArray, image: ChannelArray) -> LabelledIntensities | None:
    """Copy the part of an image that labels, or holes in them, lie in; None if there are none.

    Args:
        labels: (S, P, L) label values, 0 in the background.
        image: (S, P, L) values of the first channel.
    """
    box = Box.around(labels)
    return None if box is None else LabelledIntensities(values=image[box.slices].copy(), box=box)


def measure_labels(
    indices: UInt8[np.ndarray, "S P L"],
    space: LabelSpace,
    grid: Grid,
    image: LabelledIntensities | None = None,
) -> tuple[LabelStatistics, ...]:
    """Measure each class of a label map; of overlapping regions, each with all that lies in it.

    Args:
        indices: Stored indices, as `LabelSpace.encode` returns them; what is ignored counts as background.
        space: Label space of the classes.
        grid: Grid of the map.
        image: Intensities wherever the map has labels; None if there is no image.

    Returns:
        One entry for each of `space.names`, also for those that have no voxels.
    """
    found = ndimage.find_objects(indices, len(space.integers))  # passes over larger ones
    measured = []
    for name, integer, row in zip(
        space.names, space.painted, space.membership[-len(space.names) :], strict=True
    ):
        # What is ignored is a member of no class.
        members = np.zeros(IGNORE_INDEX + 1, dtype=bool)
        members[: len(row)] = row
        boxes = [Box.of(found[index - 1]) for index in np.flatnonzero(row).tolist() if found[index - 1]]
        if boxes:
            box = Box.hull(boxes)
            measured.append(_measured(name, integer, members[indices[box.slices]], box, grid, image))
        else:
            measured.append(_absent(name, integer))
    return tuple(measured)


def names_found(statistics: Sequence[LabelStatistics]) -> str:
    """Return the names of the classes that have voxels, those in the middle of a long list left out."""
    found = [each.label for each in statistics if each.voxels]
    if len(found) <= MOST_NAMED:
        return ", ".join(found)
    half = MOST_NAMED // 2
    return f"{', '.join(found[:half])} ... {', '.join(found[-half:])} ({len(found)} of {len(statistics)})"


def _measured(
    name: str, integer: int, mask: MaskArray, box: Box, grid: Grid, image: LabelledIntensities | None
) -> LabelStatistics:
    """Measure a class that has voxels, by its mask within a box that none lies outside of."""
    voxels = int(np.count_nonzero(mask))
    # cc3d fails on some masks of Booleans (4.1.1).
    components = find_components(mask.astype(np.uint8))
    centre = grid.physical(np.asarray(box.start) + _centre(mask, voxels))
    return LabelStatistics(
        label=name,
        integer=integer,
        voxels=voxels,
        ml=round(voxels * prod(grid.spacing_mm) / 1000, 6),
        centroid_mm=triple(round(mm, 3) for mm in vector(centre)),
        mean_intensity=None if image is None else _mean_intensity(mask, box, image),
        components=len(components.sizes) - 1,
        touches_border=box.reaches_border(grid.shape),
    )


def _absent(name: str, integer: int) -> LabelStatistics:
    """Return the entry of a class that has no voxels."""
    return LabelStatistics(
        label=name,
        integer=integer,
        voxels=0,
        ml=0.0,
        centroid_mm=None,
        mean_intensity=None,
        components=0,
        touches_border=False,
    )


def _centre(mask: MaskArray, voxels: int) -> Float64[np.ndarray, "3"]:
    """Return the mean index of a mask's voxels along each axis."""
    counts: list[Integer[np.ndarray, " N"]] = [
        np.count_nonzero(mask, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))
    ]
    return np.asarray([along @ np.arange(len(along)) / voxels for along in counts])


def _mean_intensity(mask: MaskArray, box: Box, image: LabelledIntensities) -> float | None:
    """Return the mean intensity of a mask's voxels; None if it is not finite."""
    inside = image.values[box.counted_from(image.box.start).slices]
    mean = float(inside[mask].mean(dtype=np.float64))
    return round(mean, 4) if np.isfinite(mean) else None
