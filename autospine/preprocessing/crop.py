"""The part of a volume that holds an image rather than padding."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from autospine.core.geometry import Box
from autospine.core.types import LabelArray, VolumeArray

CORNERS_THAT_AGREE = 3
"""Corners that must hold the same value for it to count as padding.

Padding left by a rotation, a gantry tilt or a fixed matrix fills several corners with one number; in an
image that fills its volume, noise makes them differ.
"""


def content_box(array: VolumeArray) -> Box:
    """The smallest box outside which every channel is padding.

    Padding is the value that several corners of a channel share: 0, or -1024 in CT. A channel without such
    a value, or with nothing else, is content throughout.

    Args:
        array: (C, S, P, L).
    """
    paddings = [_padding_value(channel) for channel in array]
    known = [(channel, value) for channel, value in zip(array, paddings, strict=True) if value is not None]
    if len(known) < len(array):
        return whole_box(array.shape[1:])
    # Plane by plane: masks of the whole volume would take as much memory as the image.
    planes = (
        np.logical_or.reduce([channel[row] != value for channel, value in known])
        for row in range(array.shape[1])
    )
    return _box_of(planes, *array.shape[2:]) or whole_box(array.shape[1:])


def labelled_box(labels: LabelArray) -> Box | None:
    """The smallest box that holds every voxel that is not 0, None where there is none.

    Args:
        labels: (S, P, L).
    """
    return _box_of((plane != 0 for plane in labels), *labels.shape[1:])


def _box_of(planes: Iterable[np.ndarray], width: int, length: int) -> Box | None:
    """The smallest box that holds every true voxel of a mask given plane by plane (P, L) along S."""
    rows, columns, along = [], np.zeros(width, dtype=bool), np.zeros(length, dtype=bool)
    for plane in planes:
        rows.append(plane.any())
        columns |= plane.any(axis=1)
        along |= plane.any(axis=0)
    filled = [np.flatnonzero(axis) for axis in (np.asarray(rows), columns, along)]
    if not len(filled[0]):
        return None
    s, p, left = ((int(axis[0]), int(axis[-1]) + 1) for axis in filled)
    return Box(start=(s[0], p[0], left[0]), stop=(s[1], p[1], left[1]))


def union(a: Box, b: Box | None) -> Box:
    """The smallest box that holds both."""
    if b is None:
        return a
    start = tuple(map(min, a.start, b.start))
    stop = tuple(map(max, a.stop, b.stop))
    return Box(start=(start[0], start[1], start[2]), stop=(stop[0], stop[1], stop[2]))


def whole_box(shape: tuple[int, ...]) -> Box:
    """The box of a whole (S, P, L) array."""
    return Box(start=(0, 0, 0), stop=(shape[0], shape[1], shape[2]))


def _padding_value(channel: np.ndarray) -> int | float | None:
    corners = channel[
        :: max(1, channel.shape[0] - 1), :: max(1, channel.shape[1] - 1), :: max(1, channel.shape[2] - 1)
    ]
    value, count = Counter(corners.ravel().tolist()).most_common(1)[0]
    return value if count >= min(CORNERS_THAT_AGREE, corners.size) else None
