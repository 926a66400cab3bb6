"""3D U-Net (Cicek et al., MICCAI 2016) as nnU-Net builds it: strided convolutions and instance norm."""

from collections.abc import Sequence

from torch import Tensor, nn

from autospine.core.types import Shape3
from autospine.network.base import SegmentationNetwork, product
from autospine.network.unet import Decoder, chain, check_levels, encode

CONVOLUTIONS = 2
"""Convolutions per stage, on both ways, as in both sources."""


class UNet3D(SegmentationNetwork):
    """Plain convolutional encoder and decoder with skip connections.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        features: Channels per level, finest first.
        strides: Of the first convolution of each level.
        kernels: Odd kernel sizes per level.
        checkpointing: Recompute each stage in the backward pass to save memory.

    Raises:
        PlanError: If the levels do not fit together.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: Sequence[int],
        strides: Sequence[Shape3],
        kernels: Sequence[Shape3],
        checkpointing: bool = False,
    ) -> None:
        check_levels(features, strides, kernels)
        super().__init__(in_channels, product(strides[1:] or [(1, 1, 1)]), checkpointing=checkpointing)
        self.encoder = plain_encoder(in_channels, features, strides, kernels)
        self.decoder = Decoder(out_channels, features, strides, kernels, CONVOLUTIONS)
        self.coarse_widths = tuple(features[1:-1])

    def logits(self, x: Tensor, coarse: list[Tensor] | None) -> Tensor:
        """Return the logits (B, K, S, P, L) of an image (B, C, S, P, L), in its dtype."""
        y: Tensor = self.decoder(encode(self.encoder, x, self.run), self.run, coarse)
        return y


def plain_encoder(
    in_channels: int, features: Sequence[int], strides: Sequence[Shape3], kernels: Sequence[Shape3]
) -> nn.ModuleList:
    """Return the way down: two convolutions per level, the first with the level's stride."""
    widths = (in_channels, *features)
    return nn.ModuleList(
        chain(widths[i], widths[i + 1], kernels[i], CONVOLUTIONS, stride=strides[i])
        for i in range(len(features))
    )
