"""Windowed self-attention with relative position bias, key saliency and query temperature.

    A' = softmax(tau_ih * q_i k_j / sqrt(d) + B_ij + M_ij + gamma_h s_j)

The saliency s_j = w x_j + u g_j + b rates a key by its features and the local gradient
magnitude g of the image: adding gamma_h s_j before the softmax is re-weighting plain attention by
exp(gamma_h s_j) and normalising again. Saliency and shift mask depend on the key alone or are of low rank, so
they ride in the dot product as extra channels of queries and keys.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.types import Shape3
from autospine.network.constants import PerVersion
from autospine.network.swin.attention_core import attend, received_attention
from autospine.network.swin.windows import WindowLayout, relative_position_index
from autospine.network.tokenwise import linear


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionMaps:
    """Attention of one block by token; as returned by the network, on the stage's token grid."""

    saliency: Float[Tensor, "B *grid heads"] | None
    """Bounded key saliency in logits, positive where keys gain weight over plain attention; None without."""

    received: Float[Tensor, "B *grid heads"]
    """Attention that a token receives: its weight, summed over the queries of its window; 1 where attention
    is uniform."""

    def on_grid(self, place: Callable[[Tensor], Tensor]) -> "AttentionMaps":
        """Return the maps, each put in another order by `place`."""
        saliency = None if self.saliency is None else place(self.saliency)
        return AttentionMaps(saliency=saliency, received=place(self.received))


class KeySaliency(nn.Module):
    """The bounded saliency of keys, bound * tanh(gamma_h s_j / bound), with gamma_h = 0 at the start.

    Args:
        channels: Channels of a token.
        heads: Attention heads.
        bound: Largest magnitude of the result.
    """

    def __init__(self, channels: int, heads: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(channels), std=0.02))
        # A start of one on the gradient gives gamma a direction to learn from the first step.
        self.gradient_weight = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))
        self.gamma = nn.Parameter(torch.zeros(heads))

    def forward(
        self, tokens: Float[Tensor, "B M C"], gradient: Float[Tensor, "B M 1"]
    ) -> Float[Tensor, "B M heads"]:
        """Return the logits that are added for each key."""
        dtype = tokens.dtype
        saliency = linear(tokens, self.weight[None]) + self.gradient_weight.to(dtype) * gradient
        scaled = (saliency + self.bias.to(dtype)) * (self.gamma / self.bound).to(dtype)
        return torch.tanh(scaled) * self.bound


class QueryTemperature(nn.Module):
    """Factor exp(c tanh(W_h x_i + u_h g_i)) on the logits of each query, 1 at the start.

    Args:
        channels: Channels of a token.
        heads: Attention heads.
        bound: c, the largest magnitude of the factor's logarithm.
    """

    def __init__(self, channels: int, heads: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.weight = nn.Parameter(torch.zeros(heads, channels))
        self.gradient_weight = nn.Parameter(torch.zeros(heads))

    def forward(
        self, tokens: Float[Tensor, "B M C"], gradient: Float[Tensor, "B M 1"]
    ) -> Float[Tensor, "B M heads"]:
        """Return the factor of each query and head."""
        dtype = tokens.dtype
        score = linear(tokens, self.weight) + gradient * self.gradient_weight.to(dtype)
        return torch.exp(torch.tanh(score) * self.bound)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows.

    Args:
        channels: Channels of a token.
        heads: Attention heads; divides the channels.
        window: Window in tokens (S, P, L) that the bias table is made for.
        saliency: The keys' saliency, or None.
        temperature: The queries' temperature, or None.
        legacy_bias_slice: Read the bias of windows smaller than `window` as MONAI does.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: Shape3,
        saliency: KeySaliency | None = None,
        temperature: QueryTemperature | None = None,
        legacy_bias_slice: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.legacy_bias_slice = legacy_bias_slice
        self._known_bias = PerVersion()
        rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.bias_table = nn.Parameter(nn.init.trunc_normal_(torch.empty(rows, heads), std=0.02))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)
        self.saliency = saliency
        self.temperature = temperature

    def forward(
        self,
        tokens: Float[Tensor, "B M C"],
        layout: WindowLayout,
        gradient: Float[Tensor, "B M 1"] | None = None,
        record: list[AttentionMaps] | None = None,
    ) -> Float[Tensor, "B M C"]:
        """Return the attended tokens.

        Args:
            tokens: Tokens in window order, M = windows * tokens per window.
            layout: The windows.
            gradient: Gradient magnitude of each token; needed with saliency or temperature.
            record: Receives the maps (B, M, heads) of this call.
        """
        batch, _, channels = tokens.shape
        n, d = layout.tokens_per_window, channels // self.heads
        split = (batch, -1, n, self.heads)
        qkv = linear(tokens, self.qkv.weight, self.qkv.bias).view(batch, -1, n, 3, self.heads, d)
        factor: float | Tensor = d**-0.5
        logits = None
        if self.temperature is not None and gradient is not None:
            factor = self.temperature(tokens, gradient).view(split) * d**-0.5
        if self.saliency is not None and gradient is not None:
            logits = self.saliency(tokens, gradient).view(split)
        bias = self._bias(layout.window)
        if record is not None:
            received = received_attention(qkv, factor, logits, bias, layout).flatten(1, 2)
            record.append(
                AttentionMaps(saliency=None if logits is None else logits.flatten(1, 2), received=received)
            )
        attended = attend(qkv, factor, logits, bias, layout)
        return linear(attended.reshape(tokens.shape), self.projection.weight, self.projection.bias)

    def _bias(self, window: Shape3) -> Float[Tensor, "heads N N"]:
        """Return the position bias of each pair of tokens, gathered once per version of it."""

        def gather(table: Tensor) -> Tensor:
            """The table's row for each pair of tokens, around a mean of zero."""
            index = relative_position_index(window, self.window, table.device, self.legacy_bias_slice)
            n = window[0] * window[1] * window[2]
            # Softmax ignores what all biases of a head have in common; half precision would round it in.
            table = table - table.mean(0)
            return table.t().index_select(1, index).view(self.heads, n, n)

        return self._known_bias(gather, self.bias_table, window)
