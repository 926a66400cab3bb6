"""The part of a volume that holds an image rather than padding."""

from collections import Counter

import numpy as np

from autospine.geometry import Box
from autospine.types import MaskArray, VolumeArray

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
    content = np.zeros(array.shape[1:], dtype=bool)
    for channel in array:
        padding = _padding_value(channel)
        if padding is None:
            return whole_box(channel.shape)
        content |= channel != padding
    return mask_box(content) or whole_box(content.shape)


def mask_box(mask: MaskArray) -> Box | None:
    """The smallest box that holds every true voxel, None where there is none."""
    start: list[int] = []
    stop: list[int] = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        if not len(filled):
            return None
        start.append(int(filled[0]))
        stop.append(int(filled[-1]) + 1)
    return Box(start=(start[0], start[1], start[2]), stop=(stop[0], stop[1], stop[2]))


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
