"""Intensities as network input: clip, subtract, divide, with numbers fixed per case.

CT uses the dataset's foreground statistics, since Hounsfield units mean the same everywhere. MR has no
unit, so each image brings its own.
"""

from dataclasses import dataclass

import numpy as np

from autospine.core.types import ChannelArray, ImageArray, VolumeArray
from autospine.plan import Normalisation

SAMPLE_VOXELS = 2_000_000
"""Number of voxels, about, from which the statistics of a channel are computed."""

BACKGROUND_FRACTION = 0.05
"""MR voxels below this share of the image's range count as air.

Noise in air stays within 3 % of the brightest tissue, muscle and bone lie above 10 %.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class IntensityTransform:
    """x -> (clip(x, lower, upper) - mean) / std, one entry per channel, in the image's own units."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def background(self) -> tuple[float, ...]:
        """Normalised lower bound of each channel: the network's input outside an image."""
        return tuple((a - m) / s for a, m, s in zip(self.lower, self.mean, self.std, strict=True))

    def apply(self, image: ImageArray) -> ImageArray:
        """Normalise a float32 image (C, ...) in place and return it."""
        for values, lower, upper, mean, std in zip(
            image, self.lower, self.upper, self.mean, self.std, strict=True
        ):
            np.clip(values, lower, upper, out=values)
            values -= mean
            values *= 1 / std
        return image


def intensity_transform(image: VolumeArray, normalisation: Normalisation) -> IntensityTransform:
    """Return the numbers with which an image is normalised.

    Args:
        image: (C, S, P, L) as read, without padding.
        normalisation: The plan's rule for the image's modality. In CT every channel is in HU.
    """
    if normalisation.scope == "dataset":
        n = len(image)
        return IntensityTransform(
            lower=(float(normalisation.lower),) * n,
            upper=(float(normalisation.upper),) * n,
            mean=(float(normalisation.mean),) * n,
            std=(float(normalisation.std),) * n,
        )
    rows = [_image_statistics(channel, normalisation) for channel in image]
    lower, upper, mean, std = zip(*rows, strict=True)
    return IntensityTransform(lower=lower, upper=upper, mean=mean, std=std)


def _image_statistics(channel: ChannelArray, rule: Normalisation) -> tuple[float, float, float, float]:
    """Return clipping bounds, mean and standard deviation of the voxels that are not air."""
    step = max(1, round((channel.size / SAMPLE_VOXELS) ** (1 / 3)))
    values = channel[::step, ::step, ::step].ravel().astype(np.float64)
    low, high = np.quantile(values, (0.001, 0.999))
    tissue = values[values > low + BACKGROUND_FRACTION * (high - low)]
    if not len(tissue):
        tissue = values
    lower, upper = np.quantile(tissue, (rule.lower, rule.upper))
    # The darkest tissue is no darker than air: clipping at the tissue's own bound would merge the two.
    lower = min(lower, low)
    clipped = np.clip(tissue, lower, upper)
    spread = float(clipped.std())
    return float(lower), float(upper), float(clipped.mean()), spread if spread > 0 else 1.0
