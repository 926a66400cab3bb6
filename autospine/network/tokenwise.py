"""Layers that treat every token by itself, computed in the tokens' dtype and in the fastest way there is."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from autospine.network.normalisation import EPSILON

MANY_TOKENS = 1024
"""Tokens from which a convolution is faster than a matrix product on a CPU."""

_ROWS = (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)


def linear(
    x: Float[Tensor, "*N C"], weight: Float[Tensor, "D C"], bias: Float[Tensor, "D"] | None = None
) -> Float[Tensor, "*N D"]:
    """Return x @ weight.T + bias.

    On a CPU many tokens go through a 1x1 convolution: torch's matrix products take up to three times as long
    where rows are as short as here, and twice as long in the backward pass.
    """
    weight = weight.to(x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    tokens, channels = x.numel() // x.shape[-1], x.shape[-1]
    # With a single channel the convolution cannot tell that channels lie last, and copies its output.
    if x.device.type != "cpu" or x.dtype == torch.float64 or tokens < MANY_TOKENS or channels == 1:
        return F.linear(x, weight, bias)
    rows = next(n for n in _ROWS if tokens % n == 0)
    picture = x.reshape(1, rows, tokens // rows, channels).permute(0, 3, 1, 2)
    y = F.conv2d(picture, weight[..., None, None], bias).permute(0, 2, 3, 1)
    return y.reshape(*x.shape[:-1], len(weight))


def add_linear(
    total: Float[Tensor, "*N D"], x: Float[Tensor, "*N C"], weight: Float[Tensor, "D C"]
) -> Float[Tensor, "*N D"]:
    """Return total + x @ weight.T in the memory of `total`, which nothing else may use.

    On a GPU the product is added as it is computed.
    """
    if total.device.type == "cpu" or torch.compiler.is_compiling():
        return total + linear(x, weight)
    return add_product(total, x, weight.to(x.dtype))


def add_product(
    total: Float[Tensor, "*N D"], x: Float[Tensor, "*N C"], weight: Float[Tensor, "D C"]
) -> Float[Tensor, "*N D"]:
    """Return the same by a single matrix product that adds to what is there."""
    y: Tensor = _AddLinear.apply(total, x, weight)  # type: ignore[no-untyped-call]
    return y


class _AddLinear(torch.autograd.Function):
    """Matrix product that is added in place to a map, which the backward pass does not need."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Add x times the transposed weight to `total`."""
        ctx.save_for_backward(x, weight)
        # Detached, as torch has to copy a map and its gradient for what changes a view of it in place.
        y = total.detach()
        y.view(-1, y.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), weight.t())
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        return grad, (rows @ weight).view(x.shape), rows.t() @ x.reshape(-1, x.shape[-1])


def layer_norm(x: Float[Tensor, "*N C"], norm: nn.LayerNorm | None = None) -> Float[Tensor, "*N C"]:
    """Return the layer norm over the channels, without affine parameters where no layer is given.

    Statistics and gradients are in float32 at least; so are they within a GPU's own kernel for 16 bits.
    """
    weight, bias, epsilon = (None, None, EPSILON) if norm is None else (norm.weight, norm.bias, norm.eps)
    if x.device.type != "cpu" or x.dtype not in (torch.bfloat16, torch.float16):
        return F.layer_norm(x, x.shape[-1:], _cast(weight, x.dtype), _cast(bias, x.dtype), epsilon)
    y: Tensor = _HalfLayerNorm.apply(x, weight, bias, epsilon)  # type: ignore[no-untyped-call]
    return y


class _HalfLayerNorm(torch.autograd.Function):
    """Layer norm of half precision that computes in float32 and keeps its input in half precision.

    torch's own takes half precision too, but on a CPU twice as long forwards and ten times backwards.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float) -> Tensor:
        gain, shift = _cast(weight, torch.float32), _cast(bias, torch.float32)
        y, mean, inverse_std = torch.native_layer_norm(x.float(), x.shape[-1:], gain, shift, epsilon)
        ctx.save_for_backward(x, weight, bias, mean, inverse_std)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients in the precision of what they belong to, computed in float32."""
        x, weight, bias, mean, inverse_std = ctx.saved_tensors
        gain, shift = _cast(weight, torch.float32), _cast(bias, torch.float32)
        wanted = [True, weight is not None, bias is not None]
        grads = torch.ops.aten.native_layer_norm_backward(
            grad.float(), x.float(), x.shape[-1:], mean, inverse_std, gain, shift, wanted
        )
        given = (x, weight, bias)
        return (*(g if p is None else g.to(p.dtype) for p, g in zip(given, grads, strict=True)), None)


def _cast(parameter: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if parameter is None else parameter.to(dtype)
