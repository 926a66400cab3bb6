"""The activations of the Swin UNETR, counted from its layout in microseconds.

Each part of the network is counted in feature maps: one number per voxel of its level and channel. A unit
test compares the counts with the tensors of real training steps.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod

from autospine.core.geometry import triple
from autospine.core.types import Shape3
from autospine.network.blocks import COMPOSED_VOXELS
from autospine.network.swin.attention_core import LANES
from autospine.network.swin.fused_attention import ALIGNMENT, BIAS_GRADIENT_BYTES
from autospine.network.swin.fusion import STEM_CHANNELS
from autospine.network.swin.swin_plan import SwinPlan, token_grids
from autospine.network.swin.swin_settings import AttentionSettings

RESIDUAL_MAPS = 4
"""Maps of a residual block: the outputs of both convolutions and of both norms."""

SHORTCUT_MAPS = 1
"""Further maps where its channels change: the output of the shortcut's convolution."""

UPSAMPLED_MAPS = 1
"""Further maps where the map is up-sampled before the block's convolutions, and not by them."""

MERGING_MAPS = 2
"""Maps of a merging: the tokens in its order, and their norm."""

PERCEPTRON_MAPS = 10
"""Maps of a Swin block's perceptron: the norm, four times the channels before and after the activation, and
the sum."""

BACKWARD_MAPS = 5
"""Maps at full resolution while gradients pass the finest decoder: inputs and outputs of its norms and
convolutions, besides those that the forward pass has kept."""

BLOCK = 8
"""Convolutions pad their channels to a multiple of this while they work."""

STATISTICS_BYTES = 8
"""Bytes of the mean and deviation of a token's norm, in float32."""

MASK_CHANNELS = 6
"""Further channels of a GPU's queries and keys where windows are shifted."""


