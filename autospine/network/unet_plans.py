"""The plans of the three U-Nets; each builds its network when asked, so that plans load without torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from autospine.core.types import Shape3, Vector3
from autospine.network.network_plan import MOST_LEVELS, Blocks, Heads
from autospine.network.unet_levels import UNetLevels
from autospine.storage.serialization import at_most

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ResEncPlan(UNetLevels):
    """The U-Net with a residual encoder."""

    name: Literal["resenc_unet"]
    blocks: Annotated[tuple[Blocks, ...], at_most(MOST_LEVELS)]
    """Residual blocks of each level."""

    checkpointing: bool
    """Recompute each stage in the backward pass: less memory, more time."""

    def build(
        self, in_channels: int, out_channels: int, *, spacing_mm: Vector3, patch_size: Shape3
    ) -> "nn.Module":
        """Return the network with fresh weights; see `NetworkPlan.build`."""
        from autospine.network.resenc_unet import ResEncUNet

        return ResEncUNet(
            in_channels, out_channels, self, blocks=self.blocks, checkpointing=self.checkpointing
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetTransformerPlan(UNetLevels):
    """The plain 3D U-Net with a Transformer at its coarsest level."""

    name: Literal["unet3d_transformer"]
    layers: Blocks
    """Transformer layers."""

    heads: Heads
    """Attention heads of each layer; they divide the channels of the coarsest level."""

    checkpointing: bool
    """Recompute each stage in the backward pass: less memory, more time."""

    def build(
        self, in_channels: int, out_channels: int, *, spacing_mm: Vector3, patch_size: Shape3
    ) -> "nn.Module":
        """Return the network with fresh weights; see `NetworkPlan.build`."""
        from autospine.network.unet3d_transformer import UNet3DTransformer

        return UNet3DTransformer(
            in_channels,
            out_channels,
            self,
            layers=self.layers,
            heads=self.heads,
            checkpointing=self.checkpointing,
        )
