"""The attention product softmax(tau q k + saliency + bias + mask) v over many small windows."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from autospine.network.windows import WindowLayout

FUSED_TOKENS = 128
"""Windows of at least this many tokens go to torch's fused kernel on a CPU without gradients; measured."""


def attend(
    qkv: Float[Tensor, "B W N 3 heads d"],
    factor: Float[Tensor, "B W N heads"],
    saliency: Float[Tensor, "B W N heads"] | None,
    bias: Float[Tensor, "heads N N"],
    layout: WindowLayout,
) -> Float[Tensor, "B W N heads d"]:
    """Return softmax(factor_i q_i k_j + saliency_j + bias_ij + mask_ij) v_j for each query i of each window.

    On a CPU with gradients torch's fused kernel does not apply (its bias may not require a gradient), so the
    product is written out there with the fewest passes over the attention matrix.

    Args:
        qkv: Queries, keys and values.
        factor: Scale of each query's products, 1 / sqrt(d) times the temperature.
        saliency: Logit added for each key, or None.
        bias: Relative position bias, the same in every window.
        layout: The windows, which hold the shift mask.
    """
    bias = bias.to(qkv.dtype)
    if qkv.device.type == "cpu" and (qkv.shape[2] < FUSED_TOKENS or torch.is_grad_enabled()):
        written_out: Tensor = _Attend.apply(  # type: ignore[no-untyped-call]
            qkv, factor, saliency, bias, layout
        )
        return written_out
    batch, windows, _, _, _, d = qkv.shape
    query, key, value = _operands(qkv, factor, saliency, layout)
    padded = F.pad(value, (0, query.shape[-1] - d))
    out = F.scaled_dot_product_attention(query, key, padded, bias[None], scale=1.0)[..., :d]
    return out.transpose(1, 2).unflatten(0, (batch, windows))  # type: ignore[no-any-return, no-untyped-call]


class _Attend(torch.autograd.Function):
    """Attention written out; keeps the probabilities and their factors."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        factor: Tensor,
        saliency: Tensor | None,
        bias: Tensor,
        layout: WindowLayout,
    ) -> Tensor:
        batch, windows, n, _, heads, d = qkv.shape
        query, key, value = (x.flatten(0, 1) for x in _operands(qkv, factor, saliency, layout))
        scores = torch.bmm(query, key.transpose(1, 2)).view(-1, heads, n, n).add_(bias)
        probabilities = torch.softmax(scores, dim=-1).flatten(0, 1)
        ctx.save_for_backward(query, key, value, probabilities, factor)
        ctx.has_saliency = saliency is not None
        out = torch.bmm(probabilities, value).view(batch, windows, heads, n, d)
        return out.transpose(2, 3).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, probabilities, factor = ctx.saved_tensors
        batch, windows, n, heads, d = grad.shape
        split = (batch, windows, heads, n, -1)
        grad = grad.transpose(2, 3).reshape(-1, n, d)
        grad_qkv = grad.new_empty(batch, windows, n, 3, heads, d)
        into = grad_qkv.permute(3, 0, 1, 4, 2, 5)
        into[2].copy_(torch.bmm(probabilities.transpose(1, 2), grad).view(split))
        grad_scores = torch._softmax_backward_data(
            torch.bmm(grad, value.transpose(1, 2)), probabilities, -1, probabilities.dtype
        )
        grad_key = torch.bmm(grad_scores.transpose(1, 2), query).view(split)
        into[1].copy_(grad_key[..., :d])
        grad_query = torch.bmm(grad_scores, key).view(split)[..., :d]
        per_query = factor.transpose(2, 3)[..., None]
        torch.mul(grad_query, per_query, out=into[0])
        grad_factor = grad_saliency = None
        if ctx.needs_input_grad[1]:
            # The kept query is q times the factor.
            product = (grad_query * query.view(split)[..., :d]).sum(-1, keepdim=True)
            grad_factor = (product / per_query)[..., 0].transpose(2, 3)
        if ctx.has_saliency:
            grad_saliency = grad_key[..., d].transpose(2, 3)
        grad_bias = grad_scores.view(-1, heads, n, n).sum(0)
        return grad_qkv, grad_factor, grad_saliency, grad_bias, None


def _operands(
    qkv: Tensor, factor: Tensor, saliency: Tensor | None, layout: WindowLayout
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries and keys (B * W, heads, N, E) with saliency and mask as extra channels, and values."""
    query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)
    queries, keys = [query * factor.transpose(2, 3)[..., None]], [key]
    if saliency is not None:
        keys.append(saliency.transpose(2, 3)[..., None])
        queries.append(query.new_ones(1).expand(keys[1].shape))
    if layout.query_mask is not None and layout.key_mask is not None:
        shape = (*query.shape[:4], -1)
        queries.append(layout.query_mask.to(query.dtype)[None, :, None].expand(shape))
        keys.append(layout.key_mask.to(key.dtype)[None, :, None].expand(shape))
    return (
        torch.cat(queries, dim=-1).flatten(0, 1),
        torch.cat(keys, dim=-1).flatten(0, 1),
        value.flatten(0, 1),
    )
