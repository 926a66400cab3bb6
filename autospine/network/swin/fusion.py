"""Multi-scale fusion: F = sum_i w_i Conv_{k_i}(x) in the patch embedding, before the network, or both, and
sum_i w_i up(head_i(y_i)) of the levels of the decoder.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.errors import PlanError
from autospine.core.geometry import triple
from autospine.core.tensor_types import ImageBatch
from autospine.core.types import Shape3
from autospine.network.blocks import channels_last
from autospine.network.convolution import conv3d
from autospine.network.normalisation import NEGATIVE_SLOPE
from autospine.network.swin.swin_settings import FusionSettings, FusionWeighting
from autospine.network.tokenwise import linear

STEM_CHANNELS = 8
"""Features of each scale in the stem; at full resolution every channel costs memory."""


class PatchEmbedding(nn.Module):
    """Strided convolution of the image into tokens, as a weighted sum over kernels of several sizes.

    Scale 0 is the plain embedding, whose kernel is the stride. The kernels of the other scales lie round the
    same voxels (one voxel more towards the low end where the sizes differ by an odd number), so their
    weighted sum is one convolution with the weighted sum of the zero-padded kernels. One bias serves all
    scales. At the start only scale 0 has weight.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of a token.
        stride: Voxels per token and axis.
        fusion: Settings of the fusion; None is the plain embedding.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: Shape3, fusion: FusionSettings | None = None
    ) -> None:
        super().__init__()
        self.stride = stride
        plain = nn.Conv3d(in_channels, out_channels, stride, stride)
        self.weight, self.bias = plain.weight, plain.bias
        if fusion is not None and fusion.kernels[0] != stride:
            raise PlanError(
                f"expected the first fusion kernel to be the embedding's stride {stride}, "
                f"found {fusion.kernels[0]}; put the stride first among the kernel sizes"
            )
        fused = fusion if fusion is not None and fusion.is_in_embedding else None
        self.is_fused = fused is not None
        sizes = () if fused is None else fused.kernels[1:]
        self.scales = nn.ParameterList(nn.Conv3d(in_channels, out_channels, size).weight for size in sizes)
        _set_scale_weights(self, 1 + len(sizes), None if fused is None else fused.weighting)

    scale_weights: Tensor

    def forward(self, image: ImageBatch) -> Float[Tensor, "B s p l f"]:
        """Return the tokens, channels last."""
        weight, padding = self.weight, (0, 0, 0)
        if len(self.scales):
            weight, padding = fused_kernel([self.weight, *self.scales], self.scale_weights, self.stride)
        weight = weight.to(memory_format=torch.channels_last_3d)
        return channels_last(conv3d(image, weight, self.bias, stride=self.stride, padding=padding))


class Stem(nn.Module):
    """Residual fusion at full resolution: x + P act(sum_i w_i Conv_{k_i}(x)), with P = 0 at the start.

    The kernels are those of the embedding, each widened to the next odd size so that it has a centre. All of
    the network sees the result, the skip connection at full resolution too, which the embedding's fusion
    does not reach.

    Args:
        channels: Channels of the image.
        fusion: Settings of the fusion.
    """

    def __init__(self, channels: int, fusion: FusionSettings) -> None:
        super().__init__()
        sizes = dict.fromkeys((s | 1, p | 1, left | 1) for s, p, left in fusion.kernels)
        self.scales = nn.ParameterList(nn.Conv3d(channels, STEM_CHANNELS, size).weight for size in sizes)
        _set_scale_weights(self, len(sizes), fusion.weighting)
        self.projection = nn.Parameter(torch.zeros(channels, STEM_CHANNELS))

    scale_weights: Tensor

    def forward(self, image: ImageBatch) -> ImageBatch:
        """Return the image with what the scales add to it."""
        kernel, padding = fused_kernel(list(self.scales), self.scale_weights, (1, 1, 1))
        features = F.leaky_relu(conv3d(image, kernel, padding=padding), NEGATIVE_SLOPE)
        projection = self.projection.to(image.dtype)[..., None, None, None]
        return image + F.conv3d(features, projection)


