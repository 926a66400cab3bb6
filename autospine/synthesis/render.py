"""From a tissue map and an appearance to intensities, before the scanner adds its own."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32
from scipy import ndimage

from autospine.core.geometry import triple
from autospine.core.types import Shape3, Vector3
from autospine.synthesis.appearance import Appearance
from autospine.synthesis.tissue_map import unpacked

GRAIN_MM = 0.7
"""Standard deviation of the smoothing of the fine texture, mm."""

CLOUD_MM = 4.0
"""Distance between the values that the coarse texture is interpolated from, mm."""

PATCH_LEVEL = 0.6
"""Value of the coarse texture above which a tissue has its lighter or darker patches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Texture:
    """Two random fields of unit spread that all tissues of an image share."""

    grain: Float32[np.ndarray, "S P L"]
    """Fine texture."""
    cloud: Float32[np.ndarray, "S P L"]
    """Coarse texture, about a centimetre wide and longer along S, as muscle fibres run."""


def draw_texture(shape: Shape3, spacing_mm: Vector3, rng: np.random.Generator) -> Texture:
    """Draw the textures of an image.

    Args:
        shape: Voxels along S, P, L.
        spacing_mm: Voxel size along S, P, L.
        rng: Random generator.
    """
    grain = _noise(shape, [GRAIN_MM / step for step in spacing_mm], rng)
    # The coarse texture is drawn on a coarse grid.
    coarse = [max(2, round(n * step / CLOUD_MM) + 2) for n, step in zip(shape, spacing_mm, strict=True)]
    small = _noise(triple(coarse), [2.0, 0.7, 0.7], rng)
    zoom = [n / m for n, m in zip(shape, coarse, strict=True)]
    cloud = ndimage.zoom(small, zoom, order=1, mode="nearest", grid_mode=True)
    return Texture(grain=grain, cloud=np.asarray(cloud, dtype=np.float32))


def render(
    codes: Int32[np.ndarray, "S P L"], appearance: Appearance, texture: Texture
) -> Float32[np.ndarray, "S P L"]:
    """Return the intensity of every voxel: the mean of its two tissues, weighted by their shares.

    Args:
        codes: Tissue map.
        appearance: Intensities of the tissues.
        texture: Textures of the same shape.
    """
    first, second, share = unpacked(codes)
    fine = np.float32(0.85) * texture.grain + np.float32(0.5) * texture.cloud
    patches = texture.cloud > PATCH_LEVEL
    value = _tissue(first, appearance, fine, patches)
    value += share * (_tissue(second, appearance, fine, patches) - value)
    return value


def _tissue(
    codes: np.ndarray, appearance: Appearance, fine: Float32[np.ndarray, "S P L"], patches: np.ndarray
) -> Float32[np.ndarray, "S P L"]:
    """Return the intensities of one tissue per voxel."""
    value = appearance.spread[codes]
    value *= fine
    value += appearance.mean[codes]
    if appearance.patches.any():
        value += appearance.patches[codes] * patches
    return np.asarray(value, dtype=np.float32)


def _noise(shape: Shape3, sigma: list[float], rng: np.random.Generator) -> Float32[np.ndarray, "S P L"]:
    """Return correlated noise of unit spread."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), sigma, truncate=2.0, mode="wrap"
    )
    return np.asarray(noise / max(float(noise.std()), 1e-6), dtype=np.float32)
