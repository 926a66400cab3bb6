"""The attention product softmax(tau q k + saliency + bias + mask) v over many small windows.

Written as numerator over denominator, 2^s v' with v' = (v, 1) times the exponential of the key's saliency, it
needs one pass over the scores between two matrix products, and the saliency costs nothing.
"""

from collections.abc import Iterator
from math import e, log2

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from autospine.network.swin.fused_attention import attend_fused
from autospine.network.swin.windows import WindowLayout

Queries = Float[Tensor, "heads W N d"]
"""Queries or keys of the windows W of all samples."""

Values = Float[Tensor, "heads W N D"]
"""Values with columns for the denominator, or products with them."""

Biases = Float[Tensor, "heads N N"]
Masks = Float[Tensor, "classes #N #N"]
"""Masks of the classes of windows; one number for each class where nothing is masked."""

Portion = tuple[int, slice] | tuple[slice, int]
"""Index of a head's windows, or of a window's heads."""

BYTES_AT_ONCE = 2**23
"""Bytes of scores that are computed before they are used: they stay in the processor's cache, and are never
all in memory."""

LANES = 16
"""Narrow matrices are padded to a multiple of this, the floats of a vector register."""

SMALLEST_SUM = 1e-30
LARGEST_SUM = 1e30
"""Range of the denominators in which no row has lost its scores to underflow or overflow."""


def attend(
    qkv: Float[Tensor, "B W N 3 heads d"],
    factor: Float[Tensor, "B W N heads"] | float,
    saliency: Float[Tensor, "B W N heads"] | None,
    bias: Float[Tensor, "heads N N"],
    layout: WindowLayout,
) -> Float[Tensor, "B W N heads d"]:
    """Return softmax(factor_i q_i k_j + saliency_j + bias_ij + mask_ij) v_j for each query i of each window.

    Neither implementation keeps a tensor of N x N for all windows, in training as in inference.

    Args:
        qkv: Queries, keys and values.
        factor: Scale of each query's products, 1 / sqrt(d) times the temperature.
        saliency: Logit added for each key, or None.
        bias: Relative position bias, the same in every window.
        layout: The windows, which hold the shift mask.
    """
    on_cpu = qkv.device.type == "cpu"
    return (attend_in_cache if on_cpu else attend_fused)(qkv, factor, saliency, bias, layout)


@torch.no_grad()
def received_attention(
    qkv: Float[Tensor, "B W N 3 heads d"],
    factor: Float[Tensor, "B W N heads"] | float,
    saliency: Float[Tensor, "B W N heads"] | None,
    bias: Float[Tensor, "heads N N"],
    layout: WindowLayout,
) -> Float[Tensor, "B W N heads"]:
    """Return the weights that each key receives, summed over the queries that are tokens; as in `attend`."""
    batch, windows, n, _, heads, d = qkv.shape
    query, key, value = _operands(qkv.float(), factor, saliency)
    asks = (layout.to_windows < layout.to_grid.numel()).view(1, windows, n).expand(batch, -1, -1)
    asks = asks.reshape(1, -1, n).expand(heads, -1, -1)
    received = value.new_empty(heads, batch * windows, n)
    for part, scores in _exponentials(query, key, bias.float(), layout.masks, list(layout.runs), True):
        column = value[part][..., d]
        share = asks[part] / torch.einsum("wij,wj->wi", scores, column)
        received[part] = torch.einsum("wi,wij->wj", share, scores) * column
    return received.view(heads, batch, windows, n).permute(1, 2, 3, 0)


def attend_in_cache(
    qkv: Float[Tensor, "B W N 3 heads d"],
    factor: Float[Tensor, "B W N heads"] | float,
    saliency: Float[Tensor, "B W N heads"] | None,
    bias: Float[Tensor, "heads N N"],
    layout: WindowLayout,
) -> Float[Tensor, "B W N heads d"]:
    """Return the product by matrix products of a few windows at a time; as in `attend`.

    torch's fused kernel takes more than twice as long for heads as narrow as here, and on a CPU its bias may
    not require a gradient.
    """
    batch, windows, n, _, heads, d = qkv.shape
    query, key, value = _operands(qkv, factor, saliency)
    product: Tensor = _exponential_product(query, key, value, bias, layout.masks, list(layout.runs))[0]
    out = product[..., :d] / product[..., d : d + 1]
    return out.view(heads, batch, windows, n, d).permute(1, 2, 3, 0, 4)


