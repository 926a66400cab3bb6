"""The defaults that differ between a GPU and a CPU."""

from typing import NamedTuple

from planners.rules.spacing import CONTEXT_MM, THREE_LEVELS_MM


class GPU(NamedTuple):
    """Defaults for a GPU, where memory is scarcer than time."""

    largest_window: int = 8
    """Longest edge of an attention window, in tokens."""

    widths: tuple[int, ...] = (12, 16, 24, 32, 48, 64, 96)
    """Feature sizes of the Swin UNETR."""

    goals: tuple[tuple[float, int], ...] = ((THREE_LEVELS_MM, 24), (CONTEXT_MM, 48))
    """Goals of the size search, reached in turn: extent along S in mm and width. 48 is SwinUNETR's own width;
    with 24 and 12 it lost 2 and 10 points of Dice on BTCV."""

    batches: tuple[int, ...] = (1, 2, 4)
    """Patches per step: nnU-Net's least is two, and one where memory is short."""

    epochs: int = 400
    iterations_per_epoch: int = 250
    learning_rate: float = 0.02
    spatial_probability: float = 0.5


class CPU(NamedTuple):
    """Defaults for a CPU, where time is scarcer than memory."""

    largest_window: int = 4
    """Longest edge of an attention window, in tokens: 64 tokens stay in the cache."""

    widths: tuple[int, ...] = (16,)
    """16 channels fill one vector register and no more."""

    goals: tuple[tuple[float, int], ...] = ((CONTEXT_MM, 16),)
    batches: tuple[int, ...] = (1,)
    epochs: int = 60
    iterations_per_epoch: int = 50
    learning_rate: float = 0.1
    spatial_probability: float = 0.3
    """A short training sees no patch often enough to need many changed ones."""


Device = GPU | CPU
