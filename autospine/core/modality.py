"""CT or MR: from names, else from intensities."""

import math
import re
from collections.abc import Sequence

import numpy as np

from autospine.core.types import Modality

_CT_NAME = re.compile(r"ct(?![a-z])", re.IGNORECASE)
_MR_NAME = re.compile(r"(mri?|t1|t2|pd)(?![a-z])|t[12][a-z]|flair|stir|dixon", re.IGNORECASE)

AIR_EVIDENCE_HU = -200.0
"""CT has air, and fat blurred with it, below this."""

AIR_PERCENT = 0.1
"""Percent of voxels that must be that dark: a lumbar crop without air has 1 %, by noise and bowel gas."""

FAT_HU, FAT_PERCENT = -50.0, 2.0
"""A crop without any air still has fat: this percent of its voxels are darker than this."""

RINGING = 0.05
"""MR resampled with overshoot has negative voxels too, but by less than this share of its bright end."""

FEWEST_VALUES = 64
"""Images have hundreds of different values or more; label maps have tens at most."""

_SAMPLE = 1 << 20
"""Voxels that a guess looks at, at most about."""


def guess_modality(array: np.ndarray) -> Modality:
    """CT has air and fat well below zero; MR magnitudes are not negative but for a little ringing.

    CT stored with air at 0 is recognised by `offset_in_hu`.
    """
    sample = _sampled(array)
    dark, bright = np.percentile(sample, (AIR_PERCENT, 100 - AIR_PERCENT))
    air = dark < AIR_EVIDENCE_HU and -dark > RINGING * bright
    fatty, light = np.percentile(sample, (FAT_PERCENT, 95))
    fat = fatty < FAT_HU and -fatty > RINGING * light
    return "CT" if air or fat or offset_in_hu(array) else "MR"


def few_values(array: np.ndarray) -> int | None:
    """How many different values an image has, where no scanner makes so few; None where it has enough."""
    sample = _sampled(array)
    count = np.unique(sample).size
    return count if count < min(FEWEST_VALUES, sample.size / 8) else None


def offset_in_hu(array: np.ndarray) -> int:
    """1024 for what looks like CT stored without its rescaling (water at 1024), else 0.

    There no voxel is negative, and what is not air lies closely around water: half of it within 200 HU
    and its median within -150 and 200 HU. Tissues in MR differ by multiples.
    """
    sample = _sampled(array)
    tissue = sample[sample > 200]
    if sample.min() < 0 or tissue.size <= sample.size // 100:
        return 0
    low, middle, high = np.percentile(tissue, (25, 50, 75))
    return 1024 if 874 < middle < 1224 and high - low < 200 else 0


def offset_note(array: np.ndarray) -> str | None:
    """What is odd about a CT stored without its rescaling, and what to do; None of others."""
    offset = offset_in_hu(array)
    if not offset:
        return None
    return f"looks like CT with water at {offset} instead of 0 HU; subtract {offset} from the image"


def modality_of_channels(channels: Sequence[str]) -> Modality | None:
    """What the first channel's name says, None if nothing."""
    if _CT_NAME.match(channels[0]):
        return "CT"
    return "MR" if _MR_NAME.match(channels[0]) else None


def _sampled(array: np.ndarray) -> np.ndarray:
    """Evenly spread voxels as a flat array."""
    step = max(1, math.ceil((array.size / _SAMPLE) ** (1 / 3)))
    sample: np.ndarray = array[::step, ::step, ::step].ravel()
    return sample
