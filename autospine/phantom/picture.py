"""A phantom that is being painted: tissues one over the other, with partial volume."""

from dataclasses import dataclass

import numpy as np

from autospine.core.types import Slices3
from autospine.phantom.shapes import Field, Raster, coverage
from autospine.synthesis.render import Texture, draw_texture
from autospine.synthesis.tissue_map import Mixture, new_mixture


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """The phantom being painted; painting changes `mixture` in place."""

    raster: Raster
    """Grid of the phantom."""
    mixture: Mixture
    """Tissues painted so far."""
    texture: Texture
    """Textures of unit spread, by which edges are ragged and muscles are marbled."""
    infiltration: float
    """Degree of fatty infiltration of the muscles and of wear of the vessels, 0 to 1."""

    @property
    def grain(self) -> Field:
        """The fine texture."""
        return self.texture.grain

    @property
    def cloud(self) -> Field:
        """The coarse texture, about a centimetre wide."""
        return self.texture.cloud

    def paint(self, tissue: str, distance: Field, box: Slices3, *, strength: float = 1.0) -> None:
        """Paint a tissue inside a surface.

        Args:
            tissue: Name of a tissue in `autospine.synthesis.tissues`.
            distance: Signed distance in mm, over the box.
            box: The part of the raster.
            strength: Share of what is below that is replaced, 0 to 1.
        """
        share = coverage(distance, self.raster.voxel_mm)
        self.mix(tissue, share if strength == 1.0 else share * np.float32(strength), box)

    def mix(self, tissue: str, share: Field, box: Slices3) -> None:
        """Replace a share (0 to 1) of what is at each voxel of a box by a tissue."""
        self.mixture.paint(tissue, share, box)

    def marble(self, share: Field, box: Slices3) -> None:
        """Replace a share of what is there by fat where the texture is high: fatty streaks in muscle."""
        streak = self.cloud[box] + 0.4 * self.grain[box]
        fraction = np.clip(0.5 * streak + np.float32(1.25 * self.infiltration - 0.60), 0, 0.85) * share
        self.mix("fat", np.asarray(fraction, np.float32), box)


def new_picture(raster: Raster, infiltration: float, rng: np.random.Generator) -> Picture:
    """Return a picture of air."""
    return Picture(
        raster=raster,
        mixture=new_mixture(raster.shape),
        texture=draw_texture(raster.shape, raster.spacing_mm, rng),
        infiltration=infiltration,
    )
