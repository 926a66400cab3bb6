"""Convolutional blocks of the network, on feature maps (B, S, P, L, C).

Channels lie last in memory throughout, so that convolutions (which want torch's channels_last_3d format),
token-wise layers and norms all read the same buffer without copies. Parameters keep torch's own shapes and
order.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.types import Shape3
from autospine.network.convolution import conv3d, convolve_upsampled
from autospine.network.normalisation import norm_act
from autospine.network.tokenwise import add_linear, linear

COMPOSED_VOXELS = 8192
"""Coarse voxels from which composing up-sampling and convolution pays; below, composing the kernels costs
more."""


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
        return convolve(x, self.weight)


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
        return self.finish(self.conv1(x), x if self.conv3 is None else self.conv3(x))

    def entry_weights(self) -> tuple[Float[Tensor, "D 3 3 3 C"], Float[Tensor, "D C"]]:
        """Return the weights of the first convolution and of the shortcut, where channels change."""
        if self.conv3 is None:
            raise ValueError("expected a block that changes channels, found one that keeps them")
        return self.conv1.weight, self.conv3.weight.flatten(1)

    def finish(
        self, first: Float[Tensor, "B S P L D"], shortcut: Float[Tensor, "B S P L D"]
    ) -> Float[Tensor, "B S P L D"]:
        """Return the block's output, given that of its first convolution and of its shortcut."""
        y = self.conv2(norm_act(first))
        return norm_act(y, shortcut, normalise_residual=self.conv3 is not None)


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
        if self.stride == (2, 2, 2) and x[..., 0].numel() >= COMPOSED_VOXELS:
            return self._composed(x, skip)
        # Convolutions of a concatenation are sums of convolutions; the concatenation is never made.
        conv1, conv3 = self.block.entry_weights()
        c = skip.shape[-1]
        up = upsample(x, self.transposed, self.stride)
        first = convolve(up, conv1[..., :c]).add_(convolve(skip, conv1[..., c:]))
        return self.block.finish(first, linear(up, conv3[:, :c]).add_(linear(skip, conv3[:, c:])))

    def _composed(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the same without the up-sampled map: its convolutions are composed with the up-sampling."""
        conv1, conv3 = self.block.entry_weights()
        c = skip.shape[-1]
        first = convolve_upsampled(x, self.transposed, conv1[..., :c], addend=convolve(skip, conv1[..., c:]))
        projected = torch.einsum("cmstu,dm->cdstu", self.transposed, conv3[:, :c])
        shortcut = add_linear(upsample(x, projected, self.stride), skip, conv3[:, c:])
        return self.block.finish(first, shortcut)


def convolve(x: Float[Tensor, "B S P L C"], weight: Float[Tensor, "D k k k C"]) -> Float[Tensor, "B S P L D"]:
    """Return the zero-padded convolution of x, of x's size and dtype."""
    if weight.shape[1] == 1:
        return linear(x, weight.flatten(1))
    padding = weight.shape[1] // 2
    return channels_last(conv3d(channels_first(x), channels_first(weight), padding=(padding,) * 3))


def upsample(
    x: Float[Tensor, "B s p l C"], transposed: Float[Tensor, "C D _ _ _"], stride: Shape3
) -> Float[Tensor, "B S P L D"]:
    """Return the transposed convolution of x, whose kernel is its stride, in x's dtype."""
    return channels_last(F.conv_transpose3d(channels_first(x), cast(transposed, x.dtype), stride=stride))


def channels_first(x: Tensor) -> Tensor:
    """Return the (B, C, S, P, L) view of a (B, S, P, L, C) feature map."""
    return x.permute(0, 4, 1, 2, 3)


def channels_last(x: Tensor) -> Tensor:
    """Return (B, C, S, P, L) as a contiguous (B, S, P, L, C); no copy where memory is so already."""
    return x.permute(0, 2, 3, 4, 1).contiguous()


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a convolution weight in the dtype and in channels-last memory, as the convolution wants it."""
    return weight.to(dtype, memory_format=torch.channels_last_3d)
