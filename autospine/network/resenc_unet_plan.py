"""The plan of the residual-encoder U-Net."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from autospine.core.types import Shape3, Vector3
from autospine.network.network_plan import MOST_LEVELS, Blocks
from autospine.network.unet_levels import UNetLevels
from autospine.storage.serialization import at_most

if TYPE_CHECKING:
    from torch import nn


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
