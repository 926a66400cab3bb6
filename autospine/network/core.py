"""The attention product softmax(q k + bias) v over many small windows."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

FUSED_TOKENS = 128
"""Windows of at least this many tokens go to torch's fused kernel on a CPU without gradients; measured."""


def attend(
    query: Float[Tensor, "W heads N E"],
    key: Float[Tensor, "W heads N E"],
    value: Float[Tensor, "W heads N D"],
    bias: Float[Tensor, "heads N N"],
) -> Float[Tensor, "W heads N D"]:
    """Return softmax(query key^T + bias) value per window and head.

    The scale belongs to the query already. On a CPU with gradients torch's fused kernel does not
    apply (its bias may not require a gradient), so the product is written out there with the fewest passes
    over the attention matrix.

    Args:
        query: Scaled queries, with any extra channels.
        key: Keys, with the matching extra channels.
        value: Values.
        bias: Relative position bias, the same in every window.
    """
    fused = query.device.type != "cpu" or (query.shape[2] >= FUSED_TOKENS and not torch.is_grad_enabled())
    if fused:
        extra = query.shape[-1] - value.shape[-1]
        padded = F.pad(value, (0, extra)) if extra else value
        out = F.scaled_dot_product_attention(query, key, padded, bias.to(query.dtype)[None], scale=1.0)
        return out[..., : value.shape[-1]]
    written_out: Tensor = _Attend.apply(  # type: ignore[no-untyped-call]
        query, key, value, bias.to(query.dtype)
    )
    return written_out


class _Attend(torch.autograd.Function):
    """Attention written out; keeps the probabilities only."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        windows, heads, n, _ = query.shape
        query, key, value = (x.flatten(0, 1) for x in (query, key, value))
        scores = torch.bmm(query, key.transpose(1, 2)).view(windows, heads, n, n)
        probabilities = torch.softmax(scores.add_(bias), dim=-1).flatten(0, 1)
        ctx.save_for_backward(query, key, value, probabilities)
        return torch.bmm(probabilities, value).view(windows, heads, n, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        query, key, value, probabilities = ctx.saved_tensors
        windows, heads, n, _ = grad.shape
        grad = grad.flatten(0, 1)
        grad_value = torch.bmm(probabilities.transpose(1, 2), grad)
        grad_scores = torch._softmax_backward_data(
            torch.bmm(grad, value.transpose(1, 2)), probabilities, -1, probabilities.dtype
        )
        grad_bias = grad_scores.view(windows, heads, n, n).sum(0)
        grad_query = torch.bmm(grad_scores, key)
        grad_key = torch.bmm(grad_scores.transpose(1, 2), query)
        gradients = (grad_query, grad_key, grad_value)
        return *(g.view(windows, heads, n, -1) for g in gradients), grad_bias
