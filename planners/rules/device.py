"""The defaults that differ between a GPU and a CPU."""

from typing import NamedTuple

from autospine.plan import LARGEST_PATCH
from planners.rules.spacing import CONTEXT_MM, REGION_MM, THREE_LEVELS_MM


class GPU(NamedTuple):
    """Defaults for a GPU, where memory is scarcer than time until patches are large."""

    largest_window: int = 8
    """Longest edge of an attention window, in tokens."""

    widths: tuple[int, ...] = (12, 16, 24, 32, 48, 64, 96)
    """Feature sizes of the Swin UNETR."""

    goals: tuple[tuple[float, int], ...] = ((THREE_LEVELS_MM, 32), (CONTEXT_MM, 48))
    """Goals of the size search, reached in turn: extent along S in mm and width. 48 is SwinUNETR's own width;
    with 24 and 12 it lost 2 and 10 points of Dice on BTCV."""

    patch_voxels: int = 3 * 160**3 // 2
    """Voxels of the largest patch, about that of nnU-Net's plans for 24 GB. Beyond it width and batch come
    first, as a step takes its time and `lowres` has the context; a rule of thumb."""

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
    patch_voxels: int = LARGEST_PATCH
    """No limit: a CPU's memory is full long before."""

    batches: tuple[int, ...] = (1,)
    epochs: int = 60
    iterations_per_epoch: int = 50
    learning_rate: float = 0.1
    spatial_probability: float = 0.3
    """A short training sees no patch often enough to need many changed ones."""


Device = GPU | CPU


def for_levels(device: Device) -> Device:
    """Return the defaults where classes are vertebra levels: the last goal is a patch of a whole region."""
    return device._replace(goals=(*device.goals[:-1], (REGION_MM, device.goals[-1][1])))
