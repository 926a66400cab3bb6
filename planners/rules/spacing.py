"""Voxel sizes: from the spacings of the cases and the thickness of the structures."""

from collections.abc import Sequence

import numpy as np

from autospine.types import Shape3, Vector3

ANISOTROPY = 3.0
"""A grid whose coarsest spacing exceeds the next by this factor is thick-sliced (nnU-Net's threshold)."""

COARSE_AXIS_PERCENTILE = 10.0
"""Percentile of the coarse axis' spacings that becomes its target (nnU-Net)."""

CONTEXT_MM = 170.0
"""Five lumbar levels: sum of the level steps measured on public CT masks (33+35+36+35+30 mm)."""

FAST_MM = 3.2
"""Spacing of the fast configuration: the coarsest at which the labels of vertebrae still come back with a
Dice above 0.9 (0.92 on lumbar phantoms; 0.94 at 2.66 mm, with 1.7 times the voxels)."""

VOXELS_ACROSS = 2.0
"""A structure is kept if its local thickness spans this many voxels."""


def target_spacing(spacings: Sequence[Vector3]) -> tuple[Vector3, str]:
    """Median spacing of each axis; a thick-sliced axis takes a low percentile instead.

    The median loses the least to resampling overall. Along a coarse axis it would throw away the finer
    cases, and interpolating thick slices a little costs nothing.
    """
    table = np.asarray(spacings, dtype=np.float64)
    target = np.median(table, axis=0)
    coarse = int(np.argmax(target))
    others = float(np.max(np.delete(target, coarse)))
    reason = f"median of {len(table)} cases"
    if target[coarse] > ANISOTROPY * others:
        target[coarse] = max(np.percentile(table[:, coarse], COARSE_AXIS_PERCENTILE), others)
        reason += f"; {'SPL'[coarse]} is thick-sliced and takes its {COARSE_AXIS_PERCENTILE:g}th percentile"
    return _vector(np.round(target, 3)), reason


def fast_spacing(full: Vector3, thicknesses_mm: Sequence[float]) -> tuple[Vector3, str]:
    """The spacing at which few voxels show several vertebrae, but no structure is lost.

    `max(full, min(3.2 mm, thinnest / 2))` on every axis.
    """
    thinnest = min(thicknesses_mm, default=CONTEXT_MM)
    spacing = round(min(FAST_MM, thinnest / VOXELS_ACROSS), 2)
    which = (
        f"five lumbar levels in {CONTEXT_MM / FAST_MM:.0f} voxels"
        if spacing == FAST_MM
        else f"the thinnest class ({thinnest:.1f} mm) keeps {VOXELS_ACROSS:g} voxels"
    )
    return _vector(np.maximum(full, spacing)), f"{which}; never finer than fullres"


def median_shape(sizes_mm: Sequence[Vector3], spacing_mm: Vector3) -> Shape3:
    """Voxels of the median case at a spacing."""
    size = np.median(np.asarray(sizes_mm), axis=0)
    s, p, l = (max(1, round(n / d)) for n, d in zip(size, spacing_mm, strict=True))  # noqa: E741
    return s, p, l


def _vector(values: np.ndarray) -> Vector3:
    s, p, l = (float(value) for value in values)  # noqa: E741
    return s, p, l
