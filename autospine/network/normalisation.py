"""Instance normalisation: fused with LeakyReLU in channels-last layout, and plain in channels-first layout.

The Swin UNETR keeps channels last and uses `norm_act`. torch's own InstanceNorm copies a channels-last tensor
to the contiguous layout and back. Here a sample is viewed as a matrix of voxels times channels, on which
batch normalisation is instance normalisation; activation and residual sum run in place on the result. The
networks that it is compared with have affine norms, on a CPU with channels first: `instance_norm` is theirs.

A CPU sums wide rows in its own way (`_normalise_rows`). A GPU has a kernel of batch normalisation for this
layout, whose statistics are float32 and which needs neither weight nor bias (`normalise_samples`). The
compared networks have channels last there too, with weight and bias in the same call.
"""

from collections.abc import Sequence
from math import gcd, prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

EPSILON = 1e-5
"""Added to the variance by every norm here, as in nnU-Net and in torch's InstanceNorm3d and LayerNorm."""

NEGATIVE_SLOPE = 0.01
"""Slope of every LeakyReLU, as in nnU-Net and in the residual blocks of SwinUNETR."""

_FOLDS = (64, 32, 16, 8, 4, 2, 1)

_NO_PARAMETERS = (None, None, None, None)
"""No weight, bias or running statistics."""

PARTS, MANY_VOXELS = 1024, 2**14
"""Parts that a GPU sums up by themselves, enough to fill it, and voxels from which a map has them."""

Norm = tuple[Float[Tensor, "B voxels C"], Float[Tensor, "B C"], Float[Tensor, "B C"]]
"""Input, mean and inverse deviation of a norm."""


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


def instance_norm(
    x: Float[Tensor, "B C S P L"], weight: Float[Tensor, "C"], bias: Float[Tensor, "C"]
) -> Float[Tensor, "B C S P L"]:
    """Return the affine instance norm of a map, in its dtype and, on a GPU, its memory format.

    Over a single voxel, where the norm would always return the bias, it is left out.
    """
    if lies_last(x) and prod(x.shape[2:]) > 1:
        if torch.compiler.is_compiling():
            y = normalise_together(_rows(x.movedim(1, -1)))[0] * weight + bias
            return y.to(x.dtype).view(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)
        affine: Tensor = _AffineNorm.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return affine
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    if prod(x.shape[2:]) == 1:
        shape = (1, -1, 1, 1, 1)
        return x * weight.view(shape) + bias.view(shape)
    # Group norm with a channel per group: the same, and unlike instance norm it does not copy a batch.
    return torch.group_norm(x, x.shape[1], weight, bias, EPSILON)


def lies_last(x: Float[Tensor, "B C S P L"]) -> bool:
    """Whether a map's channels lie last in the memory of a GPU; of both formats at once, it has the first.

    A CPU keeps channels first whatever the format of the map is.
    """
    last = x.is_contiguous(memory_format=torch.channels_last_3d)
    return x.device.type != "cpu" and last and x.stride(1) == 1


class _AffineNorm(torch.autograd.Function):
    """Affine instance norm of a map with channels last: one call of batch normalisation for each sample."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "B C S P L"], weight: Float[Tensor, "C"], bias: Float[Tensor, "C"]
    ) -> Float[Tensor, "B C S P L"]:
        """Normalise each sample into its part of the result, so that no copy puts them together."""
        y = torch.empty_like(x)
        mean = x.new_empty(x.shape[:2], dtype=_statistics_dtype(x))
        inverse_std = torch.empty_like(mean)
        samples = zip(_rows(x.movedim(1, -1)), _rows(y.movedim(1, -1)), mean, inverse_std, strict=True)
        for sample, *out in samples:
            torch.native_batch_norm(sample, weight, bias, None, None, True, 0.0, EPSILON, out=tuple(out))
        ctx.save_for_backward(x, weight, mean, inverse_std)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "B C S P L"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of the map, the weight and the bias."""
        x, weight, mean, inverse_std = ctx.saved_tensors
        samples = zip(
            *(_rows(part.movedim(1, -1).contiguous()) for part in (grad, x)), mean, inverse_std, strict=True
        )
        parts: list[tuple[Tensor, Tensor, Tensor]] = [
            torch.ops.aten.native_batch_norm_backward(
                *(g, r, weight, None, None, m, i, True, EPSILON, [True, True, True])
            )
            for g, r, m, i in samples
        ]
        maps, weights, biases = zip(*parts, strict=True)
        of_rows = maps[0][None] if len(maps) == 1 else torch.stack(maps)
        of_map = of_rows.view(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)
        of_weight, of_bias = torch.stack([*weights, *biases]).view(2, *mean.shape).sum(1)
        return of_map, of_weight, of_bias


