"""The plan of the Swin UNETR."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from autospine.core.geometry import triple
from autospine.core.types import Shape3, Vector3
from autospine.network.network_plan import Blocks, Channels, Extents, Heads, NetworkPlan, total_stride
from autospine.network.swin.swin_settings import AttentionKind, FusionSettings

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class SwinPlan(NetworkPlan):
    """Swin UNETR with or without multi-scale fusion and adaptive attention."""

    name: Literal["adaptive_swin_unetr", "swin_unetr"]
    """Name that it was planned by; the settings below decide."""

    feature_size: Channels
    """Channels at full resolution."""

    depths: tuple[Blocks, Blocks, Blocks, Blocks]
    """Swin blocks per stage."""

    num_heads: tuple[Heads, Heads, Heads, Heads]
    """Attention heads per stage."""

    window_sizes: tuple[Extents, Extents, Extents, Extents]
    """Attention window of each stage, in tokens."""

    strides: tuple[Extents, Extents, Extents, Extents, Extents]
    """Strides of the patch embedding and the four mergings."""

    use_v2: bool
    """Residual convolution block before each stage."""

    fusion: FusionSettings | None
    """Multi-scale fusion; None is the plain patch embedding."""

    attention: AttentionKind
    """Adaptive attention, or the name of another kind."""

    checkpointing: bool
    """Recompute stages in the backward pass: less memory, more time."""

    @property
    def divisor(self) -> Shape3:
        """Number that each axis of the input must be a multiple of: the product of its strides."""
        return total_stride(self.strides)

    @property
    def position_parameters(self) -> int:
        """Number of parameters in the tables of position biases: one per head and offset within a window."""
        if self.attention == "identity":
            return 0
        stages = zip(self.depths, self.num_heads, self.window_sizes, strict=True)
        return sum(depth * heads * prod(2 * w - 1 for w in window) for depth, heads, window in stages)

    def build(
        self, in_channels: int, out_channels: int, *, spacing_mm: Vector3, patch_size: Shape3
    ) -> "nn.Module":
        """Return the network with fresh weights; see `NetworkPlan.build`."""
        from autospine.network.swin.swin_unetr import AdaptiveSwinUNETR

        return AdaptiveSwinUNETR(
            in_channels,
            out_channels,
            feature_size=self.feature_size,
            depths=self.depths,
            num_heads=self.num_heads,
            window_size=self.window_sizes,
            strides=self.strides,
            use_v2=self.use_v2,
            fusion=self.fusion,
            attention=self.attention,
            spacing_mm=spacing_mm,
            checkpointing=self.checkpointing,
        )


def token_grids(patch: Shape3, strides: Sequence[Shape3]) -> tuple[Shape3, ...]:
    """Return the token grids of the four stages: after the embedding and after each merging but the last.

    Args:
        patch: Voxels (S, P, L) of the input.
        strides: Strides of the patch embedding and the four mergings.
    """
    grids, size = [], list(patch)
    for stride in strides[:-1]:
        size = [n // k for n, k in zip(size, stride, strict=True)]
        grids.append(triple(size))
    return tuple(grids)
