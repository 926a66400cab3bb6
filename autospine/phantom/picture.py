"""An image that is being painted: tissues one over the other, with partial volume and texture."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from autospine.core.geometry import triple
from autospine.core.types import Shape3, Slices3
from autospine.phantom.intensity import TissueIntensities
from autospine.phantom.shapes import Field, Number, Raster, coverage


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """The image being painted; painting changes `value` in place."""

    raster: Raster
    """Grid of the image."""
    intensities: TissueIntensities
    """Intensities of the tissues."""
    value: Field
    """Intensities painted so far."""
    grain: Field
    """Texture of unit spread, fine."""
    cloud: Field
    """Texture of unit spread, coarse (about a centimetre)."""

    def paint(self, tissue: str, distance: Field, box: Slices3, *, strength: float = 1.0) -> None:
        """Paint a tissue inside a surface.

        Args:
            tissue: Name of a tissue in `TissueIntensities`.
            distance: Signed distance in mm, over the box.
            box: The part of the raster.
            strength: Share of the intensity below that is replaced, 0 to 1.
        """
        mean, spread = self.intensities.tissues[tissue]
        share = coverage(distance, self.raster.voxel_mm)
        self.mix(share if strength == 1.0 else share * np.float32(strength), mean, spread, box)

    def mix(self, share: Field, mean: Number | Field, spread: Number | Field, box: Slices3) -> None:
        """Replace a share (0 to 1) of the intensity at each voxel by a mean intensity with texture."""
        below = self.value[box]
        below += share * (mean + spread * self.grain[box] - below)

    def marble(self, share: Field, box: Slices3) -> None:
        """Replace a share of the intensity by fat where the texture is high: fatty streaks in muscle."""
        fat, spread = self.intensities.tissues["fat"]
        amount = self.intensities.infiltration
        streak = self.cloud[box] + 0.4 * self.grain[box]
        fraction = np.clip(0.5 * streak + np.float32(1.25 * amount - 0.60), 0, 0.85) * share
        self.mix(np.asarray(fraction, np.float32), fat, spread, box)


def new_picture(raster: Raster, intensities: TissueIntensities, rng: np.random.Generator) -> Picture:
    """Return a picture of air."""
    value = np.full(raster.shape, intensities.tissues["air"][0], dtype=np.float32)
    spacing = raster.spacing_mm
    grain = _texture(raster.shape, [0.7 / step for step in spacing], rng)
    # The coarse texture is drawn on a coarse grid; muscle fibres run along the body.
    coarse = [max(2, round(n * step / 4.0) + 2) for n, step in zip(raster.shape, spacing, strict=True)]
    small = _texture(triple(coarse), [2.0, 0.7, 0.7], rng)
    zoom = [n / m for n, m in zip(raster.shape, coarse, strict=True)]
    cloud = ndimage.zoom(small, zoom, order=1, mode="nearest", grid_mode=True)
    return Picture(
        raster=raster,
        intensities=intensities,
        value=value,
        grain=grain,
        cloud=np.asarray(cloud, dtype=np.float32),
    )


def _texture(shape: Shape3, sigma: list[float], rng: np.random.Generator) -> Field:
    """Return correlated noise of unit spread."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), sigma, truncate=2.0, mode="wrap"
    )
    return np.asarray(noise / max(float(noise.std()), 1e-6), dtype=np.float32)
