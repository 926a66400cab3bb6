"""Memory that the prediction of one volume takes beside the networks."""

from dataclasses import dataclass
from math import prod

from autospine.core.labels import LabelSpace
from autospine.core.types import Shape3
from autospine.inference.slab import slab_bytes
from autospine.inference.tiles import TileGrid
from autospine.inference.to_native import halo_bytes
from autospine.preprocessing.resample import BLOCK

VOXEL_BYTES = 2
"""Bytes of a voxel of most images, which are stored as 16-bit integers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseMemory:
    """Bytes of RAM for one volume, which do not depend on the number of networks."""

    image: int
    """The image as it was read, its label map, and the rows of the prepared image that tiles are cut from."""

    scores: int
    """The slab of class scores, and the halo rows for resampling its pieces to the image's grid."""

    @property
    def total(self) -> int:
        """Sum of both."""
        return self.image + self.scores


def case_memory(
    tile_grid: TileGrid,
    native: Shape3,
    channels: int,
    labels: LabelSpace,
    voxel_bytes: int = VOXEL_BYTES,
    *,
    wide: bool = False,
    resampled: bool = True,
) -> CaseMemory:
    """Estimate the memory that a volume takes.

    Args:
        tile_grid: Tiles that are run, on the prepared image.
        native: Voxels of the volume.
        channels: Number of channels of the image.
        labels: Label space of the model.
        voxel_bytes: Bytes of a voxel of the volume.
        wide: Whether the slab finishes whole rows.
        resampled: Whether the prepared image has other rows or columns than the volume.
    """
    # `ImageRows` makes whole blocks, of which the first and the last may reach beyond the tile.
    rows = min(tile_grid.shape[0], tile_grid.tile[0] + 2 * BLOCK)
    window = channels * rows * prod(tile_grid.shape[1:]) * VOXEL_BYTES
    stored = prod(native) * (channels * voxel_bytes + labels.dtype.itemsize)
    scores = slab_bytes(tile_grid, labels.n_channels, wide=wide)
    if resampled:
        scores += halo_bytes(tile_grid, labels.n_channels)
    return CaseMemory(image=stored + window, scores=scores)
