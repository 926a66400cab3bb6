"""3D U-Net (Cicek et al., MICCAI 2016) as nnU-Net builds it: strided convolutions and instance norm."""

from torch import Tensor

from autospine.core.tensor_types import ImageBatch, LogitBatch
from autospine.network.unet import Decoder, UNet, encode, plain_encoder
from autospine.network.unet_levels import UNetLevels

CONVOLUTIONS = 2
"""Convolutions per stage of encoder and decoder, as in both sources."""


class UNet3D(UNet):
    """Plain convolutional encoder and decoder with skip connections; the arguments are those of `UNet`."""

    def __init__(
        self, in_channels: int, out_channels: int, levels: UNetLevels, *, checkpointing: bool = False
    ) -> None:
        super().__init__(in_channels, levels, checkpointing=checkpointing)
        self.encoder = plain_encoder(in_channels, levels, CONVOLUTIONS)
        self.decoder = Decoder(out_channels, levels, CONVOLUTIONS)

    def logits(self, x: ImageBatch, coarse: list[Tensor] | None) -> LogitBatch:
        """Return the logits (B, K, S, P, L) of an image (B, C, S, P, L), in its dtype."""
        y: Tensor = self.decoder(encode(self.encoder, x, self.run), self.run, coarse)
        return y
