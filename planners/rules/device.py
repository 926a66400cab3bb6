"""What differs between the devices a plan may be for."""

from typing import NamedTuple


class GPU(NamedTuple):
    """What differs between the devices a plan may be for."""

    largest_window: int = 8
    feature_sizes: tuple[int, ...] = (48, 32, 16)
    """Tried from the widest down."""

    epochs: int = 400
    iterations_per_epoch: int = 250
    batch_size: int = 2
    learning_rate: float = 0.02
    spatial_probability: float = 0.5


class CPU(NamedTuple):
    """On a CPU time is scarcer than memory."""

    largest_window: int = 4
    feature_sizes: tuple[int, ...] = (16,)
    epochs: int = 60
    iterations_per_epoch: int = 50
    batch_size: int = 1
    learning_rate: float = 0.1
    spatial_probability: float = 0.3
    """A short training sees no patch often enough to need many changed ones."""


Device = GPU | CPU


def width_reason(device: Device) -> str:
    """Why the feature size is what it is."""
    if isinstance(device, CPU):
        return "on a CPU time is scarcest: 16 channels fill one vector register and no more"
    return "the widest whose patch still spans five lumbar levels or the median case"
