"""The part of a volume that holds an image rather than padding."""

from collections import Counter

import numpy as np

from autospine.core.geometry import Box
from autospine.core.types import ChannelArray, VolumeArray

CORNERS_THAT_AGREE = 3
"""Corners that must hold the same value for it to count as padding.

Padding left by a rotation, a gantry tilt or a fixed matrix fills several corners with one number; in an
image that fills its volume, noise makes them differ.
"""


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
