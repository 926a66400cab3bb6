"""The plan of the plain 3D U-Net."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from autospine.core.types import Shape3, Vector3
from autospine.network.unet_levels import UNetLevels

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetPlan(UNetLevels):
    """The plain 3D U-Net."""

    name: Literal["unet3d"]
    checkpointing: bool
    """Recompute each stage in the backward pass: less memory, more time."""

    def build(
        self, in_channels: int, out_channels: int, *, spacing_mm: Vector3, patch_size: Shape3
    ) -> "nn.Module":
        """Return the network with fresh weights; see `NetworkPlan.build`."""
        from autospine.network.unet3d import UNet3D

        return UNet3D(in_channels, out_channels, self, checkpointing=self.checkpointing)
