"""Layers that the compared convolutional networks share, on feature maps (B, C, S, P, L).

Instance norm (affine, epsilon 1e-5) and LeakyReLU (slope 0.01) follow nnU-Net (Isensee et al., Nature Methods
2021). A convolution before a norm has no bias, since the norm takes it away again.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.geometry import triple
from autospine.core.tensor_types import LogitBatch
from autospine.core.types import Shape3
from autospine.network.base import SegmentationNetwork
from autospine.network.convolution import conv3d
from autospine.network.normalisation import NEGATIVE_SLOPE, instance_norm, lies_last
from autospine.network.unet_levels import UNetLevels

RunStage = Callable[..., Tensor]
"""Calls a module with its inputs, and again in the backward pass if it is to be recomputed there; see
`SegmentationNetwork.run`."""


class UNet(SegmentationNetwork):
    """Base of the U-Nets: an encoder and a decoder with skip connections, made by the subclasses.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        levels: Channels, strides and kernels per level.
        checkpointing: Recompute each stage in the backward pass to save memory.

    Raises:
        PlanError: If further numbers do not fit the levels.
    """

    keeps_layout = True

    encoder: nn.ModuleList
    decoder: "Decoder"

    def __init__(self, in_channels: int, levels: UNetLevels, *, checkpointing: bool) -> None:
        super().__init__(in_channels, levels.divisor, checkpointing=checkpointing)
        self.coarse_widths = levels.features[1:-1]


class ConvNorm(nn.Module):
    """Convolution, instance norm and LeakyReLU, computed in the input's dtype.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Odd kernel size along S, P, L.
        stride: Voxels per output voxel along S, P, L.
        dilation: Steps between the kernel's voxels along S, P, L.
        activation: Whether the LeakyReLU follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Shape3,
        *,
        stride: Shape3 = (1, 1, 1),
        dilation: Shape3 = (1, 1, 1),
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.dilation, self.activation = stride, dilation, activation
        self.padding = _same_padding(kernel, dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel))
        nn.init.kaiming_normal_(self.weight, a=NEGATIVE_SLOPE)
        self.norm_weight = nn.Parameter(torch.ones(out_channels))
        self.norm_bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Float[Tensor, "B C S P L"]) -> Float[Tensor, "B D s p l"]:
        """Return the new feature map."""
        weight = like_map(self.weight, x)
        y = conv3d(x, weight, stride=self.stride, padding=self.padding, dilation=self.dilation)
        y = instance_norm(y, self.norm_weight, self.norm_bias)
        return F.leaky_relu(y, NEGATIVE_SLOPE, inplace=True) if self.activation else y


class Head(nn.Conv3d):
    """1x1x1 convolution to logits, in the input's dtype."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, input: Float[Tensor, "B C S P L"]) -> Float[Tensor, "B K S P L"]:
        """Return the logits."""
        return conv3d(input, like_map(self.weight, input), self.bias, padding=(0, 0, 0))


class UpStage(nn.Module):
    """Transposed convolution, concatenation with the skip connection, and convolutions.

    Args:
        in_channels: Channels of the coarse feature map.
        out_channels: Channels of the skip connection and of the output.
        stride: Up-sampling factor along S, P, L; also the kernel of the transposed convolution.
        kernel: Kernel of the convolutions.
        convolutions: Number of convolutions that follow.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: Shape3, kernel: Shape3, convolutions: int
    ) -> None:
        super().__init__()
        self.stride = stride
        up = nn.ConvTranspose3d(in_channels, out_channels, stride, stride)
        self.weight, self.bias = up.weight, up.bias
        self.convolutions = chain(2 * out_channels, out_channels, kernel, convolutions)

    def forward(
        self, x: Float[Tensor, "B C s p l"], skip: Float[Tensor, "B D S P L"]
    ) -> Float[Tensor, "B D S P L"]:
        """Return the feature map at the skip connection's size."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        up = F.conv_transpose3d(x, like_map(self.weight, x), bias, self.stride)
        y: Tensor = self.convolutions(torch.cat([up, skip], dim=1))
        return y


class Decoder(nn.Module):
    """The decoder of a U-Net: one stage per level but the coarsest, and the head.

    Args:
        out_channels: Classes, background included.
        levels: Channels, strides and kernels per level; the first stride is not used on the way up.
        convolutions: Convolutions per stage.
    """

    def __init__(self, out_channels: int, levels: UNetLevels, convolutions: int) -> None:
        super().__init__()
        features, strides, kernels = levels.features, levels.strides, levels.kernels
        self.stages = nn.ModuleList(
            UpStage(features[i + 1], features[i], strides[i + 1], kernels[i], convolutions)
            for i in range(len(features) - 1)
        )
        self.head = Head(features[0], out_channels)

    def forward(
        self, maps: Sequence[Float[Tensor, "B _ _ _ _"]], run: RunStage, coarse: list[Tensor] | None
    ) -> LogitBatch:
        """Return the logits, from the feature maps of all levels, finest first.

        The stages' feature maps but the last one are appended to `coarse`.
        """
        y = maps[-1]
        for i in reversed(range(len(self.stages))):
            y = run(self.stages[i], y, maps[i])
            if coarse is not None and i > 0:
                coarse.append(y)
        logits: Tensor = self.head(y)
        return logits


def like_map(weight: Float[Tensor, "_ _ _ _ _"], x: Float[Tensor, "B C S P L"]) -> Tensor:
    """Return a kernel in the dtype of a map and, if channels lie last on a GPU, in its memory format."""
    if lies_last(x):
        return weight.to(x.dtype, memory_format=torch.channels_last_3d)
    return weight.to(x.dtype)


def plain_encoder(in_channels: int, levels: UNetLevels, convolutions: int) -> nn.ModuleList:
    """Return the plain encoder: several convolutions per level, the first with the level's stride."""
    widths = (in_channels, *levels.features)
    return nn.ModuleList(
        chain(widths[i], widths[i + 1], levels.kernels[i], convolutions, stride=levels.strides[i])
        for i in range(len(levels.features))
    )


def chain(
    in_channels: int, out_channels: int, kernel: Shape3, count: int, *, stride: Shape3 = (1, 1, 1)
) -> nn.Sequential:
    """Return a sequence of convolutions, the first with the stride."""
    first = ConvNorm(in_channels, out_channels, kernel, stride=stride)
    return nn.Sequential(first, *(ConvNorm(out_channels, out_channels, kernel) for _ in range(count - 1)))


def encode(
    stages: Sequence[nn.Module] | nn.ModuleList, x: Float[Tensor, "B C S P L"], run: RunStage
) -> list[Tensor]:
    """Return the feature map after each stage, finest first."""
    maps = []
    for stage in stages:
        x = run(stage, x)
        maps.append(x)
    return maps


def _same_padding(kernel: Shape3, dilation: Shape3) -> Shape3:
    return triple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True))
