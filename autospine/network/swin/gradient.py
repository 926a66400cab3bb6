"""Local gradient magnitude in physical units, the adaptive attention's cue for boundaries."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from autospine.core.tensor_types import ImageBatch
from autospine.core.types import Shape3, Vector3

FLAT = 1e-4
"""Smallest mean that the magnitude is divided by; below it, what varies in normalised intensities is
rounding."""


@torch.no_grad()
def gradient_magnitude(
    image: ImageBatch, spacing_mm: Vector3, *, sigma_mm: float = 1.0
) -> Float[Tensor, "B 1 S P L"]:
    """Return log(1 + |grad image|), divided by its mean over the patch.

    The image is smoothed by a Gaussian and differentiated by central differences, both with the edge voxels
    repeated beyond the border. Several channels count by the root of the sum of their squares. The result is
    dimensionless, not negative, and has mean 1 in each patch; it is near zero in a constant patch.

    Args:
        image: Intensities.
        spacing_mm: Voxel spacing in mm, (S, P, L).
        sigma_mm: Standard deviation of the Gaussian in mm.
    """
    smooth = image.float()
    for axis, spacing in enumerate(spacing_mm):
        smooth = _filter(smooth, _gaussian(sigma_mm / spacing), axis)
    squares = torch.zeros_like(smooth[:, :1])
    for axis, spacing in enumerate(spacing_mm):
        difference = _filter(smooth, [-0.5 / spacing, 0.0, 0.5 / spacing], axis)
        squares += difference.square().sum(dim=1, keepdim=True)
    magnitude = squares.sqrt_().log1p_()
    mean = magnitude.mean(dim=(1, 2, 3, 4), keepdim=True)
    return magnitude / mean.clamp_min(FLAT)


@torch.no_grad()
def gradient_pyramid(
    magnitude: Float[Tensor, "B 1 S P L"], strides: Sequence[Shape3]
) -> list[Float[Tensor, "B _ _ _ 1"]]:
    """Return the magnitude's maximum over each token's voxels, per stage, channels last.

    Args:
        magnitude: Gradient magnitude at full resolution.
        strides: Stride of each stage over the one before, the first over the voxels.
    """
    levels = []
    for stride in strides:
        magnitude = F.max_pool3d(magnitude, stride)
        levels.append(magnitude.permute(0, 2, 3, 4, 1))
    return levels


def _gaussian(sigma: float) -> list[float]:
    """Return a normalised Gaussian kernel cut at three sigma; sigma in voxels."""
    radius = math.ceil(3 * sigma)
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-radius, radius + 1)]
    return [weight / sum(weights) for weight in weights]


def _filter(x: Tensor, kernel: Sequence[float], axis: int) -> Tensor:
    """Return x (B, C, S, P, L) correlated with an odd kernel along a spatial axis, edges repeated."""
    radius = len(kernel) // 2
    length = x.shape[axis + 2]
    index = torch.arange(-radius, length + radius, device=x.device).clamp_(0, length - 1)
    padded = x.index_select(axis + 2, index)
    result = torch.zeros_like(x)
    for offset, weight in enumerate(kernel):
        if weight:
            result.add_(padded.narrow(axis + 2, offset, length), alpha=weight)
    return result
