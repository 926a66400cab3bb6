"""Rules for voxel sizes, from the spacings of the cases and the thickness of the structures."""

from collections.abc import Mapping, Sequence
from math import ceil, prod

import numpy as np
from jaxtyping import Float

from autospine.core.geometry import triple
from autospine.core.types import Shape3, Vector3
from planners.rules.sizes import S_EMPHASIS, SPARE

ANISOTROPY = 3.0
"""A grid whose coarsest spacing exceeds the next by this factor is thick-sliced (nnU-Net's threshold)."""

COARSE_AXIS_PERCENTILE = 10.0
"""Percentile of the coarse axis' spacings that becomes its target (nnU-Net)."""

CONTEXT_MM = 170.0
"""Five lumbar levels: sum of the level steps measured on public CT masks (33+35+36+35+30 mm)."""

REGION_MM = 290.0
"""Twelve thoracic levels, the longest region: sum of the level steps measured on public CT masks
(21+22+22+22+22+22+23+24+25+27.5+31+30 mm). A patch as long shows an end of a region wherever it lies."""

THREE_LEVELS_MM = 100.0
"""Three lumbar levels: the least that shows a vertebra with both its neighbours."""

FAST_MM = 3.2
"""Spacing of the fast configuration: the coarsest at which the labels of vertebrae still come back with a
Dice above 0.9 (0.92 on lumbar phantoms; 0.94 at 2.66 mm, with 1.7 times the voxels)."""

LOWRES_VOXELS = 128**3
"""Patch that the spacing of the low-resolution configuration is made for: that of nnU-Net in 8 GB."""

LOWRES_SHARE = 0.5
"""Share of the spine up to which a patch of `fullres` leaves a use for `lowres`; a rule of thumb."""

VOXELS_ACROSS = 2.0
"""A structure is kept if its local thickness spans this many voxels."""


def target_spacing(spacings: Sequence[Vector3]) -> tuple[Vector3, str]:
    """Return the median spacing of each axis; a thick-sliced axis takes a low percentile instead.

    The median loses the least to resampling overall. Along a coarse axis it would throw away the finer
    cases, and interpolating thick slices a little costs nothing. Where some cases are thick-sliced along one
    axis and others along another, their median would be a spacing that no case has; then each of these axes
    takes the median of the cases that are fine along it.
    """
    table = np.asarray(spacings, dtype=np.float64)
    thick = [row > ANISOTROPY * row.min() for row in table]
    ways = np.any(thick, axis=0)
    if ways.sum() > 1 and all(axes.sum() < 2 for axes in thick):
        fine = [np.median(table[~np.array(thick)[:, axis], axis]) for axis in range(3)]
        names = " and ".join("SPL"[axis] for axis in np.flatnonzero(ways))
        reason = f"slices are thick along {names} in different cases; each takes the median of the others"
        return _vector(np.round(fine, 3)), reason
    target = np.median(table, axis=0)
    coarse = int(np.argmax(target))
    others = float(np.max(np.delete(target, coarse)))
    reason = f"median of {len(table)} cases"
    if target[coarse] > ANISOTROPY * others:
        target[coarse] = max(np.percentile(table[:, coarse], COARSE_AXIS_PERCENTILE), others)
        reason += f"; {'SPL'[coarse]} is thick-sliced and takes its {COARSE_AXIS_PERCENTILE:g}th percentile"
    return _vector(np.round(target, 3)), reason


def fast_spacing(full: Vector3, thicknesses_mm: Sequence[float]) -> tuple[Vector3, str]:
    """Return the spacing at which few voxels show several vertebrae, but no structure is lost.

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


def lowres_spacing(full: Vector3, size_mm: Vector3, spine_mm: float) -> tuple[Vector3, str]:
    """Return the finest spacing at which a patch of `LOWRES_VOXELS` spans the spine of the median case.

    The patch reaches `S_EMPHASIS` times as far along the spine as across it, and nowhere beyond the case.
    Thick slices stay as they are: the other axes are coarsened up to them first.

    Args:
        full: Spacing (S, P, L) of `fullres` in mm.
        size_mm: Field of view (S, P, L) of the median case.
        spine_mm: Extent along S of the median case's structures.
    """
    across = spine_mm / S_EMPHASIS
    spanned = (min(size_mm[0], spine_mm), min(size_mm[1], across), min(size_mm[2], across))
    finest, coarsest = min(full), max(*full, *size_mm)
    for _ in range(40):
        middle = (finest + coarsest) / 2
        if _voxels(spanned, _at_least(full, middle)) > LOWRES_VOXELS:
            finest = middle
        else:
            coarsest = middle
    edge = round(LOWRES_VOXELS ** (1 / 3))
    reason = f"the finest at which {edge}x{edge}x{edge} voxels span the median spine of {spine_mm:.0f} mm"
    return _at_least(full, ceil(coarsest * 100) / 100), reason


def context_mm(spine_mm: float, *, levels: bool) -> tuple[float, str]:
    """Return the extent along S above which a patch of `fullres` needs no `lowres` beside it, and its name.

    Half of the spine; where classes are levels also the thoracic levels, or a shorter spine, up to a share of
    `SPARE`: such a patch shows an end of a region, from which levels are counted.

    Args:
        spine_mm: Extent along S of the median case's structures.
        levels: Whether the classes are vertebra levels.
    """
    half_mm, region_mm = LOWRES_SHARE * spine_mm, (1 - SPARE) * min(REGION_MM, spine_mm)
    if not levels or half_mm > region_mm:
        return half_mm, "half of the spine"
    return region_mm, "what shows an end of a region, which tells levels"


def why_no_lowres(
    full: Vector3, low: Vector3, size_mm: Vector3, patch_mm: float | None, enough_mm: float, named: str
) -> str | None:
    """Return why a low-resolution configuration is not worth having, or None where it is.

    Args:
        full: Spacing (S, P, L) of `fullres` in mm.
        low: Spacing of the low-resolution configuration in mm.
        size_mm: Field of view (S, P, L) of the median case.
        patch_mm: Extent along S of the patch of `fullres`; None where there is no such configuration.
        enough_mm: Extent along S that needs no `lowres`, by `context_mm`.
        named: The name of that extent.
    """
    if patch_mm is not None and patch_mm > enough_mm:
        return f"a patch of fullres spans {patch_mm:.0f} mm, more than {named} ({enough_mm:.0f} mm)"
    if 2 * _voxels(size_mm, low) > _voxels(size_mm, full):
        return "it would have more than half of the voxels of fullres"
    return None


def lost_classes(thicknesses_mm: Mapping[str, float], spacing_mm: Vector3) -> dict[str, float]:
    """Return the classes thinner than a voxel with their thickness in mm, the spacing that would keep them.

    A voxel counts by its middle edge, since a structure within thick slices still shows across them.
    """
    return {name: mm for name, mm in thicknesses_mm.items() if mm < sorted(spacing_mm)[1]}


def _voxels(size_mm: Vector3, spacing_mm: Vector3) -> float:
    return prod(max(1.0, n / d) for n, d in zip(size_mm, spacing_mm, strict=True))


def _at_least(spacing_mm: Vector3, least: float) -> Vector3:
    return _vector(np.maximum(spacing_mm, least))


def median_shape(sizes_mm: Sequence[Vector3], spacing_mm: Vector3) -> Shape3:
    """Return the voxels (S, P, L) of the median case at a spacing."""
    size = np.median(np.asarray(sizes_mm), axis=0)
    return triple(max(1, round(n / d)) for n, d in zip(size, spacing_mm, strict=True))


def _vector(values: Float[np.ndarray, "3"]) -> Vector3:
    return triple(values)
