"""Patch embedding with multi-scale fusion: F = sum_i w_i Conv_{k_i, stride}(x)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from autospine.errors import PlanError
from autospine.network.blocks import channels_last
from autospine.network.convolution import conv3d
from autospine.types import ImageBatch, Shape3

FusionWeighting = Literal["trainable", "ones", "off"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionSettings:
    """Settings of the multi-scale fusion."""

    kernel_sizes: tuple[Shape3, ...]
    """Kernel sizes (S, P, L) in voxels; the first is the embedding's own and equals its stride."""

    weighting: FusionWeighting = "trainable"
    """`trainable`: free weights that start at (1, 0, ...); `ones`: all fixed at 1; `off`: only the
    embedding."""

    placement: Literal["embedding"] = "embedding"
    """Where the scales are fused: in the patch embedding, the first layer of the Swin branch."""

    def __post_init__(self) -> None:
        """Check the kernel sizes."""
        if not self.kernel_sizes or min(size for kernel in self.kernel_sizes for size in kernel) < 1:
            raise PlanError(
                f"Expected fusion kernels of at least 1 voxel per axis, found {self.kernel_sizes}; "
                "plan the dataset again or correct the kernel sizes."
            )


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
        if fusion is not None and fusion.kernel_sizes[0] != stride:
            raise PlanError(
                f"Expected the first fusion kernel to be the embedding's stride {stride}, "
                f"found {fusion.kernel_sizes[0]}; put the stride first among the kernel sizes."
            )
        weighting = "off" if fusion is None else fusion.weighting
        sizes = fusion.kernel_sizes[1:] if fusion is not None and weighting != "off" else ()
        self.scales = nn.ParameterList(nn.Conv3d(in_channels, out_channels, size).weight for size in sizes)
        if weighting == "trainable":
            self.scale_weights = nn.Parameter(_one_hot(1 + len(sizes)))
        else:
            initial = torch.ones(1 + len(sizes)) if weighting == "ones" else _one_hot(1)
            self.register_buffer("scale_weights", initial, persistent=False)

    def forward(self, image: ImageBatch) -> Float[Tensor, "B s p l f"]:
        """Return the tokens, channels last."""
        weight, padding = self.weight, (0, 0, 0)
        if len(self.scales):
            weight, padding = self._fused_kernel()
        weight = weight.to(memory_format=torch.channels_last_3d)
        return channels_last(conv3d(image, weight, self.bias, stride=self.stride, padding=padding))

    def _fused_kernel(self) -> tuple[Tensor, Shape3]:
        """Return the weighted sum of all kernels in a common frame, and the frame's reach beyond the
        token.
        """
        kernels = [self.weight, *self.scales]
        reach = tuple(
            max(max(_reach(kernel.shape[axis + 2], stride)) for kernel in kernels)
            for axis, stride in enumerate(self.stride)
        )
        framed = [F.pad(kernel, _frame(kernel.shape[2:], self.stride, reach)) for kernel in kernels]
        fused = torch.tensordot(self.scale_weights, torch.stack(framed), dims=1)
        return fused, (reach[0], reach[1], reach[2])


def _reach(size: int, stride: int) -> tuple[int, int]:
    """Return a kernel's reach beyond the token, in voxels, to the low and the high end; may be negative."""
    low = (size - stride + 1) // 2
    return low, size - stride - low


def _frame(sizes: torch.Size, stride: Shape3, reach: tuple[int, ...]) -> list[int]:
    """Return the padding, last axis first, that puts a kernel in the common frame."""
    padding = []
    for size, step, extent in reversed(list(zip(sizes, stride, reach, strict=True))):
        low, high = _reach(size, step)
        padding += [extent - low, extent - high]
    return padding


def _one_hot(length: int) -> Tensor:
    return torch.tensor([1.0] + [0.0] * (length - 1))
