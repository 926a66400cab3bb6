"""U-Net with a residual encoder, by the rules of nnU-Net's ResEnc presets (Isensee et al., MICCAI 2024).

Residual blocks are those of ResNet-D (He et al., CVPR 2019): where a block strides, its shortcut is an
average pooling, followed by a 1x1x1 convolution if the channels change.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.errors import PlanError
from autospine.core.tensor_types import ImageBatch, LogitBatch
from autospine.core.types import Shape3
from autospine.network.normalisation import NEGATIVE_SLOPE, lies_last
from autospine.network.unet import ConvNorm, Decoder, UNet, encode
from autospine.network.unet_levels import UNetLevels

DECODER_CONVOLUTIONS = 1
"""Convolutions per stage of the decoder, as in the presets."""


class ResEncUNet(UNet):
    """Residual encoder, plain decoder.

    Args:
        in_channels: As in `UNet`, like the arguments that are not listed here.
        blocks: Residual blocks per level.

    Raises:
        PlanError: If there is not at least one block on each level.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        levels: UNetLevels,
        *,
        blocks: Sequence[int],
        checkpointing: bool = False,
    ) -> None:
        features, strides, kernels = levels.features, levels.strides, levels.kernels
        if len(blocks) != len(features) or min(blocks) < 1:
            raise PlanError(
                f"expected at least one residual block on each of {len(features)} levels, found "
                f"{tuple(blocks)}; plan again or correct the network of the plan"
            )
        super().__init__(in_channels, levels, checkpointing=checkpointing)
        self.stem = ConvNorm(in_channels, features[0], kernels[0])
        widths = (features[0], *features)
        self.encoder = nn.ModuleList(
            _stage(widths[i], widths[i + 1], kernels[i], strides[i], blocks[i]) for i in range(len(features))
        )
        self.decoder = Decoder(out_channels, levels, DECODER_CONVOLUTIONS)

    def logits(self, x: ImageBatch, coarse: list[Tensor] | None) -> LogitBatch:
        """Return the logits (B, K, S, P, L) of an image (B, C, S, P, L), in its dtype."""
        maps = encode(self.encoder, self.run(self.stem, x), self.run)
        y: Tensor = self.decoder(maps, self.run, coarse)
        return y


class ResidualBlockD(nn.Module):
    """y = act(norm(conv(act(norm(conv x)))) + shortcut(x)).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Odd kernel size along S, P, L.
        stride: Stride along S, P, L of the first convolution and of the shortcut's pooling.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Shape3, stride: Shape3) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = ConvNorm(in_channels, out_channels, kernel, stride=stride)
        self.conv2 = ConvNorm(out_channels, out_channels, kernel, activation=False)
        self.projection = (
            ConvNorm(in_channels, out_channels, (1, 1, 1), activation=False)
            if in_channels != out_channels
            else None
        )

    def forward(self, x: Float[Tensor, "B C S P L"]) -> Float[Tensor, "B D s p l"]:
        """Return the new feature map, smaller by the stride."""
        shortcut = average_pool(x, self.stride) if max(self.stride) > 1 else x
        if self.projection is not None:
            shortcut = self.projection(shortcut)
        return F.leaky_relu(self.conv2(self.conv1(x)) + shortcut, NEGATIVE_SLOPE, inplace=True)


def average_pool(x: Float[Tensor, "B C S P L"], stride: Shape3) -> Float[Tensor, "B C s p l"]:
    """Return the mean over blocks of the stride's size, in the map's memory format.

    torch's own takes no bfloat16 on a CPU, and returns channels first.
    """
    size = [part for n, k in zip(x.shape[2:], stride, strict=True) for part in (n // k, k)]
    if lies_last(x):
        return x.movedim(1, -1).reshape(x.shape[0], *size, x.shape[1]).mean((2, 4, 6)).movedim(-1, 1)
    return x.reshape(*x.shape[:2], *size).mean((3, 5, 7))


def _stage(in_channels: int, out_channels: int, kernel: Shape3, stride: Shape3, blocks: int) -> nn.Sequential:
    first = ResidualBlockD(in_channels, out_channels, kernel, stride)
    rest = (ResidualBlockD(out_channels, out_channels, kernel, (1, 1, 1)) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
