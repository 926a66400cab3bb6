"""The 3D convolution of all parts of the network."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from autospine.core.types import Shape3

ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]

OVERLOOKED = 20480
"""Channels x S x P of a single image up to which torch does not take oneDNN (its `use_mkldnn`)."""


def conv3d(
    x: Float[Tensor, "B C S P L"],
    weight: Float[Tensor, "D C _ _ _"],
    bias: Float[Tensor, "D"] | None = None,
    *,
    stride: Shape3 = (1, 1, 1),
    padding: Shape3,
    dilation: Shape3 = (1, 1, 1),
) -> Float[Tensor, "B D s p l"]:
    """Return torch's convolution in x's dtype, with gradients that can be trusted.

    On CPUs that multiply bfloat16, oneDNN's gradient of the weight is wrong for maps hardly larger than the
    kernel: parts of it stay uninitialised memory, some are written beyond its end (seen in torch 2.13 with
    AVX512-BF16, for instance for a 3x3x3 kernel on two planes). Where there may be a gradient, such maps are
    convolved in float32.

    In prediction on a CPU, float32 goes to oneDNN at once: torch thinks its own kernels faster for a single
    image of few voxels, by a rule made for two dimensions, and they take three to nineteen times as long.

    Args:
        x: Feature map.
        weight: Kernel, in any floating type.
        bias: Bias of each output channel, or None.
        stride: Stride along S, P, L.
        padding: Zeros on both sides along S, P, L.
        dilation: Steps between the kernel's voxels along S, P, L.
    """
    small = any(n <= d * (k - 1) + 1 for n, k, d in zip(x.shape[2:], weight.shape[2:], dilation, strict=True))
    unsafe = small and x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.is_grad_enabled()
    dtype = torch.float32 if unsafe else x.dtype
    shift = None if bias is None else bias.to(dtype)
    if _overlooks_onednn(x, dtype):
        return torch.mkldnn_convolution(x, weight.to(dtype), shift, padding, stride, dilation, 1)
    return F.conv3d(x.to(dtype), weight.to(dtype), shift, stride, padding, dilation).to(x.dtype)


def _overlooks_onednn(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether torch would not take oneDNN although it can be taken."""
    small = len(x) == 1 and x.shape[1] * x.shape[2] * x.shape[3] <= OVERLOOKED
    single = x.device.type == "cpu" and x.dtype == dtype == torch.float32
    plain = not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
    return small and single and plain and ONEDNN
