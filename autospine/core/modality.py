"""The modality of an image, CT or MR: from names, else from intensities."""

import math
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Num

from autospine.core.types import ChannelArray, Modality

_CT_NAME = re.compile(r"ct(?![a-z])", re.IGNORECASE)
_MR_NAME = re.compile(r"(mri?|t1|t2|pd)(?![a-z])|t[12][a-z]|flair|stir|dixon", re.IGNORECASE)

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

_SAMPLE = 1 << 20
"""Most voxels that a guess is based on, about."""


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
    """Return 1024 for an image that looks like CT stored without its rescaling (water at 1024), else 0.

    There no voxel is negative, and what is not air lies closely around water: half of it within 200 HU
    and its median within -150 and 200 HU. Tissues in MR differ by multiples.
    """
    sample = _sampled(array)
    tissue = sample[sample > 200]
    if sample.min() < 0 or tissue.size <= sample.size // 100:
        return 0
    low, middle, high = np.percentile(tissue, (25, 50, 75))
    return 1024 if 874 < middle < 1224 and high - low < 200 else 0


def offset_note(array: ChannelArray) -> str | None:
    """Return a note on a CT stored without its rescaling; None for any other image."""
    offset = offset_in_hu(array)
    if not offset:
        return None
    return f"looks like CT with water at {offset} instead of 0 HU; subtract {offset} from the image"


def modality_of_channels(channels: Sequence[str]) -> Modality | None:
    """Return the modality that the first channel's name states; None if it states none."""
    if _CT_NAME.match(channels[0]):
        return "CT"
    return "MR" if _MR_NAME.match(channels[0]) else None


def _sampled(array: ChannelArray) -> Num[np.ndarray, "voxels"]:
    """Return evenly spaced voxels as a flat array."""
    step = max(1, math.ceil((array.size / _SAMPLE) ** (1 / 3)))
    sample: np.ndarray = array[::step, ::step, ::step].ravel()
    return sample
