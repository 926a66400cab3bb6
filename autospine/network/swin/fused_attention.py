"""Attention within windows on a GPU, by PyTorch's memory-efficient kernel.

The kernel is called by its own name, so that training and prediction take the same one: left to choose, torch
takes another where nothing requires a gradient. Saliency and shift mask ride as further channels of queries
and keys. The kernel writes the gradient of the bias for every window, a number per pair of tokens, so that
the backward pass goes through a few windows at a time and adds up what they give.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from autospine.network.swin.windows import WindowLayout

ALIGNMENT = 8
"""Multiple of channels, and of the keys in a row of the bias, that the kernel requires."""

BIAS_GRADIENT_BYTES = 3 * 2**27
"""Bytes that the gradient of the bias may take at once in the backward pass: 256 windows of 512 tokens and
three heads in 16 bits."""

HeadTokens = Float[Tensor, "W heads N _"]
"""Queries, keys, values or products of the windows W of all samples."""

PairBias = Float[Tensor, "heads N N"]
"""Bias of each pair of tokens; in the kernel the rows have a pitch of a multiple of `ALIGNMENT`."""


def attend_fused(
    qkv: Float[Tensor, "B W N 3 heads d"],
    factor: Float[Tensor, "B W N heads"] | float,
    saliency: Float[Tensor, "B W N heads"] | None,
    bias: PairBias,
    layout: WindowLayout,
) -> Float[Tensor, "B W N heads d"]:
    """Return the attended values; the arguments are those of `attention_core.attend`."""
    number, tensor = (factor, None) if isinstance(factor, float) else (1.0, factor)
    product: Tensor = _FusedAttention.apply(  # type: ignore[no-untyped-call]
        qkv, number, tensor, saliency, bias, layout.query_mask, layout.key_mask
    )
    return product


class _FusedAttention(torch.autograd.Function):
    """Keeps queries and keys with what rides in them, queries, keys and values as given, and the product."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Float[Tensor, "B W N 3 heads d"],
        number: float,
        factor: Float[Tensor, "B W N heads"] | None,
        saliency: Float[Tensor, "B W N heads"] | None,
        bias: PairBias,
        query_mask: Float[Tensor, "W N 6"] | None,
        key_mask: Float[Tensor, "W N 6"] | None,
    ) -> Float[Tensor, "B W N heads d"]:
        """Compute `attend_fused`; the scale of queries is a number, or a tensor if that is given."""
        query, key, value = qkv.unbind(3)
        scaled = query * (number if factor is None else factor[..., None])
        filled = _widened(
            scaled, query_mask, None if saliency is None else torch.ones_like(saliency[..., :1])
        )
        widened = _widened(key, key_mask, saliency)
        q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in (filled, widened, value))
        rows = F.pad(bias.to(q.dtype), (0, -bias.shape[-1] % ALIGNMENT))
        kernel = run_kernel if has_kernel(q) else run_plainly
        out, *kept = kernel(q, k, v, _expanded(rows, q), any(ctx.needs_input_grad))
        ctx.save_for_backward(qkv, factor, q, k, rows, out, *kept)
        ctx.number, ctx.is_salient, ctx.bias_dtype = number, saliency is not None, bias.dtype
        ctx.riding = 0 if query_mask is None else query_mask.shape[-1]
        return out.transpose(1, 2).view(*qkv.shape[:3], *qkv.shape[4:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "B W N heads d"]) -> tuple[Tensor | None, ...]:
        """Return the gradients, a few windows at a time."""
        qkv, factor, q, k, rows, out, *kept = ctx.saved_tensors
        d, n = qkv.shape[-1], qkv.shape[2]
        grads = torch.empty_like(qkv, memory_format=torch.contiguous_format)
        to_queries, to_keys, to_values = (x.flatten(0, 1) for x in grads.unbind(3))
        to_saliency = q.new_empty(*to_keys.shape[:-1]) if ctx.is_salient else None
        to_factor = None if factor is None else torch.empty_like(to_keys[..., 0])
        to_bias: Tensor | None = None
        queries, _, values = (x.flatten(0, 1) for x in qkv.unbind(3))
        grad = grad.flatten(0, 1)
        kernel: Callable[..., tuple[Tensor, ...]] = (
            run_kernel_backward if has_kernel(q) else run_plainly_backward
        )
        at_once = max(1, BIAS_GRADIENT_BYTES // (rows.shape[0] * n * rows.shape[-1] * rows.element_size()))
        for first in range(0, len(q), at_once):
            part = slice(first, first + at_once)
            operands = (q[part], k[part], values[part].transpose(1, 2), _expanded(rows, q[part]))
            forward = (out[part], kept[0][part], *kept[1:])
            gq, gk, gv, gb = kernel(grad[part].transpose(1, 2), *operands, *forward)
            gq, gk, gv = (x.transpose(1, 2) for x in (gq, gk, gv))
            scale = ctx.number if factor is None else factor.flatten(0, 1)[part][..., None]
            _multiply(gq[..., :d], scale, to_queries[part])
            to_keys[part].copy_(gk[..., :d])
            to_values[part].copy_(gv)
            if to_saliency is not None:
                to_saliency[part].copy_(gk[..., d + ctx.riding])
            if to_factor is not None:
                to_factor[part].copy_((gq[..., :d] * queries[part]).sum(-1))
            gb = gb[..., :n].sum(0, dtype=ctx.bias_dtype)
            to_bias = gb if to_bias is None else to_bias.add_(gb)
        shape = qkv.shape[:3]
        return (
            grads,
            None,
            None if to_factor is None else to_factor.view(*shape, -1),
            None if to_saliency is None else to_saliency.view(*shape, -1),
            *(to_bias, None, None),
        )


def _widened(
    x: Float[Tensor, "B W N heads d"],
    mask: Float[Tensor, "W N 6"] | None,
    saliency: Float[Tensor, "B W N #heads"] | None,
) -> Float[Tensor, "B W N heads D"]:
    """Return queries or keys with mask and saliency as further channels, filled with zeros."""
    parts = [x]
    if mask is not None:
        parts.append(mask.to(x.dtype)[:, :, None].expand(*x.shape[:4], -1))
    if saliency is not None:
        parts.append(saliency[..., None].expand(*x.shape[:4], 1))
    missing = -sum(part.shape[-1] for part in parts) % ALIGNMENT
    if missing:
        parts.append(x.new_zeros(1).expand(*x.shape[:4], missing))
    return x if len(parts) == 1 else torch.cat(parts, dim=-1)


def _multiply(a: Tensor, b: Tensor | float, target: Tensor) -> None:
    """Write a product into a part of a tensor, which a compiler takes for a copy."""
    if torch.compiler.is_compiling():
        target.copy_(a * b)
    else:
        torch.mul(a, b, out=target)


def _expanded(rows: Float[Tensor, "heads N M"], q: HeadTokens) -> Float[Tensor, "W heads N N"]:
    """Return the bias of every window, which takes no memory."""
    n = q.shape[2]
    return rows[..., :n].expand(len(q), -1, -1, -1)


def has_kernel(q: HeadTokens) -> bool:
    """Whether the kernel takes these tokens: it is NVIDIA's, and has no double precision.

    The meta device stands for a GPU.
    """
    return q.device.type in ("cuda", "meta") and torch.version.hip is None and q.dtype != torch.float64


def run_kernel(
    q: HeadTokens, k: HeadTokens, v: HeadTokens, bias: Float[Tensor, "W heads N N"], needs_sums: bool
) -> tuple[Tensor, ...]:
    """Return the product, the logarithmic sums of each row, and what the kernel's backward pass asks for."""
    made: tuple[Tensor, ...] = torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, needs_sums, 0.0, False, scale=1.0
    )
    return made


