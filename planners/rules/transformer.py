"""Rules for the Swin UNETR: strides, windows, heads and fusion kernels."""

from collections.abc import Sequence
from math import ceil

import numpy as np

from autospine.core.geometry import triple
from autospine.core.types import Shape3, Vector3
from planners.rules.sizes import SPARE

LEVELS = 5
"""Times that the network may halve its grid: the patch embedding and four mergings."""

LARGEST_KERNEL = 8
"""Largest fusion kernel in voxels; beyond it the coarser stages see further for less."""


def strides(spacing_mm: Vector3, shape: Shape3) -> tuple[tuple[Shape3, ...], str]:
    """Return the strides of the five levels: an axis is halved while it is among the finest and long enough.

    An axis waits while its spacing is twice that of the finest axis or more, and stops when fewer than
    four voxels (to within `SPARE`) are left, so that at least two remain at the bottom, or when the axis
    would have to be padded by more than `SPARE` for it.
    """
    spacing, size = list(spacing_mm), [float(n) for n in shape]
    levels = []
    for _ in range(LEVELS):
        long = [
            axis
            for axis in range(3)
            if size[axis] >= 4 * (1 - SPARE) and not _pads(shape[axis], 2 * shape[axis] / size[axis])
        ]
        finest = min((spacing[axis] for axis in long), default=0.0)
        stride = [2 if axis in long and spacing[axis] < 2 * finest else 1 for axis in range(3)]
        spacing = [d * k for d, k in zip(spacing, stride, strict=True)]
        size = [n / k for n, k in zip(size, stride, strict=True)]
        levels.append(triple(stride))
    return tuple(levels), "halve the axes finer than twice the finest, while four voxels are left unpadded"


def _pads(length: int, divisor: float) -> bool:
    """Return whether an axis would be padded by more than `SPARE` and a voxel, were it to be covered up to
    `SPARE` by a multiple of the divisor.
    """
    covering = ceil((1 - SPARE) * length / divisor) * divisor
    return covering > max((1 + SPARE) * length, length + 1)


def windows(grids: Sequence[Shape3], largest: int) -> tuple[tuple[Shape3, ...], str]:
    """Return for each stage and axis a window that tiles the token grid exactly, so that none is padded.

    It is the largest divisor of the grid up to `largest`. Where that is less than half as long, as on a grid
    of 11 or 22 tokens, it is the next divisor above.
    """
    chosen = []
    for grid in grids:
        chosen.append(triple(_window(n, largest) for n in grid))
    reason = f"the divisor of the token grid next to {largest}, so that no window is padded"
    return tuple(chosen), reason


def _window(grid: int, largest: int) -> int:
    divisors = [w for w in range(1, grid + 1) if grid % w == 0]
    below = max(w for w in divisors if w <= largest)
    return below if 2 * below >= min(grid, largest) else min(w for w in divisors if w > largest)


def heads(feature_size: int) -> tuple[int, int, int, int]:
    """Return the attention heads per stage, from Swin UNETR's three if they divide the channels, else two."""
    first = 3 if feature_size % 12 == 0 else 2
    return first, 2 * first, 4 * first, 8 * first


def fusion_kernels(
    spacing_mm: Vector3, stride: Shape3, thicknesses_mm: Sequence[float]
) -> tuple[tuple[Shape3, ...], str]:
    """Return the fusion kernels: the embedding's own, and one as wide as each typical thickness.

    An axis of spacing d and stride k takes `k + 2 m` voxels, the smallest that spans the thickness, at
    most `LARGEST_KERNEL`; equal kernels collapse.
    """
    kernels = [stride]
    widths: list[float] = []
    if len(thicknesses_mm):
        widths = sorted({float(width) for width in np.percentile(thicknesses_mm, [10, 50, 90])})
    for width in widths:
        sides = [
            min(k + 2 * max(0, ceil((width / d - k) / 2)), LARGEST_KERNEL - (LARGEST_KERNEL - k) % 2)
            for d, k in zip(spacing_mm, stride, strict=True)
        ]
        kernel = triple(sides)
        if kernel not in kernels:
            kernels.append(kernel)
    spans = ", ".join(f"{width:.0f}" for width in widths)
    reason = f"the embedding's own, then for structures of {spans} mm"
    capped = any(width > LARGEST_KERNEL * d for width in widths for d in spacing_mm)
    return tuple(kernels), reason + (f", at most {LARGEST_KERNEL} voxels" if capped else "")
