"""3D U-Net whose bottleneck is a Transformer over all of its tokens, as in TransBTS (arXiv 2103.04430)."""

from math import pi

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.errors import PlanError
from autospine.core.tensor_types import ImageBatch, LogitBatch
from autospine.network.unet import Decoder, UNet, encode, plain_encoder
from autospine.network.unet3d import CONVOLUTIONS
from autospine.network.unet_levels import UNetLevels

WAVELENGTHS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Wavelengths in tokens of the sine and cosine waves that encode the position along each axis."""

EXPANSION = 4
"""Hidden channels of the perceptron per channel of a token (Vaswani et al., 2017)."""


class UNet3DTransformer(UNet):
    """The plain 3D U-Net with global self-attention at its coarsest level.

    Args:
        in_channels: As in `UNet`, like the arguments that are not listed here.
        layers: Transformer layers.
        heads: Attention heads; they divide the channels of the coarsest level.

    Raises:
        PlanError: If there is no layer, or the heads do not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        levels: UNetLevels,
        *,
        layers: int,
        heads: int,
        checkpointing: bool = False,
    ) -> None:
        channels = levels.features[-1]
        if layers < 1 or heads < 1 or channels % heads:
            raise PlanError(
                f"expected at least one layer, and heads that divide the {channels} channels of the "
                f"coarsest level, found {layers} and {heads}; correct the network of the plan"
            )
        super().__init__(in_channels, levels, checkpointing=checkpointing)
        self.encoder = plain_encoder(in_channels, levels, CONVOLUTIONS)
        self.position = PositionEmbedding(channels)
        self.layers = nn.ModuleList(TransformerLayer(channels, heads) for _ in range(layers))
        self.norm = CastLayerNorm(channels)
        self.decoder = Decoder(out_channels, levels, CONVOLUTIONS)

    def logits(self, x: ImageBatch, coarse: list[Tensor] | None) -> LogitBatch:
        """Return the logits (B, K, S, P, L) of an image (B, C, S, P, L), in its dtype."""
        *skips, bottom = encode(self.encoder, x, self.run)
        tokens = bottom.flatten(2).transpose(1, 2) + self.position(bottom)
        for layer in self.layers:
            tokens = self.run(layer, tokens)
        bottom = self.norm(tokens).transpose(1, 2).reshape(bottom.shape)
        y: Tensor = self.decoder([*skips, bottom], self.run, coarse)
        return y


class TransformerLayer(nn.Module):
    """Self-attention among all tokens, then a perceptron; each after a norm and around a shortcut.

    Args:
        channels: Channels of a token.
        heads: Attention heads; they divide the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = CastLayerNorm(channels), CastLayerNorm(channels)
        self.qkv, self.projection = CastLinear(channels, 3 * channels), CastLinear(channels, channels)
        self.widen, self.narrow = (
            CastLinear(channels, EXPANSION * channels),
            CastLinear(EXPANSION * channels, channels),
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


class PositionEmbedding(nn.Module):
    """Position embedding for a grid of any size: a learnt map of sine and cosine waves of the position.

    Positions are counted from the middle of the grid, so that a larger grid only adds positions at its ends.

    Args:
        channels: Channels of a token.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = CastLinear(6 * len(WAVELENGTHS), channels)

    def forward(self, x: Float[Tensor, "B C S P L"]) -> Float[Tensor, "N C"]:
        """Return the embedding of each position of the map's grid, in the map's dtype."""
        positions = [torch.arange(n, device=x.device, dtype=torch.float32) - (n - 1) / 2 for n in x.shape[2:]]
        grid = torch.stack(torch.meshgrid(*positions, indexing="ij"), dim=-1).reshape(-1, 3, 1)
        angles = grid * (2 * pi / torch.tensor(WAVELENGTHS, device=x.device))
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
        embedded: Tensor = self.linear(waves.to(x.dtype))
        return embedded


class CastLinear(nn.Linear):
    """torch's linear layer, computed in the input's dtype."""

    def forward(self, input: Float[Tensor, "*N C"]) -> Float[Tensor, "*N D"]:
        """Return the product."""
        return F.linear(input, self.weight.to(input.dtype), self.bias.to(input.dtype))


class CastLayerNorm(nn.LayerNorm):
    """torch's layer norm, computed in the input's dtype."""

    def forward(self, input: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        """Return the normalised tokens."""
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)
