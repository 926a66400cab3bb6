"""Where the tiles of a sliding window lie, and how much each of their voxels counts."""

from collections.abc import Iterator
from itertools import product
from math import ceil

import numpy as np
import torch

from autospine.geometry import Box
from autospine.types import Shape3

STEP = 0.5
"""Distance between neighbouring tiles as a share of the tile (nnU-Net's default)."""

SIGMA = 1 / 8
"""Standard deviation of the Gaussian importance as a share of the tile (nnU-Net's default)."""

FLOOR = 1e-3
"""Least importance, so that every voxel's weights can be divided by their sum in any number format."""


def tiles(shape: Shape3, tile: Shape3, step: float = STEP) -> Iterator[Box]:
    """Boxes of one size that cover a volume, ordered along its first axis.

    They are spread evenly, the first and the last flush with the border, at most `step` tiles apart.

    Args:
        shape: volume, at least as long as the tile on every axis.
        tile: size of every box.
        step: in (0, 1].
    """
    per_axis = [_starts(n, k, step) for n, k in zip(shape, tile, strict=True)]
    for start in product(*per_axis):
        stop = tuple(a + k for a, k in zip(start, tile, strict=True))
        yield Box(start=(start[0], start[1], start[2]), stop=(stop[0], stop[1], stop[2]))


def importance(tile: Shape3) -> torch.Tensor:
    """Gaussian weights in (0, 1] of a tile's voxels, largest in its middle, float32 (S, P, L)."""
    axes = [_bell(n) for n in tile]
    weights = torch.einsum("s,p,l->spl", *axes)
    return (weights / weights.max()).clamp_min(FLOOR)


def _starts(n: int, k: int, step: float) -> list[int]:
    count = min(ceil((n - k) / (k * step)), n - k) + 1
    return [round(start) for start in np.linspace(0, n - k, count)]


def _bell(n: int) -> torch.Tensor:
    offset = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
    return torch.exp(-0.5 * (offset / (n * SIGMA)) ** 2)
