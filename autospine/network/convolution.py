"""The 3D convolution of all parts of the network."""

import torch
import torch.nn.functional as F
from torch import Tensor

from autospine.types import Shape3


def conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Shape3 = (1, 1, 1),
    padding: Shape3,
    dilation: Shape3 = (1, 1, 1),
) -> Tensor:
    """Return torch's convolution in x's dtype, with gradients that can be trusted.

    On CPUs that multiply bfloat16, oneDNN's gradient of the weight is wrong for maps hardly larger than the
    kernel: parts of it stay uninitialised memory, some are written beyond its end (seen in torch 2.13 with
    AVX512-BF16, for instance for a 3x3x3 kernel on two planes). Where there may be a gradient, such maps are
    convolved in float32.

    Args:
        x: (B, C, S, P, L).
        weight: (D, C, s, p, l), in any floating type.
        bias: (D,) or None.
        stride: Along S, P, L.
        padding: Zeros on both sides along S, P, L.
        dilation: Steps between the kernel's voxels along S, P, L.
    """
    small = any(n <= d * (k - 1) + 1 for n, k, d in zip(x.shape[2:], weight.shape[2:], dilation, strict=True))
    unsafe = small and x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.is_grad_enabled()
    dtype = torch.float32 if unsafe else x.dtype
    shift = None if bias is None else bias.to(dtype)
    return F.conv3d(x.to(dtype), weight.to(dtype), shift, stride, padding, dilation).to(x.dtype)
