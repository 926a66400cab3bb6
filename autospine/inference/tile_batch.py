"""How many tiles to run at once: as many as pay."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

LARGEST = 16
"""Most tiles that are run at once."""

WORTH = 0.95
"""Twice as many tiles at once pay if each takes no more than this share of the time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """What has been measured."""

    at_once: int
    """Tiles that are run at once."""

    seconds_per_tile: float
    """Of one network."""


def find_pace(seconds: Callable[[int], float], room: int) -> Pace:
    """Double the tiles at once for as long as that pays and they fit.

    Args:
        seconds: measures so many tiles together.
        room: tiles that the memory is thought to have room for.

    Raises:
        torch.OutOfMemoryError: if not even one tile fits.
    """
    pace = Pace(at_once=1, seconds_per_tile=seconds(1))
    while (more := 2 * pace.at_once) <= min(room, LARGEST):
        try:
            each = seconds(more) / more
        except torch.OutOfMemoryError:
            break
        if each > WORTH * pace.seconds_per_tile:
            break
        pace = Pace(at_once=more, seconds_per_tile=each)
    return pace
