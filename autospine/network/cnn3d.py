"""A plain fully convolutional 3D network: every layer at full resolution, no encoder, decoder or skip.

Its context grows by dilation, layer by layer, as in the context module of Yu and Koltun (ICLR 2016).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from autospine.core.errors import PlanError
from autospine.core.tensor_types import ImageBatch, LogitBatch
from autospine.core.types import Shape3
from autospine.network.base import SegmentationNetwork
from autospine.network.unet import ConvNorm, Head

KERNEL = (3, 3, 3)
"""Kernel size of every layer but the last."""


class CNN3D(SegmentationNetwork):
    """Dilated convolutions in a row, each with instance norm and LeakyReLU, and a 1x1x1 convolution.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        features: Channels of every layer.
        dilations: Dilation along S, P, L of each layer, in voxels.
        checkpointing: Recompute each layer in the backward pass to save memory.

    Raises:
        PlanError: If there is no layer, or a number is not positive.
    """

    keeps_layout = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: int,
        dilations: Sequence[Shape3],
        checkpointing: bool = False,
    ) -> None:
        if features < 1 or not dilations or any(min(dilation) < 1 for dilation in dilations):
            raise PlanError(
                f"expected features and dilations of at least 1, found {features} and {tuple(dilations)}; "
                "plan again or correct the network of the plan"
            )
        super().__init__(in_channels, (1, 1, 1), checkpointing=checkpointing)
        widths = (in_channels, *(features,) * len(dilations))
        self.layers = nn.ModuleList(
            ConvNorm(widths[i], widths[i + 1], KERNEL, dilation=dilation)
            for i, dilation in enumerate(dilations)
        )
        self.head = Head(features, out_channels)

    def logits(self, x: ImageBatch, coarse: list[Tensor] | None) -> LogitBatch:
        """Return the logits (B, K, S, P, L) of an image (B, C, S, P, L), in its dtype."""
        for layer in self.layers:
            x = self.run(layer, x)
        logits: Tensor = self.head(x)
        return logits
