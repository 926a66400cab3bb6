"""Swin Transformer stages on token grids (B, S, P, L, C)."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.types import Shape3
from autospine.network.blocks import ResidualBlock
from autospine.network.swin.attention import AttentionMaps, KeySaliency, QueryTemperature, WindowAttention
from autospine.network.swin.swin_settings import AttentionBounds, AttentionKind, AttentionSettings
from autospine.network.swin.windows import (
    legacy_merging_index,
    merging_layout,
    partition,
    unpartition,
    window_layout,
)
from autospine.network.tokenwise import layer_norm, linear

MergeOrder = Literal["fixed", "legacy"]
"""Order in which a merging stacks its tokens: MONAI's since 1.5, or the one before."""


class SwinBlock(nn.Module):
    """Windowed attention and a two-layer perceptron, each after a layer norm and around a shortcut.

    Args:
        channels: Channels of a token.
        heads: Attention heads.
        window: Largest window in tokens (S, P, L).
        shifted: Whether the windows are shifted by half their size.
        attention: Kind of attention; with `identity` there is only the perceptron.
        bounds: Bounds of the adaptive attention; the defaults if None.
        stage: Index of the stage, which the settings may switch off.
        legacy_bias_slice: Read the bias of clamped windows as MONAI does.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: Shape3,
        *,
        shifted: bool,
        attention: AttentionKind = "plain",
        bounds: AttentionBounds | None = None,
        stage: int = 0,
        legacy_bias_slice: bool = False,
    ) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        bounds = bounds or AttentionBounds()
        saliency = temperature = None
        if isinstance(attention, AttentionSettings) and attention.saliency[stage]:
            saliency = KeySaliency(channels, heads, bounds.saliency)
        if isinstance(attention, AttentionSettings) and attention.temperature[stage]:
            temperature = QueryTemperature(channels, heads, bounds.temperature)
        self.norm1 = self.attention = None
        if attention != "identity":
            self.norm1 = nn.LayerNorm(channels)
            self.attention = WindowAttention(
                channels, heads, window, saliency, temperature, legacy_bias_slice
            )
        self.norm2 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, 4 * channels)
        self.linear2 = nn.Linear(4 * channels, channels)

    def forward(
        self,
        x: Float[Tensor, "B S P L C"],
        gradient: Float[Tensor, "B S P L 1"] | None = None,
        record: list[AttentionMaps] | None = None,
    ) -> Float[Tensor, "B S P L C"]:
        """Return the tokens after the block.

        Args:
            x: Tokens.
            gradient: Gradient magnitude of each token, for adaptive attention.
            record: Receives the maps (B, S, P, L, heads) of the block's attention.
        """
        tokens = x.flatten(1, 3)
        if self.attention is not None and self.norm1 is not None:
            grid = (x.shape[1], x.shape[2], x.shape[3])
            layout = window_layout(grid, self.window, self.shifted, x.device)
            windows = partition(layer_norm(tokens, self.norm1), layout)
            rows = None if gradient is None else partition(gradient.flatten(1, 3), layout)
            attended = self.attention(windows, layout, rows, record)
            tokens = unpartition(attended, layout).add_(tokens)
            if record is not None:
                record[-1] = record[-1].on_grid(lambda m: unpartition(m, layout).view(len(m), *grid, -1))
        hidden = F.gelu(linear(layer_norm(tokens, self.norm2), self.linear1.weight, self.linear1.bias))
        # Not in place: the product is a view, for which torch would copy it and its gradient.
        tokens = tokens + linear(hidden, self.linear2.weight, self.linear2.bias)
        return tokens.view(x.shape)


class PatchMerging(nn.Module):
    """Join the tokens of each cell of the stride into one of twice the channels.

    Args:
        channels: Channels of a token before merging.
        stride: Tokens per cell and axis, 1 or 2.
        order: How the tokens are stacked.
    """

    def __init__(self, channels: int, stride: Shape3, order: MergeOrder = "fixed") -> None:
        super().__init__()
        self.stride = stride
        self.order = order
        tokens = stride[0] * stride[1] * stride[2]
        self.norm = nn.LayerNorm(tokens * channels)
        self.reduction = nn.Linear(tokens * channels, 2 * channels, bias=False)

    def forward(self, x: Float[Tensor, "B S P L C"]) -> Float[Tensor, "B s p l D"]:
        """Return the merged tokens; the stride divides the grid."""
        grid = (x.shape[1], x.shape[2], x.shape[3])
        cells = [length // step for length, step in zip(grid, self.stride, strict=True)]
        if self.order == "legacy":
            x = x.flatten(1, 3).index_select(1, legacy_merging_index(grid, x.device))
        else:
            x = partition(x.flatten(1, 3), merging_layout(grid, self.stride, x.device))
        x = x.view(x.shape[0], *cells, -1)
        return linear(layer_norm(x, self.norm), self.reduction.weight)


class SwinStage(nn.Module):
    """An optional residual convolution block, Swin blocks with alternating shift, and a merging.

    Args:
        channels: Channels of a token.
        heads: Attention heads.
        window: Largest window in tokens (S, P, L).
        stride: Stride of the merging.
        depth: Number of Swin blocks.
        use_v2: Whether the convolution block comes first.
        attention: Kind of attention.
        bounds: Bounds of the adaptive attention.
        stage: Index of the stage.
        legacy_bias_slice: Read the bias of clamped windows as MONAI does.
        merge_order: How the merging stacks its tokens.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: Shape3,
        stride: Shape3,
        *,
        depth: int,
        use_v2: bool,
        attention: AttentionKind,
        bounds: AttentionBounds,
        stage: int,
        legacy_bias_slice: bool = False,
        merge_order: MergeOrder = "fixed",
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(channels, channels) if use_v2 else None
        self.blocks = nn.ModuleList(
            SwinBlock(
                channels,
                heads,
                window,
                shifted=i % 2 == 1,
                attention=attention,
                bounds=bounds,
                stage=stage,
                legacy_bias_slice=legacy_bias_slice,
            )
            for i in range(depth)
        )
        self.merging = PatchMerging(channels, stride, merge_order)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _initialise(module)

    def forward(
        self,
        x: Float[Tensor, "B S P L C"],
        gradient: Float[Tensor, "B S P L 1"] | None = None,
        record: list[AttentionMaps] | None = None,
    ) -> Float[Tensor, "B s p l D"]:
        """Return the tokens of the next stage; arguments as in SwinBlock."""
        if self.residual is not None:
            x = self.residual(x)
        for block in self.blocks:
            x = block(x, gradient, record)
        return self.merging(x)  # type: ignore[no-any-return]


def _initialise(layer: nn.Linear) -> None:
    """Draw the weights as Swin Transformer does."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
