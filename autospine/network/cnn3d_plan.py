"""The plan of the plain convolutional network."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from autospine.core.types import Shape3, Vector3
from autospine.network.network_plan import MOST_LEVELS, Channels, Extents, NetworkPlan
from autospine.storage.serialization import at_most

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class CNNPlan(NetworkPlan):
    """The plain convolutional network at full resolution."""

    name: Literal["cnn3d"]
    features: Channels
    """Channels of every layer."""

    dilations: Annotated[tuple[Extents, ...], at_most(MOST_LEVELS)]
    """Dilation of each layer, in voxels."""

    checkpointing: bool
    """Recompute each layer in the backward pass: less memory, more time."""

    @property
    def divisor(self) -> Shape3:
        """One voxel per axis: the network takes images of any size."""
        return 1, 1, 1

    def build(
        self, in_channels: int, out_channels: int, *, spacing_mm: Vector3, patch_size: Shape3
    ) -> "nn.Module":
        """Return the network with fresh weights; see `NetworkPlan.build`."""
        from autospine.network.cnn3d import CNN3D

        return CNN3D(
            in_channels,
            out_channels,
            features=self.features,
            dilations=self.dilations,
            checkpointing=self.checkpointing,
        )
