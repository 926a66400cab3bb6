"""The plans of the three U-Nets, and the levels that they have in common, checked once for all of them.

Each builds its network when asked, so that plans load without torch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from autospine.core.errors import PlanError
from autospine.core.types import Shape3, Vector3
from autospine.network.network_plan import (
    MOST_LEVELS,
    Blocks,
    Channels,
    Extents,
    Heads,
    NetworkPlan,
    total_stride,
)
from autospine.storage.serialization import at_most

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetLevels(NetworkPlan):
    """The levels of a U-Net, from the finest to the coarsest.

    Raises:
        PlanError: If the numbers of features, strides and kernels differ, one of them is not positive, or a
            kernel is even.
    """

    # First, as in the files; each U-Net narrows it to its own name.
    name: str
    features: Annotated[tuple[Channels, ...], at_most(MOST_LEVELS)]
    """Channels of each level."""

    strides: Annotated[tuple[Extents, ...], at_most(MOST_LEVELS)]
    """Stride into each level; that of the first is 1."""

    kernels: Annotated[tuple[Extents, ...], at_most(MOST_LEVELS)]
    """Odd kernel sizes of each level's convolutions, in voxels."""

    def __post_init__(self) -> None:
        features, strides, kernels = self.features, self.strides, self.kernels
        if not features or not len(features) == len(strides) == len(kernels):
            raise PlanError(
                f"expected features, strides and kernels for as many levels each, found {len(features)}, "
                f"{len(strides)} and {len(kernels)}; plan again or correct the network of the plan"
            )
        if min(features) < 1 or any(min(triple) < 1 for triple in (*strides, *kernels)):
            raise PlanError(
                f"expected features, strides and kernels of at least 1, found {features}, {strides} and "
                f"{kernels}; plan again or correct the network of the plan"
            )
        if any(side % 2 == 0 for kernel in kernels for side in kernel):
            raise PlanError(
                f"expected odd kernels, which keep the size of the map, found {kernels}; "
                "plan again or correct the network of the plan"
            )

    @property
    def divisor(self) -> Shape3:
        """Number that each axis of the input must be a multiple of: the product of its strides."""
        return total_stride(self.strides)


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
