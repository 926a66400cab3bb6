"""Placement of scores on a GPU or in RAM, and the way on when the GPU's memory is full."""

from collections.abc import Callable
from typing import TypeVar

import torch

from autospine.inference.slab import Piece
from autospine.inference.to_native import NativePiece
from autospine.system.log import get_logger

logger = get_logger(__name__)

CPU = torch.device("cpu")

SLAB_SHARE = 0.5
"""Largest share of a GPU's free memory that the slab of scores may take; a larger slab is kept in RAM. The
tiles of a batch share the rest."""


ScorePiece = TypeVar("ScorePiece", Piece, NativePiece)
Result = TypeVar("Result")


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
    except torch.OutOfMemoryError:
        logger.info("some scores are resampled in RAM, as the device has no memory left")
    # Only here is the error gone, which had kept alive what the failed attempt had allocated.
    torch.cuda.empty_cache()
    return make(scores.to(CPU))
