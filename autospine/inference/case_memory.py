"""Memory that the prediction of one volume takes beside the networks, and where its scores are kept."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import torch

from autospine.core.labels import LabelSpace
from autospine.core.types import Shape3
from autospine.inference.slab import Piece, slab_bytes
from autospine.inference.tiles import TileGrid
from autospine.inference.to_native import NativePiece, halo_bytes
from autospine.preprocessing.resample import BLOCK
from autospine.system.allocation import is_out_of_memory
from autospine.system.log import get_logger

logger = get_logger(__name__)

CPU = torch.device("cpu")

VOXEL_BYTES = 2
"""Bytes of a voxel of most images, which are stored as 16-bit integers."""

SLAB_SHARE = 0.5
"""Largest share of a GPU's free memory that the slab of scores may take; a larger slab is kept in RAM. The
tiles of a batch share the rest."""

ScorePiece = TypeVar("ScorePiece", Piece, NativePiece)
Result = TypeVar("Result")


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


def slab_device(device: torch.device, slab_bytes: int) -> torch.device:
    """Return where the slab of scores is kept: on the networks' device if it fits there, else in RAM."""
    if device.type != "cuda":
        return CPU
    torch.cuda.empty_cache()  # what earlier cases have left counts as free, too
    fits = slab_bytes < SLAB_SHARE * torch.cuda.mem_get_info(device)[0]
    return device if fits else CPU


def room_for_tiles(device: torch.device, run_one: Callable[[], object]) -> int:
    """Return how many tiles a GPU's free memory has room for beside the slab.

    Args:
        device: A GPU.
        run_one: Runs a single tile, whose memory is measured.
    """
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run_one()
    needed = torch.cuda.max_memory_allocated(device) - before
    torch.cuda.empty_cache()
    return int((1 - SLAB_SHARE) * torch.cuda.mem_get_info(device)[0] / needed)


def with_fallback_to_ram(make: Callable[[ScorePiece], Result], scores: ScorePiece) -> Result:
    """Make something of scores on their device or, where that is out of memory, in RAM."""
    try:
        return make(scores)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        logger.info("some scores are resampled in RAM, as the device has no memory left")
    # Only here is the error gone, which had kept alive what the failed attempt had allocated.
    torch.cuda.empty_cache()
    return make(scores.to(CPU))