class LevelFusion(nn.Module):
    """Fusion of the decoder's levels below full resolution: sum_i w_i up(head_i(y_i)), w_i = 1 at the start.

    Each level has a head of its own: what is large is decided where it is seen whole, and what is fine
    is added at full resolution. Coarser logits are up-sampled by repetition, level by level: what the finer
    head learns is the difference.

    Args:
        widths: Channels of the levels, finest first.
        classes: Classes, background included.
        strides: Up-sampling factor of each level to the next finer one, finest first.
        weighting: Whether the weights w_i are trained.
    """

    def __init__(
        self, widths: Sequence[int], classes: int, strides: Sequence[Shape3], weighting: FusionWeighting
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.heads = nn.ModuleList(nn.Linear(width, classes) for width in widths)
        ones = torch.ones(len(widths))
        if weighting == "trainable":
            self.level_weights = nn.Parameter(ones)
        else:
            self.register_buffer("level_weights", ones, persistent=False)

    level_weights: Tensor

    def forward(self, levels: Sequence[Float[Tensor, "B _ _ _ _"]]) -> Float[Tensor, "B s p l K"]:
        """Return the sum at the finest of the levels, which are channels last and begin with it."""
        fused = None
        for i in reversed(range(len(levels))):
            head, weight = cast(nn.Linear, self.heads[i]), self.level_weights[i].to(levels[i].dtype)
            logits = linear(levels[i], head.weight, head.bias) * weight
            fused = logits if fused is None else logits + repeated(fused, self.strides[i + 1])
        if fused is None:
            raise ValueError("expected at least one level, found none")
        return fused


def repeated(x: Float[Tensor, "B s p l K"], stride: Shape3) -> Float[Tensor, "B S P L K"]:
    """Return x with each voxel repeated as often as the stride says along each axis."""
    batch, s, p, left, channels = x.shape
    cells = x[:, :, None, :, None, :, None].expand(-1, -1, stride[0], -1, stride[1], -1, stride[2], -1)
    return cells.reshape(batch, s * stride[0], p * stride[1], left * stride[2], channels)


def fused_kernel(
    kernels: Sequence[Float[Tensor, "D C _ _ _"]], weights: Float[Tensor, "scales"], stride: Shape3
) -> tuple[Float[Tensor, "D C _ _ _"], Shape3]:
    """Return the weighted sum of all kernels in a common frame, and the frame's reach beyond the token."""
    reach = [
        max(max(_reach(kernel.shape[axis + 2], step)) for kernel in kernels)
        for axis, step in enumerate(stride)
    ]
    framed = [F.pad(kernel, _frame(kernel.shape[2:], stride, reach)) for kernel in kernels]
    fused = torch.tensordot(weights, torch.stack(framed), dims=1)
    return fused, triple(reach)


def _set_scale_weights(module: nn.Module, count: int, weighting: FusionWeighting | None) -> None:
    """Give the module its w_i: a parameter that starts at (1, 0, ...), or constants; None is no fusion."""
    one_hot = torch.tensor([1.0] + [0.0] * (count - 1))
    if weighting == "trainable":
        module.scale_weights = nn.Parameter(one_hot)
    else:
        constants = torch.ones(count) if weighting == "ones" else one_hot
        module.register_buffer("scale_weights", constants, persistent=False)


def _reach(size: int, stride: int) -> tuple[int, int]:
    """Return a kernel's reach beyond the token, in voxels, to the low and the high end; may be negative."""
    low = (size - stride + 1) // 2
    return low, size - stride - low


def _frame(sizes: torch.Size, stride: Shape3, reach: Sequence[int]) -> list[int]:
    """Return the padding, last axis first, that puts a kernel in the common frame."""
    padding = []
    for size, step, extent in reversed(list(zip(sizes, stride, reach, strict=True))):
        low, high = _reach(size, step)
        padding += [extent - low, extent - high]
    return padding
