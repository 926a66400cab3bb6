"""Convolutional blocks of the network, on feature maps (B, S, P, L, C).

Channels lie last in memory throughout, so that convolutions (which want torch's channels_last_3d format),
token-wise layers and norms all read the same buffer without copies. Parameters keep torch's own shapes and
order.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from autospine.network.normalisation import norm_act
from autospine.types import Shape3


class Convolution(nn.Module):
    """A 3D convolution without bias that keeps the size of the feature map, computed in the input's dtype.

    The parameter `weight` is (out_channels, k, k, k, in_channels): torch's own order with the second axis
    last.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd edge length of the kernel in voxels.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        # Kept in the order that channels-last convolution reads, so that no call has to reorder it.
        self.weight = nn.Parameter(torch.empty(out_channels, *(kernel_size,) * 3, in_channels))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Float[Tensor, "B S P L C"]) -> Float[Tensor, "B S P L D"]:
        """Return the convolved feature map."""
        weight = self.weight.to(x.dtype)
        if weight.shape[1] == 1:
            return F.linear(x, weight.flatten(1))
        padding = weight.shape[1] // 2
        return channels_last(F.conv3d(channels_first(x), channels_first(weight), padding=padding))


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions around a shortcut: y = act(norm(conv2(act(norm(conv1 x)))) + x).

    Where the channels change, the shortcut is a normalised 1x1x1 convolution. This is the UnetResBlock of
    SwinUNETR; norms have no affine parameters.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = Convolution(in_channels, out_channels, 3)
        self.conv2 = Convolution(out_channels, out_channels, 3)
        self.conv3 = Convolution(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Float[Tensor, "B S P L C"]) -> Float[Tensor, "B S P L D"]:
        """Return the block's output, of the input's spatial size."""
        y = self.conv2(norm_act(self.conv1(x)))
        if self.conv3 is None:
            return norm_act(y, x)
        return norm_act(y, self.conv3(x), normalise_residual=True)


class UpBlock(nn.Module):
    """Transposed convolution, concatenation with the skip connection, and a residual block.

    Args:
        in_channels: Channels of the coarse feature map.
        out_channels: Channels of the skip connection and of the output.
        stride: Up-sampling factor per axis, 1 or 2; also the kernel of the transposed convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: Shape3) -> None:
        super().__init__()
        self.stride = stride
        self.transposed = nn.Parameter(torch.empty(in_channels, out_channels, *stride))
        nn.init.kaiming_uniform_(self.transposed, a=5**0.5)
        self.block = ResidualBlock(2 * out_channels, out_channels)

    def forward(
        self, x: Float[Tensor, "B s p l C"], skip: Float[Tensor, "B S P L D"]
    ) -> Float[Tensor, "B S P L D"]:
        """Return the feature map at the skip connection's size."""
        weight = cast(self.transposed, x.dtype)
        up = channels_last(F.conv_transpose3d(channels_first(x), weight, stride=self.stride))
        out: Tensor = self.block(torch.cat((up, skip), dim=-1))
        return out


def channels_first(x: Tensor) -> Tensor:
    """Return the (B, C, S, P, L) view of a (B, S, P, L, C) feature map."""
    return x.permute(0, 4, 1, 2, 3)


def channels_last(x: Tensor) -> Tensor:
    """Return (B, C, S, P, L) as a contiguous (B, S, P, L, C); no copy where memory is so already."""
    return x.permute(0, 2, 3, 4, 1).contiguous()


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a convolution weight in the dtype and in channels-last memory, as the convolution wants it."""
    return weight.to(dtype, memory_format=torch.channels_last_3d)