def _operands(
    qkv: Float[Tensor, "B W N 3 heads d"],
    factor: Float[Tensor, "B W N heads"] | float,
    saliency: Float[Tensor, "B W N heads"] | None,
) -> tuple[
    Float[Tensor, "heads BW N d"],
    Float[Tensor, "heads BW N d"],
    Float[Tensor, "heads BW N D"],
]:
    """Return queries times log2(e), keys, and values with a column for the denominator (heads, B W, N, _)."""
    batch, windows, n, _, heads, _ = qkv.shape
    query, key, value = qkv.permute(3, 4, 0, 1, 2, 5)
    if not isinstance(factor, float):
        factor = factor.permute(3, 0, 1, 2)[..., None]
    query = query * (factor * log2(e))
    value = _filled(torch.cat((value, value.new_ones(1).expand(*value.shape[:4], 1)), dim=-1))
    if saliency is not None:
        value = value * saliency.exp().permute(3, 0, 1, 2)[..., None]
    query, key, value = (x.reshape(heads, batch * windows, n, -1) for x in (query, key, value))
    return query, key, value


# The schemas are given because torch cannot infer them from annotations with axes.
@torch.library.custom_op(
    "autospine::exponential_product",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor bias, Tensor masks, int[] runs) "
    "-> (Tensor, Tensor)",
)
def _exponential_product(
    query: Queries,
    key: Queries,
    value: Values,
    bias: Biases,
    masks: Masks,
    runs: list[int],
) -> tuple[Values, Bool[Tensor, ""]]:
    """Return 2^(q k + log2(e) (bias + mask)) v, each row up to a factor of its own, and a flag.

    Args:
        query: (heads, windows, N, d) queries times log2(e).
        key: (heads, windows, N, d).
        value: (heads, windows, N, D); column d holds what the denominator sums.
        bias: (heads, N, N).
        masks: (classes, N, N) masks of the classes of windows, or (classes, 1, 1) where nothing is masked.
        runs: Number of windows of each class, in their order; repeated for each sample.

    Returns:
        (heads, windows, N, D), and whether the rows had to be divided by the exponential of their largest
        score. Scores beyond the range of the exponential are rare, so they are dealt with when found.
    """
    d = query.shape[-1]
    for stable in (False, True):
        out = value.new_empty(value.shape)
        for part, scores in _exponentials(query, key, bias, masks, runs, stable):
            torch.bmm(scores, value[part], out=out[part])
        smallest, largest = out[..., d].contiguous().aminmax()
        if stable or bool((smallest > SMALLEST_SUM) & (largest < LARGEST_SUM)):
            break
    return out, torch.tensor(stable)


