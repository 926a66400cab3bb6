"""The 3D convolution of all parts of the network, and that of an up-sampled feature map.

Transposed convolution with kernel and stride 2 followed by a 3x3x3 convolution is linear: each of the eight
voxels of a coarse cell is a 2x2x2 convolution of the coarse map with a kernel composed of the two. That takes
64 multiplications per coarse voxel and pair of channels where the two steps take 224, and keeps no up-sampled
map for the backward pass.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from autospine.core.types import Shape3
from autospine.network.constants import constant

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

    On a CPU float32 goes to oneDNN at once: torch thinks its own kernels faster for a single image of few
    voxels, by a rule made for two dimensions, and they take three to nineteen times as long.

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
        one_dnn = _OneDNN.apply if torch.is_grad_enabled() else _by_onednn
        mapped: Tensor = one_dnn(x.to(dtype), weight.to(dtype), shift, stride, padding, dilation)
        return mapped.to(x.dtype)
    return F.conv3d(x.to(dtype), weight.to(dtype), shift, stride, padding, dilation).to(x.dtype)


def convolve_upsampled(
    x: Float[Tensor, "B s p l C"],
    transposed: Float[Tensor, "C M 2 2 2"],
    weight: Float[Tensor, "D 3 3 3 M"],
    addend: Float[Tensor, "B S P L D"] | None = None,
) -> Float[Tensor, "B S P L D"]:
    """Return the zero-padded convolution with `weight` of x up-sampled by `transposed`, at twice x's size.

    Args:
        x: Coarse feature map.
        transposed: Kernel of the up-sampling.
        weight: Kernel of the convolution.
        addend: Added to the result; its memory is that of the result, so that nothing else may use it.
    """
    kernel = _compose(transposed, weight)
    coarse = conv3d(x.permute(0, 4, 1, 2, 3), kernel.permute(0, 4, 1, 2, 3), padding=(1, 1, 1))
    coarse = coarse.permute(0, 2, 3, 4, 1)
    if torch.compiler.is_compiling():
        joined = interleaved(coarse)
        return joined if addend is None else addend + joined
    fine: Tensor = _Interleave.apply(coarse, addend)  # type: ignore[no-untyped-call]
    return fine


def _overlooks_onednn(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether torch would not take oneDNN although it can be taken."""
    small = len(x) == 1 and x.shape[1] * x.shape[2] * x.shape[3] <= OVERLOOKED
    single = x.device.type == "cpu" and dtype == torch.float32
    plain = not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
    return small and single and plain and ONEDNN


def _by_onednn(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Shape3, padding: Shape3, dilation: Shape3
) -> Tensor:
    return torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, 1)


class _OneDNN(torch.autograd.Function):
    """Convolution by oneDNN in both directions, for maps that torch gives to its own kernels.

    In the backward pass torch takes oneDNN for tensors in oneDNN's own layout, whatever their size.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Shape3,
        padding: Shape3,
        dilation: Shape3,
    ) -> Tensor:
        """Convolve, and keep what the gradients need."""
        ctx.save_for_backward(x, weight)
        ctx.steps, ctx.has_bias = (stride, padding, dilation), bias is not None
        return _by_onednn(x, weight, bias, stride, padding, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the map, the kernel and the bias."""
        x, weight = ctx.saved_tensors
        wanted = (*ctx.needs_input_grad[:2], False)
        of_map, of_kernel, _ = torch.ops.aten.convolution_backward(
            *(gradient.to_mkldnn(), x.to_mkldnn(), weight, None),
            *(*ctx.steps, False, (0, 0, 0), 1, wanted),
        )
        of_map = (
            None if of_map is None else of_map.to_dense().contiguous(memory_format=torch.channels_last_3d)
        )
        of_bias = gradient.sum(dim=(0, 2, 3, 4)) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return of_map, of_kernel, of_bias, None, None, None


def _compose(transposed: Tensor, weight: Tensor) -> Tensor:
    """Return the coarse kernel (8 D, 2, 2, 2, C), its outputs ordered by the parities (S, P, L), then D."""
    c, m = transposed.shape[:2]
    d = weight.shape[0]
    products = weight.reshape(-1, m) @ transposed.transpose(0, 1).reshape(m, -1)
    products = products.view(d, 27, c, 8).transpose(1, 2).reshape(d * c, 216)
    kernel = products @ _meetings(device=weight.device)[0].to(weight.dtype)
    return kernel.view(d, c, 8, 2, 2, 2).permute(2, 0, 3, 4, 5, 1).reshape(8 * d, 2, 2, 2, c)


