"""How noisy an image is."""

import numpy as np

VOXELS = 2_000_000
"""A part of the image as large as this tells the noise to a fraction of a percent."""

GAIN = 6.0**1.5
"""Second differences (1, -2, 1) along three axes enlarge white noise by the root of 6 x 6 x 6."""

SPREAD = 1.4826
"""Standard deviation of a normal distribution over the median of its absolute values."""


def noise_level(image: np.ndarray) -> float | None:
    """Standard deviation of white noise in an image with structures.

    The image is differenced twice along each of its axes. That takes away whatever is linear along any one
    of them, edges that run along an axis too, and leaves noise with corners and texture, which the median of
    the absolute values ignores as long as they are few. (Immerkær, Computer Vision and Image Understanding
    64, 1996, in three dimensions; the median from Donoho and Johnstone, Biometrika 81, 1994.) Smoothing and
    interpolation hide noise from it. Voxels as dark as the darkest do not count: padding, and air that was
    cut off.

    Args:
        image: (S, P, L), any number type; its middle is looked at where it is large.

    Returns:
        The deviation in units of the image; None where nothing is left, or an axis has fewer than three
        voxels.
    """
    if min(image.shape) < 3:
        return None
    part = _middle(image).astype(np.float32)
    counted = part[1:-1, 1:-1, 1:-1] > part.min()
    for axis in range(3):
        part = np.diff(part, n=2, axis=axis)
    sizes = np.abs(part[counted])
    return float(SPREAD * np.median(sizes) / GAIN) if sizes.size else None


def _middle(image: np.ndarray) -> np.ndarray:
    """The image, or a block around its centre with all its proportions and about `VOXELS` voxels."""
    share = min(1.0, (VOXELS / image.size) ** (1 / 3))
    kept = [max(3, round(n * share)) for n in image.shape]
    return image[tuple(slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(image.shape, kept, strict=True))]