def run_kernel_backward(
    grad: HeadTokens,
    q: HeadTokens,
    k: HeadTokens,
    v: HeadTokens,
    bias: Float[Tensor, "W heads N N"],
    out: HeadTokens,
    sums: Float[Tensor, "W heads _"],
    seed: Tensor,
    offset: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of queries, keys, values and of the bias of every window."""
    wanted = [True, True, True, True]
    made: tuple[Tensor, ...] = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
        grad, q, k, v, bias, out, sums, seed, offset, 0.0, wanted, False, scale=1.0
    )
    return made


def run_plainly(
    q: HeadTokens, k: HeadTokens, v: HeadTokens, bias: Float[Tensor, "W heads N N"], needs_sums: bool
) -> tuple[Tensor, ...]:
    """Return what `run_kernel` returns, written out for devices without the kernel."""
    scores = q @ k.transpose(2, 3) + bias
    sums = scores.logsumexp(-1)
    # Tokens before heads in memory, as the kernel has them.
    product = ((scores - sums[..., None]).exp() @ v).transpose(1, 2).contiguous().transpose(1, 2)
    return product, sums


def run_plainly_backward(
    grad: HeadTokens,
    q: HeadTokens,
    k: HeadTokens,
    v: HeadTokens,
    bias: Float[Tensor, "W heads N N"],
    out: HeadTokens,
    sums: Float[Tensor, "W heads N"],
) -> tuple[Tensor, ...]:
    """Return what `run_kernel_backward` returns, written out for devices without the kernel."""
    weights = (q @ k.transpose(2, 3) + bias - sums[..., None]).exp()
    products = grad @ v.transpose(2, 3) - (grad * out).sum(-1, keepdim=True)
    to_scores = weights * products
    return to_scores @ k, to_scores.transpose(2, 3) @ q, weights.transpose(2, 3) @ grad, to_scores