class _NormAct(torch.autograd.Function):
    """Keeps the inputs of the norms, the output (whose sign is the activation's) and the statistics."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "B S P L C"],
        residual: Float[Tensor, "B S P L C"] | None,
        normalise_residual: bool,
    ) -> Float[Tensor, "B S P L C"]:
        """Compute `norm_act`; sum and activation run in place on the normalised map."""
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
    def backward(ctx: Any, grad: Float[Tensor, "B S P L C"]) -> tuple[Tensor | None, ...]:
        """The gradients of `x` and `residual`, each from its input and the statistics of the norm."""
        x, y, mean, inverse_std, residual, residual_mean, residual_inverse_std = ctx.saved_tensors
        if _is_joined(x) and (residual is not None or not ctx.has_residual):
            norms = [(x, mean, inverse_std)]
            if residual is not None:
                norms.append((residual, residual_mean, residual_inverse_std))
            grads = norm_act_together_backward(_rows(grad), [(_rows(a), m, i) for a, m, i in norms])
            grad_x, grad_residual = (*(g.view(x.shape) for g in grads), None)[:2]
            return grad_x, grad_residual, None
        # The output of a LeakyReLU has the sign of its input, so the output itself serves.
        grad = torch.ops.aten.leaky_relu_backward(grad.contiguous(), y, NEGATIVE_SLOPE, True)
        grad_x = _normalise_backward(grad, x, mean, inverse_std)
        if residual is not None:
            return grad_x, _normalise_backward(grad, residual, residual_mean, residual_inverse_std), None
        return grad_x, grad if ctx.has_residual else None, None


def normalise_samples(
    x: Float[Tensor, "B voxels C"],
) -> tuple[Float[Tensor, "B voxels C"], Float[Tensor, "B C"], Float[Tensor, "B C"]]:
    """Return the normalised copy, and mean and inverse deviation of each sample and channel.

    Each sample is one call of batch normalisation that writes into its part of the result. The statistics of
    16-bit maps are float32 on a GPU.
    """
    if torch.compiler.is_compiling():
        return normalise_together(x)
    y = torch.empty_like(x)
    mean = x.new_empty(x.shape[0], x.shape[2], dtype=_statistics_dtype(x))
    inverse_std = torch.empty_like(mean)
    for i, sample in enumerate(x):
        out = (y[i], mean[i], inverse_std[i])
        torch.native_batch_norm(sample, *_NO_PARAMETERS, True, 0.0, EPSILON, out=out)
    return y, mean, inverse_std


def normalise_samples_backward(
    grad: Float[Tensor, "B voxels C"],
    x: Float[Tensor, "B voxels C"],
    mean: Float[Tensor, "B C"],
    inverse_std: Float[Tensor, "B C"],
) -> Float[Tensor, "B voxels C"]:
    """Return the gradient with respect to the input of `normalise_samples`, given that of its output."""
    if torch.compiler.is_compiling():
        return normalise_together_backward(grad, x, mean, inverse_std)
    parts = [
        torch.ops.aten.native_batch_norm_backward(
            # Neither weight nor bias has a gradient: only that of the input is asked for.
            *(g, r, None, None, None, m, i, True, EPSILON, [True, False, False])
        )[0]
        for g, r, m, i in zip(grad, x, mean, inverse_std, strict=True)
    ]
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)


def normalise_together(
    x: Float[Tensor, "B voxels C"],
) -> tuple[Float[Tensor, "B voxels C"], Float[Tensor, "B C"], Float[Tensor, "B C"]]:
    """Return what `normalise_samples` returns, written out for a compiler."""
    wide = x.to(_statistics_dtype(x))
    variance, mean = torch.var_mean(wide, dim=1, keepdim=True, correction=0)
    inverse_std = (variance + EPSILON).rsqrt()
    return ((wide - mean) * inverse_std).to(x.dtype), mean[:, 0], inverse_std[:, 0]


def normalise_together_backward(
    grad: Float[Tensor, "B voxels C"],
    x: Float[Tensor, "B voxels C"],
    mean: Float[Tensor, "B C"],
    inverse_std: Float[Tensor, "B C"],
) -> Float[Tensor, "B voxels C"]:
    """Return the gradient with respect to the input of `normalise_together`, likewise for a compiler."""
    return _norms_backward(grad, [(x, mean, inverse_std)])[0]


def norm_act_together_backward(grad: Float[Tensor, "B voxels C"], norms: Sequence[Norm]) -> list[Tensor]:
    """Return the gradients of the inputs of one or two norms, whose sum goes through LeakyReLU.

    What went into the activation is computed anew, since a compiler has the inputs at hand anyway and then
    reads one map less, twice.

    Args:
        grad: Gradient of the activation's output.
        norms: The norms.
    """
    total, *others = _normalised(norms)
    for other in others:
        total = total + other
    return _norms_backward(torch.where(total > 0, grad, grad * NEGATIVE_SLOPE), norms)


def _normalised(norms: Sequence[Norm]) -> list[Float[Tensor, "B voxels C"]]:
    """Return what each norm returned, in the type of the statistics."""
    return [(x.to(mean.dtype) - mean[:, None]) * scale[:, None] for x, mean, scale in norms]


def _norms_backward(grad: Float[Tensor, "B voxels C"], norms: Sequence[Norm]) -> list[Tensor]:
    """Return the gradients of the inputs of norms whose outputs have the same gradient."""
    wide = grad.to(norms[0][1].dtype)
    normalised = _normalised(norms)
    sums = _voxel_sums(wide, *(wide * n for n in normalised))
    alone, *with_x = (each[:, None] / grad.shape[1] for each in sums)
    return [
        ((wide - alone - n * share) * scale[:, None]).to(x.dtype)
        for (x, _, scale), n, share in zip(norms, normalised, with_x, strict=True)
    ]


def _voxel_sums(*maps: Float[Tensor, "B voxels C"]) -> Sequence[Float[Tensor, "B C"]]:
    """Return the sum of each map over its voxels; of large maps in two launches, however many there are."""
    batch, voxels, channels = maps[0].shape
    if voxels < MANY_VOXELS:
        return [each.sum(1) for each in maps]
    parts = gcd(voxels, PARTS)
    # Each sum writes its part of one tensor, which the second launch then reads as a whole.
    partial = [each.view(batch, parts, -1, channels).sum(2).mT for each in maps]
    return torch.stack(partial, dim=1).sum(-1).unbind(1)


def _normalise(
    x: Float[Tensor, "B S P L C"],
) -> tuple[Float[Tensor, "B S P L C"], Float[Tensor, "B C"], Float[Tensor, "B C"]]:
    """Return the normalised copy of x, and mean and inverse deviation of each sample and channel."""
    batch, channels = x.shape[0], x.shape[-1]
    rows = _rows(x)
    if rows.shape[1] == 1:
        return x.clone(), x.new_zeros(batch, channels), x.new_ones(batch, channels)
    if x.device.type != "cpu":
        y, mean, inverse_std = normalise_samples(rows)
        return y.view(x.shape), mean, inverse_std
    parts = [_normalise_rows(sample) for sample in rows]
    if batch == 1:
        y, mean, inverse_std = parts[0]
        return y.view(x.shape), mean[None], inverse_std[None]
    y, mean, inverse_std = (torch.stack(list(column)) for column in zip(*parts, strict=True))
    return y.view(x.shape), mean, inverse_std


def _normalise_backward(
    grad: Float[Tensor, "B S P L C"],
    x: Float[Tensor, "B S P L C"],
    mean: Float[Tensor, "B C"],
    inverse_std: Float[Tensor, "B C"],
) -> Float[Tensor, "B S P L C"]:
    """Return the gradient with respect to x, given that of the normalised output."""
    rows, grads = _rows(x), _rows(grad)
    if rows.shape[1] == 1:
        return grad
    if x.device.type != "cpu":
        return normalise_samples_backward(grads, rows, mean, inverse_std).view(x.shape)
    parts = [
        _normalise_rows_backward(g, r, m, i)
        for g, r, m, i in zip(grads, rows, mean, inverse_std, strict=True)
    ]
    return (parts[0] if len(parts) == 1 else torch.stack(parts)).view(x.shape)


def _is_joined(x: Float[Tensor, "B S P L C"]) -> bool:
    """Whether a compiler for a GPU joins what is written out here; a map of one voxel has no norm."""
    return torch.compiler.is_compiling() and x.device.type != "cpu" and prod(x.shape[1:4]) > 1


def _rows(x: Float[Tensor, "B S P L C"]) -> Float[Tensor, "B voxels C"]:
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _normalise_rows(
    x: Float[Tensor, "voxels C"],
) -> tuple[Float[Tensor, "voxels C"], Float[Tensor, "C"], Float[Tensor, "C"]]:
    """Return the normalised copy of one sample, and mean and inverse deviation of each channel."""
    channels = x.shape[-1]
    folded, fold = _folded(x)
    ones, zeros = _ones_and_zeros(channels * fold, x)
    # Running statistics in float32, though unused, make torch compute those of a bfloat16 input in float32.
    means, variances = (
        part.view(fold, channels) for part in torch.batch_norm_update_stats(folded, zeros, ones, 0.0)
    )
    mean = means.mean(0)
    inverse_std = (variances.mean(0) + (means - mean).square().mean(0) + EPSILON).rsqrt()
    return _affine(folded, fold, inverse_std, -mean * inverse_std).view(x.shape), mean, inverse_std


def _normalise_rows_backward(
    grad: Float[Tensor, "voxels C"],
    x: Float[Tensor, "voxels C"],
    mean: Float[Tensor, "C"],
    inverse_std: Float[Tensor, "C"],
) -> Float[Tensor, "voxels C"]:
    """Return the gradient with respect to one sample (voxels, C)."""
    voxels, channels = x.shape
    folded, fold = _folded(x)
    grad, _ = _folded(grad)
    ones, zeros = _ones_and_zeros(channels * fold, x)
    # The gradients of weight and bias are the two sums that the gradient of the input needs.
    _, with_x, alone = torch.ops.aten.native_batch_norm_backward(
        grad, folded, ones, zeros, ones, None, None, False, 0.0, [False, True, True]
    )
    with_x, alone = (part.view(fold, channels).sum(0) / voxels for part in (with_x, alone))
    slope = -inverse_std.pow(3) * (with_x - mean * alone)
    result = _affine(folded, fold, slope, -slope * mean - inverse_std * alone)
    return result.add_(_affine(grad, fold, inverse_std, torch.zeros_like(mean))).view(x.shape)


def _folded(x: Float[Tensor, "voxels C"]) -> tuple[Float[Tensor, "rows columns"], int]:
    """Return rows (voxels, C) with several voxels side by side in a row, and their number.

    Wide rows fill vector registers, and their columns are short enough for sums in float32 to stay exact to
    about 1e-6. At least two rows are left: torch writes NaN into its running variance for a single one, and
    compilers may merge the tensor that stands for it with others that are equal at first.
    """
    fold = next(n for n in _FOLDS if x.shape[0] % n == 0 and x.shape[0] > n)
    return x.view(-1, fold * x.shape[1]), fold


def _affine(
    folded: Float[Tensor, "rows columns"], fold: int, scale: Float[Tensor, "C"], offset: Float[Tensor, "C"]
) -> Float[Tensor, "rows columns"]:
    """Return scale * x + offset per channel; torch's own product and sum broadcast slowly in bfloat16."""
    ones, zeros = _ones_and_zeros(folded.shape[1], folded)
    return torch.native_batch_norm(
        folded, scale.repeat(fold), offset.repeat(fold), zeros, ones, False, 0.0, 0.0
    )[0]


def _ones_and_zeros(
    length: int, like: Float[Tensor, "rows columns"]
) -> tuple[Float[Tensor, "length"], Float[Tensor, "length"]]:
    """Return two vectors in the dtype of statistics, at least float32."""
    ones = torch.ones(length, dtype=_statistics_dtype(like), device=like.device)
    return ones, torch.zeros_like(ones)


def _statistics_dtype(x: Tensor) -> torch.dtype:
    """Return at least float32."""
    return torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
