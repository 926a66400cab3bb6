"""Instance normalisation fused with LeakyReLU, in channels-last layout.

torch's own InstanceNorm copies a channels-last tensor to the contiguous layout and back. Here a sample is
viewed as a matrix of voxels times channels, on which batch normalisation is instance normalisation;
activation and residual sum run in place on the result.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

EPSILON = 1e-5
"""Added to the variance, as in torch.nn.InstanceNorm3d."""

NEGATIVE_SLOPE = 0.01
"""LeakyReLU's slope in the residual blocks of SwinUNETR."""


def norm_act(
    x: Float[Tensor, "B S P L C"],
    residual: Float[Tensor, "B S P L C"] | None = None,
    *,
    normalise_residual: bool = False,
) -> Float[Tensor, "B S P L C"]:
    """Return LeakyReLU(norm(x) + residual), the residual normalised too where asked.

    The norm is instance normalisation without affine parameters: zero mean and unit variance over the
    voxels of each sample and channel, statistics in at least float32. Over a single voxel it would always
    return zero, so there it is left out.

    Args:
        x: Feature map, channels last.
        residual: Feature map of the same shape, or None.
        normalise_residual: Whether the residual goes through the norm before the sum.

    Returns:
        A feature map of x's shape and dtype.
    """
    y: Tensor = _NormAct.apply(x, residual, normalise_residual)  # type: ignore[no-untyped-call]
    return y


class _NormAct(torch.autograd.Function):
    """Keeps the inputs of the norms, the output (whose sign is the activation's) and the statistics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor | None, normalise_residual: bool) -> Tensor:
        x = x.contiguous()
        y, mean, inverse_std = _normalise(x)
        residual_mean = residual_inverse_std = None
        if residual is not None and normalise_residual:
            residual = residual.contiguous()
            normalised, residual_mean, residual_inverse_std = _normalise(residual)
            y.add_(normalised)
        elif residual is not None:
            y.add_(residual)
        y = torch.nn.functional.leaky_relu_(y, NEGATIVE_SLOPE)
        kept = residual if normalise_residual else None
        ctx.save_for_backward(x, y, mean, inverse_std, kept, residual_mean, residual_inverse_std)
        ctx.has_residual = residual is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, mean, inverse_std, residual, residual_mean, residual_inverse_std = ctx.saved_tensors
        # The output of a LeakyReLU has the sign of its input, so the output itself serves.
        grad = torch.ops.aten.leaky_relu_backward(grad.contiguous(), y, NEGATIVE_SLOPE, True)
        grad_x = _normalise_backward(grad, x, mean, inverse_std)
        if residual is not None:
            return grad_x, _normalise_backward(grad, residual, residual_mean, residual_inverse_std), None
        return grad_x, grad if ctx.has_residual else None, None


def _normalise(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised copy of x (B, S, P, L, C), and mean and inverse deviation (B, C)."""
    batch, channels = x.shape[0], x.shape[-1]
    rows = x.reshape(batch, -1, channels)
    if rows.shape[1] == 1:
        return x.clone(), x.new_zeros(batch, channels), x.new_ones(batch, channels)
    # Affine parameters of one in float32 make torch keep the statistics of a bfloat16 input in float32.
    scale = torch.ones(channels, dtype=_statistics_dtype(x), device=x.device)
    offset = torch.zeros_like(scale)
    parts = [
        torch.native_batch_norm(sample, scale, offset, None, None, True, 0.0, EPSILON) for sample in rows
    ]
    if batch == 1:
        y, mean, inverse_std = parts[0]
        return y.view(x.shape), mean[None], inverse_std[None]
    y, mean, inverse_std = (torch.stack(list(column)) for column in zip(*parts, strict=True))
    return y.view(x.shape), mean, inverse_std


def _normalise_backward(grad: Tensor, x: Tensor, mean: Tensor, inverse_std: Tensor) -> Tensor:
    """Return the gradient with respect to x, given that of the normalised output."""
    rows, grads = (a.reshape(a.shape[0], -1, a.shape[-1]) for a in (x, grad))
    if rows.shape[1] == 1:
        return grad
    scale = torch.ones(x.shape[-1], dtype=mean.dtype, device=x.device)
    # Neither weight nor bias has a gradient: only that of the input is asked for.
    wanted = [True, False, False]
    parts = [
        torch.ops.aten.native_batch_norm_backward(g, r, scale, None, None, m, i, True, EPSILON, wanted)[0]
        for g, r, m, i in zip(grads, rows, mean, inverse_std, strict=True)
    ]
    return (parts[0] if len(parts) == 1 else torch.stack(parts)).view(x.shape)


def _statistics_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