@constant
def _meetings() -> tuple[Tensor]:
    """Return (216, 64): whether a pair of fine taps is part of an output parity's coarse tap, on all axes.

    Rows are (fine tap (S, P, L), parity of the up-sampled voxel), columns (output parity, coarse tap). On one
    axis, parity p and coarse tap t meet fine tap d and parity r where 2 (t + p - 1) + r = p + d - 1.
    """
    sizes = (2, 2, 3, 2)
    p, t, d, r = torch.meshgrid(*(torch.arange(n) for n in sizes), indexing="ij")
    axis = (2 * (t + p - 1) + r == p + d - 1).float()
    joint = torch.einsum("ptdr,ques,vwfx->defrsxpqvtuw", axis, axis, axis)
    return (joint.reshape(216, 64),)


def interleaved(coarse: Float[Tensor, "B c1 c2 c3 D8"]) -> Float[Tensor, "B S P L D"]:
    """Return the parts of (B, s + 1, p + 1, l + 1, 8 D) interleaved to (B, S, P, L, D).

    This is for a compiler, for which a part that is written in place is a pass through the whole map.
    """
    parts = torch.stack(_parities(coarse), dim=4)
    batch, s, p, left, _, d = parts.shape
    cells = parts.view(batch, s, p, left, 2, 2, 2, d).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return cells.reshape(batch, 2 * s, 2 * p, 2 * left, d)


class _Interleave(torch.autograd.Function):
    """Interleaves the eight parts of (B, s + 1, p + 1, l + 1, 8 D) to (B, S, P, L, D), adding another map."""

    @staticmethod
    def forward(ctx: Any, coarse: Tensor, addend: Tensor | None) -> Tensor:
        """Put each part at its places in the fine tensor, or add it there."""
        ctx.shape, ctx.has_addend = coarse.shape, addend is not None
        batch, s, p, left, channels = coarse.shape
        if addend is not None:
            # Detached, as torch has to copy a map and its gradient for what changes a view of it in place.
            fine = addend.detach()
            for source, target in _places(coarse, fine):
                target.add_(source)
            return fine
        fine = coarse.new_empty(batch, 2 * s - 2, 2 * p - 2, 2 * left - 2, channels // 8)
        for source, target in _places(coarse, fine):
            target.copy_(source)
        return fine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the gradient of the parts, zero where a part reaches over the edge."""
        coarse = grad.new_zeros(ctx.shape)
        for target, source in _places(coarse, grad):
            target.copy_(source)
        return coarse, grad if ctx.has_addend else None


def _places(coarse: Tensor, fine: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """Return views of the coarse tensor and of the fine one that belong together.

    On a CPU these are eight pairs, one for each parity; on a GPU all parities are one view.
    """
    if fine.device.type == "cpu":
        return zip(_parities(coarse), _cells(fine), strict=True)
    return [interleaved_views(coarse, fine)]


def interleaved_views(
    coarse: Float[Tensor, "B c1 c2 c3 D8"], fine: Float[Tensor, "B S P L D"]
) -> tuple[Float[Tensor, "B s 2 p 2 l 2 D"], Float[Tensor, "B s 2 p 2 l 2 D"]]:
    """Return a view of each tensor in which all parts of the coarse one are at their places in the fine one.

    A part of parity 1 begins one voxel later, so that along each axis a step of the parity is a step of the
    voxel and one of the part.
    """
    batch, *sizes, d = fine.shape
    shape = [batch, *(n for size in sizes for n in (size // 2, 2)), d]
    coarse, fine = coarse.contiguous(), fine.contiguous()
    steps = [coarse.stride(0)]
    for axis, part in zip((1, 2, 3), (4 * d, 2 * d, d), strict=True):
        steps += [coarse.stride(axis), coarse.stride(axis) + part]
    return coarse.as_strided(shape, [*steps, 1]), fine.view(shape)


def _parities(coarse: Tensor) -> list[Tensor]:
    """Return the view (B, s, p, l, D) of each parity."""
    s, p, left = (n - 1 for n in coarse.shape[1:4])
    views = []
    for parity, part in enumerate(coarse.chunk(8, dim=-1)):
        i, j, k = parity // 4, parity // 2 % 2, parity % 2
        views.append(part[:, i : i + s, j : j + p, k : k + left])
    return views


def _cells(fine: Tensor) -> list[Tensor]:
    """Return the view (B, s, p, l, D) of each voxel of the cells."""
    return [fine[:, i::2, j::2, k::2] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
