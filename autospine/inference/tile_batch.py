"""The tile batch size: as many tiles at once as pay."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autospine.inference.case_memory import room_for_tiles
from autospine.system.allocation import is_out_of_memory

LARGEST = 16
"""Largest tile batch size."""

WORTH = 0.95
"""A batch of twice the size pays if each tile takes at most this share of the time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileBatch:
    """The chosen tile batch size, and the speed that was measured with it."""

    size: int
    """Number of tiles that are run at once."""

    seconds_per_tile: float
    """Time of one network for one tile."""


def measure_tile_batch(
    forward: Callable[[Tensor], object], tile_shape: tuple[int, int, int, int], device: torch.device
) -> TileBatch:
    """Measure which tile batch size is fastest on a device; a CPU always runs one tile at a time.

    Args:
        forward: Runs one network on tiles (B, C, S, P, L).
        tile_shape: Channels and voxels of a tile, (C, S, P, L).
        device: Device of the network.

    Raises:
        RuntimeError: If not even one tile fits.
    """

    def seconds(size: int) -> float:
        tiles = torch.zeros((size, *tile_shape), device=device)
        # In the first pass kernels are loaded and chosen: a second or so, and ten on a busy machine.
        forward(tiles)
        return _time_pass(forward, tiles)

    if device.type != "cuda":
        return choose_tile_batch(seconds, 1)
    batch = choose_tile_batch(seconds, room_for_tiles(device, lambda: seconds(1)))
    torch.cuda.empty_cache()
    return batch


def choose_tile_batch(seconds: Callable[[int], float], room: int) -> TileBatch:
    """Double the tile batch size for as long as that pays and the tiles fit.

    Args:
        seconds: Measures the time of a batch of the given size.
        room: Number of tiles that the memory is estimated to have room for.

    Raises:
        RuntimeError: If not even one tile fits.
    """
    batch = TileBatch(size=1, seconds_per_tile=seconds(1))
    while (size := 2 * batch.size) <= min(room, LARGEST):
        try:
            each = seconds(size) / size
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        if each > WORTH * batch.seconds_per_tile:
            break
        batch = TileBatch(size=size, seconds_per_tile=each)
    return batch


def _time_pass(forward: Callable[[Tensor], object], tiles: Tensor) -> float:
    began = time.monotonic()
    forward(tiles)
    if tiles.device.type == "cuda":  # a GPU works asynchronously: nothing has waited for it so far
        torch.cuda.synchronize(tiles.device)
    return time.monotonic() - began