def _exponentials(
    query: Queries,
    key: Queries,
    bias: Biases,
    masks: Masks,
    runs: list[int],
    stable: bool,
) -> Iterator[tuple[Portion, Float[Tensor, "part N N"]]]:
    """Yield parts of heads and windows with their exponentials, in memory that the next ones take over."""
    heads, windows, n, _ = query.shape
    at_once = max(1, BYTES_AT_ONCE // (n * n * query.element_size()))
    buffer = query.new_empty(min(at_once, max(windows, heads)), n, n)
    bias, masks = (bias * log2(e)).to(query.dtype), masks.to(query.dtype)
    for shift, part in _parts(heads, runs, windows // sum(runs), at_once):
        q, k = query[part], key[part].transpose(1, 2)
        scores = buffer[: len(q)]
        torch.baddbmm((bias[part[0]] + masks[shift]).expand_as(scores), q, k, out=scores)
        if stable:
            scores.sub_(scores.amax(-1, keepdim=True))
        yield part, scores.exp2_()


def _parts(heads: int, runs: list[int], samples: int, at_once: int) -> Iterator[tuple[int, Portion]]:
    """Yield the class and the index of parts that cover all heads and windows.

    A part is several windows of one class and head, or one window of several heads, whichever are more: a
    part is one call, and calls are costly where windows are few.
    """
    first = 0
    for shift, count in enumerate(runs):
        for sample in range(samples):
            start = sample * sum(runs) + first
            span = range(start, start + count)
            if count >= heads:
                yield from ((shift, (h, cut)) for h in range(heads) for cut in _cut(span, at_once))
            else:
                yield from ((shift, (cut, w)) for w in span for cut in _cut(range(heads), at_once))
        first += count


def _filled(x: Float[Tensor, "*rows d"], multiple: int = LANES) -> Float[Tensor, "*rows D"]:
    """Return x with zero columns up to a multiple."""
    return F.pad(x, (0, -x.shape[-1] % multiple))


def _cut(span: range, length: int) -> list[slice]:
    """Return the span in slices of at most this length."""
    return [slice(i, min(i + length, span.stop)) for i in span[::length]]


@_exponential_product.register_fake
def _(
    query: Queries,
    key: Queries,
    value: Values,
    bias: Biases,
    masks: Masks,
    runs: list[int],
) -> tuple[Values, Bool[Tensor, ""]]:
    return value.new_empty(value.shape), torch.empty((), dtype=torch.bool, device=value.device)


@torch.library.custom_op(
    "autospine::exponential_product_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor bias, Tensor masks, int[] runs, "
    "Tensor stable) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    grad: Values,
    query: Queries,
    key: Queries,
    value: Values,
    bias: Biases,
    masks: Masks,
    runs: list[int],
    stable: Bool[Tensor, ""],
) -> tuple[
    Queries,
    Queries,
    Values,
    Biases,
]:
    """Return the gradients of query, key, value and bias; the exponentials are computed again."""
    grad, d = grad.contiguous(), query.shape[-1]
    if query.dtype == torch.float32:
        query, key = _filled(query), _filled(key)
    grad_query, grad_key, grad_value = (x.new_empty(x.shape) for x in (query, key, value))
    grad_bias = bias.new_zeros(bias.shape)
    for part, scores in _exponentials(query, key, bias, masks, runs, bool(stable)):
        torch.bmm(scores.transpose(1, 2), grad[part], out=grad_value[part])
        products = torch.bmm(grad[part], value[part].transpose(1, 2)).mul_(scores)
        torch.bmm(products, key[part], out=grad_query[part])
        torch.bmm(products.transpose(1, 2), query[part], out=grad_key[part])
        if isinstance(part[0], int):
            grad_bias[part[0]] += products.sum(0)
        else:
            grad_bias[part[0]] += products
    # Scores are in powers of two: d 2^s / ds = ln(2) 2^s, and the bias was multiplied by log2(e) = 1 / ln(2).
    grad_query, grad_key = (x.div_(log2(e))[..., :d] for x in (grad_query, grad_key))
    return grad_query.contiguous(), grad_key.contiguous(), grad_value, grad_bias


@_backward.register_fake
def _(
    grad: Values,
    query: Queries,
    key: Queries,
    value: Values,
    bias: Biases,
    masks: Masks,
    runs: list[int],
    stable: Bool[Tensor, ""],
) -> tuple[
    Queries,
    Queries,
    Values,
    Biases,
]:
    return tuple(x.new_empty(x.shape) for x in (query, key, value, bias))  # type: ignore[return-value]


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    query, key, value, bias, masks, runs = inputs
    ctx.save_for_backward(query, key, value, bias, masks, output[1])
    ctx.runs = runs
    ctx.mark_non_differentiable(output[1])


def _backward_of(ctx, grad, _):  # type: ignore[no-untyped-def]
    query, key, value, bias, masks, stable = ctx.saved_tensors
    grads = _backward(grad, query, key, value, bias, masks, ctx.runs, stable)
    return (*grads, None, None)


_exponential_product.register_autograd(_backward_of, setup_context=_setup_context)
