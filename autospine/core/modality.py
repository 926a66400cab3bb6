"""The modality of an image, CT or MR, from names or else from intensities; and values that no image has."""

import math
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Num

from autospine.core.types import ChannelArray, Modality, VolumeArray

_CT_NAME = re.compile(r"ct(?![a-z])", re.IGNORECASE)
_MR_NAME = re.compile(r"(mri?|t1|t2|pd)(?![a-z])|t[12][a-z]|flair|stir|dixon", re.IGNORECASE)

AIR_HU, AIR_WIDTH_HU = -1000.0, 100.0
"""Air, and how far noise and calibration move it (HU)."""

MOST_AS_DENSE = 0.1
"""Largest share of a spine's voxels within `AIR_WIDTH_HU` of +1000 HU: cortical bone alone is as dense."""

AIR_EVIDENCE_HU = -200.0
"""Only CT has voxels below this: air, and fat blurred with it (HU)."""

AIR_PERCENT = 0.1
"""Percentage of voxels that must be as dark as air: noise and bowel gas alone make 1 % of a lumbar crop."""

FAT_HU, FAT_PERCENT = -50.0, 2.0
"""A CT crop without air still has fat: at least this percentage of its voxels is darker than this (HU)."""

RINGING = 0.05
"""MR resampled with overshoot has negative voxels too, down to less than this share of its bright end."""

FEWEST_VALUES = 64
"""Number of distinct values that an image has at least; label maps have tens at most."""

HU_RANGE = (-1024.0, 3071.0)
"""HU that 12-bit scanners store: beyond lies metal, which fills little of an image."""

DARKEST_HU = -1500.0
"""Air is -1000 HU and noise and filters leave it above this; padding is a single value."""

LEAST_SPAN_HU = 100.0
"""Fat and muscle alone are further apart than this; a CT of a smaller range is not in HU."""

TISSUE_PERCENT = 1.0
"""Percentage of a CT that is denser than air at least: a neck in a field of view of half a metre is 5 %."""

FINE_SPAN_HU = 500.0
"""Fractions of a CT whose range is smaller than this are more than rounding."""

WINDOWED = ((0.0, 255.0), (-128.0, 127.0))
"""Grey values of a screen, with and without sign: a CT within one of these was saved through a window. Every
CT of a spine has bone and fat, which lie outside."""

OFTEN = 0.02
"""Share of voxels above which a single value is padding, or air that was cut off, rather than tissue."""

CENTRAL_PERCENT = (1.0, 99.0)
"""Percentiles between which the values of tissue lie, without metal and single wrong voxels."""

BEYOND = 4.0
"""Distance from the central range, in its widths, beyond which values that are not HU are clipped: a single
wrong voxel would else take all of the 16 bits."""

_SAMPLE = 1 << 20
"""Most voxels that a guess is based on, about."""

_FEWER = 1 << 17
"""Voxels that are enough for percentiles, and quickly sorted."""


def guess_modality(array: ChannelArray) -> Modality:
    """Guess the modality: CT has air and fat well below zero; MR has no negative voxels except by ringing.

    CT stored with air at 0 is recognised by `offset_in_hu`.
    """
    sample = _sampled(array)
    dark, bright = np.percentile(sample, (AIR_PERCENT, 100 - AIR_PERCENT))
    air = dark < AIR_EVIDENCE_HU and -dark > RINGING * bright
    fatty, light = np.percentile(sample, (FAT_PERCENT, 95))
    fat = fatty < FAT_HU and -fatty > RINGING * light
    return "CT" if air or fat or offset_in_hu(array) else "MR"


def few_values(array: ChannelArray) -> int | None:
    """Return the number of distinct values of an image if no scanner produces so few; None otherwise."""
    sample = _sampled(array)
    count = np.unique(sample).size
    return count if count < min(FEWEST_VALUES, sample.size / 8) else None


def offset_in_hu(array: ChannelArray) -> int:
    """Return 1024 for an image that looks like CT stored without its rescaling (water at about 1024), else 0.

    There nothing is as dark as air in HU, whatever overshoot resampling has left, and what is not air lies
    closely around water: half of it within 200 HU and its median within -150 and 200 HU. Tissues in MR differ
    by multiples.
    """
    sample = _sampled(array)
    tissue = sample[sample > 200]
    if np.percentile(sample, AIR_PERCENT) < AIR_HU / 2 or tissue.size <= sample.size // 100:
        return 0
    low, middle, high = np.percentile(tissue, (25, 50, 75))
    return 1024 if 874 < middle < 1224 and high - low < 200 else 0


def _offset_note(array: ChannelArray) -> str | None:
    """Return a note on a CT stored without its rescaling; None for any other image."""
    offset = offset_in_hu(array)
    if not offset:
        return None
    return f"looks like CT with water at about {offset} instead of 0 HU; subtract {offset}, or what was added"


