"""3D U-Net whose bottleneck is a Transformer over all of its tokens, as in TransBTS (arXiv 2103.04430)."""

from collections.abc import Sequence
from math import pi

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.errors import PlanError
from autospine.core.types import Shape3
from autospine.network.base import SegmentationNetwork, product
from autospine.network.unet import Decoder, check_levels, encode
from autospine.network.unet3d import CONVOLUTIONS, plain_encoder

WAVELENGTHS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Of the position's sine and cosine waves along each axis, in tokens."""

EXPANSION = 4
"""Hidden channels of the perceptron, per channel (Vaswani et al., 2017)."""


class UNet3DTransformer(SegmentationNetwork):
    """The plain 3D U-Net with global self-attention at its coarsest level.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        features: Channels per level, finest first.
        strides: Of the first convolution of each level.
        kernels: Odd kernel sizes per level.
        layers: Transformer layers.
        heads: Attention heads; they divide the channels of the coarsest level.
        checkpointing: Recompute each stage in the backward pass to save memory.

    Raises:
        PlanError: If the levels do not fit together, or the heads do not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        features: Sequence[int],
        strides: Sequence[Shape3],
        kernels: Sequence[Shape3],
        layers: int,
        heads: int,
        checkpointing: bool = False,
    ) -> None:
        check_levels(features, strides, kernels)
        if layers < 1 or heads < 1 or features[-1] % heads:
            raise PlanError(
                f"expected at least one layer, and heads that divide the {features[-1]} channels of the "
                f"coarsest level, found {layers} and {heads}; correct the network of the plan"
            )
        super().__init__(in_channels, product(strides[1:] or [(1, 1, 1)]), checkpointing=checkpointing)
        self.encoder = plain_encoder(in_channels, features, strides, kernels)
        self.position = Position(features[-1])
        self.layers = nn.ModuleList(TransformerLayer(features[-1], heads) for _ in range(layers))
        self.norm = LayerNorm(features[-1])
        self.decoder = Decoder(out_channels, features, strides, kernels, CONVOLUTIONS)
        self.coarse_widths = tuple(features[1:-1])

    def logits(self, x: Tensor, coarse: list[Tensor] | None) -> Tensor:
        """Return the logits (B, K, S, P, L) of an image (B, C, S, P, L), in its dtype."""
        *skips, bottom = encode(self.encoder, x, self.run)
        tokens = bottom.flatten(2).transpose(1, 2) + self.position(bottom)
        for layer in self.layers:
            tokens = self.run(layer, tokens)
        bottom = self.norm(tokens).transpose(1, 2).reshape(bottom.shape)
        y: Tensor = self.decoder([*skips, bottom], self.run, coarse)
        return y


class TransformerLayer(nn.Module):
    """Self-attention of all tokens to all, then a perceptron; each after a norm and around a shortcut.

    Args:
        channels: Per token.
        heads: They divide the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = LayerNorm(channels), LayerNorm(channels)
        self.qkv, self.projection = Linear(channels, 3 * channels), Linear(channels, channels)
        self.widen, self.narrow = (
            Linear(channels, EXPANSION * channels),
            Linear(EXPANSION * channels, channels),
        )

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Return the new tokens."""
        batch, count, channels = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, count, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.projection(attended)
        y: Tensor = self.narrow(F.gelu(self.widen(self.norm2(x))))
        return x + y


class Position(nn.Module):
    """A learnt linear map of sine and cosine waves of a token's place: fits a grid of any size.

    Places are counted from the middle of the grid, so that a larger grid only adds places at its ends.

    Args:
        channels: Per token.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = Linear(6 * len(WAVELENGTHS), channels)

    def forward(self, x: Float[Tensor, "B C S P L"]) -> Float[Tensor, "N C"]:
        """Return the embedding of each place of the map's grid, in the map's dtype."""
        places = [torch.arange(n, device=x.device, dtype=torch.float32) - (n - 1) / 2 for n in x.shape[2:]]
        grid = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1).reshape(-1, 3, 1)
        angles = grid * (2 * pi / torch.tensor(WAVELENGTHS, device=x.device))
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
        embedded: Tensor = self.linear(waves.to(x.dtype))
        return embedded


class Linear(nn.Linear):
    """torch's, computed in the input's dtype."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the product."""
        return F.linear(input, self.weight.to(input.dtype), self.bias.to(input.dtype))


class LayerNorm(nn.LayerNorm):
    """torch's, computed in the input's dtype."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised tokens."""
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)