@dataclass(frozen=True, kw_only=True)
class SwinLayout:
    """The network over a batch of patches, level by level."""

    network: SwinPlan
    patch: Shape3
    batch_size: int
    size: int
    """Bytes of one activation."""

    gpu: bool

    @cached_property
    def voxels(self) -> list[int]:
        """Voxels of the whole batch, at full resolution and after each stride."""
        grids = [self.patch, *self._grids, self._bottom]
        return [self.batch_size * prod(grid) for grid in grids]

    @cached_property
    def channels(self) -> list[int]:
        """Channels of the same levels."""
        f = self.network.feature_size
        return [f, f, 2 * f, 4 * f, 8 * f, 16 * f]

    def map(self, level: int) -> int:
        """Bytes of one feature map."""
        return self.size * self.channels[level] * self.voxels[level]

    @cached_property
    def stem(self) -> int:
        """Bytes that the fusion at full resolution keeps: its features before and after the activation."""
        fusion = self.network.fusion
        if fusion is None or fusion.placement == "embedding":
            return 0
        return 2 * STEM_CHANNELS * self.voxels[0] * self.size

    @cached_property
    def gradient_channel(self) -> int:
        """Bytes of the image with the gradient's channel beside it, without those of the image alone."""
        attention = self.network.attention
        seen = isinstance(attention, AttentionSettings) and attention.gradient_channel
        return self.size * self.voxels[0] if seen else 0

    def level_logits(self, classes: int) -> int:
        """Bytes of the logits of the decoder's levels, which the gradients of their weights need."""
        fusion = self.network.fusion
        if fusion is None or not fusion.levels:
            return 0
        return self.size * classes * sum(self.voxels[1:5])

    def stage(self, i: int) -> int:
        """Bytes that a stage keeps, without its output."""
        maps = MERGING_MAPS + (RESIDUAL_MAPS if self.network.use_v2 else 0)
        blocks = sum(self._block(i, shifted=j % 2 == 1) for j in range(self.network.depths[i]))
        return maps * self.map(i + 1) + blocks

    @cached_property
    def first_encoder(self) -> int:
        """Bytes that the residual block at full resolution keeps, its output among them."""
        return (RESIDUAL_MAPS + SHORTCUT_MAPS) * self.map(0)

    def decoder(self, i: int) -> int:
        """Bytes that a decoder keeps, its output among them."""
        composed = self.network.strides[i] == (2, 2, 2) and self.voxels[i + 1] >= COMPOSED_VOXELS
        maps = RESIDUAL_MAPS + SHORTCUT_MAPS + (0 if composed else UPSAMPLED_MAPS)
        return maps * self.map(i)

    @cached_property
    def always(self) -> int:
        """Bytes kept whether stages are recomputed or not.

        Tokens after the embedding and each stage, their norms, the encoders and decoders below full
        resolution, and the bottleneck.
        """
        tokens = sum(2 * self.map(level) for level in range(1, 6))
        encoders = sum(RESIDUAL_MAPS * self.map(level) for level in (1, 2, 3, 5))
        return tokens + encoders + sum(self.decoder(i) for i in range(1, 5))

    @cached_property
    def recomputed(self) -> int:
        """Bytes that are kept for the backward pass, or made again in it."""
        stages = sum(self.stage(i) for i in range(4))
        return self.stem + stages + self.first_encoder + self.decoder(0)

    @cached_property
    def backward(self) -> int:
        """Bytes beyond what is kept, while gradients pass the finest decoder."""
        filled = _multiple(self.network.feature_size, BLOCK)
        return BACKWARD_MAPS * self.size * filled * self.voxels[0]

    @cached_property
    def late(self) -> int:
        """Bytes while gradients pass the first stage: its own, the tokens before and after it, the gradient
        of the perceptron, and that of the position bias on a GPU.
        """
        tokens = 2 * self.map(1) + self.map(2)
        return self.stem + self.stage(0) + tokens + PERCEPTRON_MAPS * self.map(1) + self._position_gradient

    @cached_property
    def _position_gradient(self) -> int:
        """A number per pair of tokens of a window, on a GPU for as many windows as pass at a time."""
        if not self.gpu or self.network.attention == "identity":
            return 0
        window = prod(self._window(0))
        of_one = self.size * self.network.num_heads[0] * window * _multiple(window, ALIGNMENT)
        windows = self._padded_tokens(0) // window
        return of_one * min(windows, max(1, BIAS_GRADIENT_BYTES // of_one))

    @cached_property
    def position_biases(self) -> int:
        """Bytes of the gathered position biases, in float32, which a network keeps in inference."""
        if self.network.attention == "identity":
            return 0
        stages = zip(self.network.depths, self.network.num_heads, strict=True)
        return sum(4 * depth * heads * prod(self._window(i)) ** 2 for i, (depth, heads) in enumerate(stages))

    def _block(self, i: int, *, shifted: bool) -> int:
        tokens = self.voxels[i + 1]
        perceptron = PERCEPTRON_MAPS * self.map(i + 1) + STATISTICS_BYTES * tokens
        if self.network.attention == "identity":
            return perceptron
        inside = self._fused(i, shifted=shifted) if self.gpu else self._in_cache(i)
        attention = self.size * inside * self._padded_tokens(i)
        return perceptron + attention + self.map(i + 1) + STATISTICS_BYTES * tokens

    def _in_cache(self, i: int) -> int:
        """Numbers per token of attention on a CPU.

        Tokens in window order, queries, keys and values, queries again, values filled up with a column for
        the denominator, the product, and the attended tokens.
        """
        channels, heads = self.channels[i + 1], self.network.num_heads[i]
        filled = heads * _multiple(channels // heads + 1, LANES)
        saliency, temperature = self._mechanisms(i)
        weighted = filled + 3 * heads + 2 if saliency else 0
        return 6 * channels + 2 * filled + weighted + (4 * heads if temperature else 0)

    def _fused(self, i: int, *, shifted: bool) -> int:
        """Numbers per token of attention on a GPU.

        Tokens in window order, queries, keys and values as they are projected, queries again and mostly keys
        as wide as the masks and the saliency that ride in them ask for, and the attended tokens.
        """
        channels, heads = self.channels[i + 1], self.network.num_heads[i]
        saliency, temperature = self._mechanisms(i)
        riding = (1 if saliency else 0) + (MASK_CHANNELS if shifted else 0)
        wide = heads * _multiple(channels // heads + riding, ALIGNMENT)
        widened = 2 * wide if wide > channels else wide
        logarithms = heads * 4 // self.size
        mechanisms = (3 * heads + 2 if saliency else 0) + (4 * heads if temperature else 0)
        return 5 * channels + widened + logarithms + mechanisms

    def _mechanisms(self, i: int) -> tuple[bool, bool]:
        attention = self.network.attention
        if isinstance(attention, AttentionSettings):
            return attention.saliency[i], attention.temperature[i]
        return False, False

    def _padded_tokens(self, i: int) -> int:
        return self.batch_size * prod(
            _multiple(n, w) for n, w in zip(self._grids[i], self._window(i), strict=True)
        )

    def _window(self, i: int) -> list[int]:
        return [min(w, n) for w, n in zip(self.network.window_sizes[i], self._grids[i], strict=True)]

    @cached_property
    def _grids(self) -> tuple[Shape3, ...]:
        return token_grids(self.patch, self.network.strides)

    @cached_property
    def _bottom(self) -> Shape3:
        return triple(n // k for n, k in zip(self._grids[-1], self.network.strides[-1], strict=True))


def _multiple(n: int, of: int) -> int:
    return -(-n // of) * of
