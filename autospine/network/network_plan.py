"""The seam between a plan and its network.

A built-in network is a plan (`unet3d_plan.py`), its modules (`unet3d.py`) and one line in the union
`autospine.plan.AnyNetworkPlan`. The two lie in separate files because plans are read, checked and shown
before torch is loaded: no module of plans imports it, and `build` imports the network's modules when it is
called.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Annotated

from autospine.core.geometry import triple
from autospine.core.types import Shape3, Vector3
from autospine.storage.serialization import between

if TYPE_CHECKING:
    from torch import nn


# Bounds of a plan's numbers when it is read: far beyond any network that is trained, and small enough that a
# plan of nonsense is refused before it takes memory.
Channels = Annotated[int, between(1, 8192)]
Blocks = Annotated[int, between(0, 128)]
Heads = Annotated[int, between(1, 1024)]
Extent = Annotated[int, between(1, 1024)]
Extents = tuple[Extent, Extent, Extent]
"""Strides, kernels, windows or dilations along S, P and L."""

MOST_LEVELS = 32
"""Most levels, layers or kernels of a network when its plan is read."""


class NetworkPlan(ABC):
    """Everything that determines a network but its input and output channels.

    Subclasses are frozen dataclasses of plain values, which are written to `plan.json` as they are.
    """

    __slots__ = ()

    name: str
    """Name of the network, by which the kinds of plans are told apart in JSON."""

    @property
    @abstractmethod
    def divisor(self) -> Shape3:
        """Number that each axis (S, P, L) of the input must be a multiple of."""

    @abstractmethod
    def build(
        self, in_channels: int, out_channels: int, *, spacing_mm: Vector3, patch_size: Shape3
    ) -> "nn.Module":
        """Return the network with fresh weights, which maps images (B, C, S, P, L) to logits (B, K, S, P, L).

        Args:
            in_channels: Channels of the image.
            out_channels: Classes, background included.
            spacing_mm: Voxel spacing (S, P, L) in mm.
            patch_size: Voxels (S, P, L) of a training patch.

        Raises:
            PlanError: If the numbers of the plan do not fit each other.
        """


def total_stride(strides: Sequence[Shape3]) -> Shape3:
    """Return the product of the strides along each axis (S, P, L)."""
    return triple(prod(axis) for axis in zip(*strides, strict=True))
