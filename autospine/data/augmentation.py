"""Augmentation of a patch by random intensity changes and the left/right flip.

Noise, blur, brightness, contrast and gamma are batchgenerators' (Isensee et al., Zenodo 3632567); resampling
is done here, at a fraction of the cost. Ranges are those of nnU-Net v2 unless stated otherwise.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from autospine.core.errors import PlanError
from autospine.core.geometry import triple
from autospine.core.types import ImageArray, LabelArray
from autospine.plan import Augmentation
from autospine.preprocessing.resample import resample

NOISE_STD = (0.0, 0.3)
BLUR_SIGMA = (0.5, 1.0)
BRIGHTNESS = (0.75, 1.25)
CONTRAST = (0.75, 1.25)
GAMMA = (0.7, 1.5)

LOW_RESOLUTION = (0.5, 1.0)
"""Range of the share of voxels that is kept along every axis."""

THICK_SLICES = (0.25, 1.0)
"""Range of the share of planes that is kept if a single axis is made coarse, as in sagittal MR."""

_global_random = threading.Lock()
"""Lock of the global generators, because several threads may make patches."""


class Intensities:
    """Random intensity changes of normalised patches; only this class uses batchgenerators.

    Args:
        probability: Probability of each kind of change, in [0, 1].
    """

    def __init__(self, probability: float) -> None:
        self._probability = probability

    def __call__(self, image: ImageArray, rng: np.random.Generator) -> ImageArray:
        """Change the intensities of a patch at random.

        Args:
            image: Normalised image (C, S, P, L); may be overwritten.
            rng: Random generator of the patch.
        """
        # Importing batchgenerators takes a second, which only training should pay.
        from batchgenerators.augmentations import color_augmentations as color_changes
        from batchgenerators.augmentations import noise_augmentations as noise_changes

        noise, blur, brighter, contrast, coarser, gamma, inverted = rng.random(7) < self._probability
        with _seeded(rng):
            if noise:
                image = noise_changes.augment_gaussian_noise(image, NOISE_STD)
            if blur:
                image = noise_changes.augment_gaussian_blur(image, BLUR_SIGMA)
            if brighter:
                image = color_changes.augment_brightness_multiplicative(image, BRIGHTNESS)
            if contrast:
                image = color_changes.augment_contrast(image, CONTRAST)
            if coarser:
                image = coarsen(image, rng)
            if gamma:
                image = color_changes.augment_gamma(
                    image, GAMMA, invert_image=bool(inverted), per_channel=True, retain_stats=True
                )
        return np.asarray(image, dtype=np.float32)


def coarsen(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    """Simulate a coarser scan along all axes or one: voxels are dropped and interpolated linearly.

    Args:
        image: Normalised image (C, S, P, L).
        rng: Random generator of the patch.
    """
    size = triple(image.shape[1:])
    kept = list(size)
    if rng.random() < 0.5:
        share = rng.uniform(*LOW_RESOLUTION)
        kept = [max(1, round(n * share)) for n in kept]
    else:
        axis = int(rng.integers(3))
        kept[axis] = max(1, round(kept[axis] * rng.uniform(*THICK_SLICES)))
    # Spline order 0 drops voxels, order 1 interpolates linearly.
    return resample(resample(image, triple(kept), (0, 0, 0)), size, (1, 1, 1))


LEFT = 2
"""Index of the axis that runs from right to left."""


class Mirror:
    """Random flip of patches along the allowed axes, each with probability 1/2.

    Args:
        strength: Augmentation of the plan, with its `mirror_axes` and `mirror_pairs`.

    Raises:
        PlanError: If the plan asks for any flip but that of left and right.
    """

    def __init__(self, strength: Augmentation) -> None:
        if set(strength.mirror_axes) - {LEFT}:
            raise PlanError(
                f"expected no mirror axis but {LEFT} (left and right), found {strength.mirror_axes}: other "
                "flips make an anatomy that does not exist; mend mirror_axes in the plan"
            )
        self._axes = strength.mirror_axes
        self._swapped = np.arange(256, dtype=np.uint8)
        for a, b in strength.mirror_pairs:
            self._swapped[[a, b]] = b, a

    def __call__(
        self, image: ImageArray, labels: LabelArray, rng: np.random.Generator
    ) -> tuple[ImageArray, LabelArray]:
        """Flip a patch at random; labels of paired structures are exchanged with left and right.

        Args:
            image: Normalised image (C, S, P, L).
            labels: Stored indices (S, P, L).
            rng: Random generator of the patch.

        Returns:
            Image and labels, possibly as views of the arguments.
        """
        for axis in self._axes:
            if rng.random() < 0.5:
                image, labels = np.flip(image, axis + 1), np.flip(labels, axis)
                if axis == LEFT:
                    labels = self._swapped[labels]
        return image, labels


@contextmanager
def _seeded(rng: np.random.Generator) -> Iterator[None]:
    """Seed the global generators that batchgenerators draws from, and restore them afterwards."""
    with _global_random:
        before = random.getstate(), np.random.get_state()
        seed = int(rng.integers(2**32))
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