def check_values(array: VolumeArray, modality: Modality) -> tuple[str, ...]:
    """Look at an image's values, before training as before prediction.

    Args:
        array: (C, S, P, L) as read.
        modality: Modality as which it is used.

    Returns:
        Notes on what is unusual and why it may be so: a single value, few values, or a CT that is not in HU.
    """
    if same := same_everywhere(array):
        return (same,)
    notes: list[str] = []
    for index, channel in enumerate(array):
        which = f"channel {index} " if len(array) > 1 else ""
        count = few_values(channel)
        if count:
            notes.append(f"{which}has {count} different value{'s' if count > 1 else ''}; is it a label map?")
        if modality == "CT" and (note := _offset_note(channel) or _hu_note(channel)):
            notes.append(f"{which}{note}")
    return tuple(notes)


def same_everywhere(array: VolumeArray) -> str | None:
    """Return a note on a channel with the same value in every voxel; None if there is no such channel."""
    for index, channel in enumerate(array):
        first = channel.flat[0]
        if few_values(channel) == 1 and (channel == first).all():
            which = f"channel {index} " if len(array) > 1 else ""
            return f"{which}has the value {first:g} in every voxel; export it again from its source"
    return None


def _hu_note(array: ChannelArray) -> str | None:
    """Return a note on a CT whose values cannot be HU, with the likely cause; None if they may be."""
    sample = _sampled(array)
    low, high = _central_range(sample)
    inside = any(least <= sample.min() and sample.max() <= most for least, most in WINDOWED)
    if high - low >= LEAST_SPAN_HU and inside:
        cause = "grey values of a window"
    elif high - low < LEAST_SPAN_HU:
        scaled = low >= -1.05 and high <= 1.05
        cause = "scaled values or attenuation" if scaled else "standardised values or attenuation"
    elif np.mean(np.abs(sample + AIR_HU) < AIR_WIDTH_HU) > MOST_AS_DENSE:
        cause = "negated values, or another scale"
    elif np.percentile(sample, 95) > HU_RANGE[1]:
        cause = "another scale, or values without the rescaling of their DICOM header"
    elif np.percentile(sample, 100 - TISSUE_PERCENT) < AIR_EVIDENCE_HU:
        cause = "air alone, or values with the rescaling of their DICOM header applied twice"
    elif low < DARKEST_HU:
        cause = "another scale"
    elif FAT_HU < np.percentile(sample, AIR_PERCENT) < LEAST_SPAN_HU:
        cause = "a window or a scale that begins at 0, as there is neither air nor fat"
    else:
        return None
    return (
        f"has values mostly from {_number(low)} to {_number(high)}, which cannot be the HU of a body; they "
        f"look like {cause}: save the image in HU, unless all images of the model are like this"
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def fits_hu(array: ChannelArray) -> bool:
    """Return whether whole numbers in `HU_RANGE` keep the values of a CT channel, but for noise and metal."""
    sample = _sampled(array)
    low, high = _central_range(sample)
    if np.issubdtype(array.dtype, np.floating) and high - low < FINE_SPAN_HU:
        return bool((array == np.rint(array)).all())
    return bool(low >= DARKEST_HU and np.percentile(sample, 95) <= HU_RANGE[1])


def stored_range(array: ChannelArray) -> tuple[float, float]:
    """Return the range over which 16 bits are spread for a CT channel that is not in HU.

    That is all of its values, unless a few lie far from the others, or padding does.
    """
    low, high = _central_range(_sampled(array))
    beyond = BEYOND * (high - low)
    return max(float(array.min()), low - beyond), min(float(array.max()), high + beyond)


def modality_of_channels(channels: Sequence[str]) -> Modality | None:
    """Return the modality that the first channel's name states; None if it states none."""
    if _CT_NAME.match(channels[0]):
        return "CT"
    return "MR" if _MR_NAME.match(channels[0]) else None


def _central_range(sample: Num[np.ndarray, "voxels"]) -> tuple[float, float]:
    """Return the range of the values of tissue: without padding, metal and single wrong voxels."""
    sample = sample[:: max(1, sample.size // _FEWER)]
    values, counts = np.unique(sample, return_counts=True)
    often = values[counts > OFTEN * sample.size]
    tissue = sample[~np.isin(sample, often)]
    low, high = np.percentile(tissue if tissue.size > OFTEN * sample.size else sample, CENTRAL_PERCENT)
    return float(low), float(high)


def _sampled(array: ChannelArray) -> Num[np.ndarray, "voxels"]:
    """Return evenly spaced voxels as a flat array."""
    step = max(1, math.ceil((array.size / _SAMPLE) ** (1 / 3)))
    sample: np.ndarray = array[::step, ::step, ::step].ravel()
    return sample
