"""The convolutional networks: levels, widths and dilations, after nnU-Net."""

from math import ceil

from autospine.core.geometry import triple
from autospine.core.types import Shape3, Vector3
from planners.rules.transformer import strides as swin_strides

SHORTEST_EDGE = 4
"""A U-Net keeps halving an axis while this many voxels remain (nnU-Net)."""

SHORTEST_LONE_EDGE = 6
"""The same where no other axis can be halved any more (nnU-Net)."""

UNET_FEATURES = 32
"""Channels of a U-Net at full resolution (nnU-Net)."""

MOST_FEATURES = 320
"""Channels at most in a U-Net (nnU-Net, for 3D)."""

RESENC_BLOCKS = (1, 3, 4, 6)
"""Residual blocks per level; the last number goes on (nnU-Net's ResEnc presets)."""

TRANSFORMER_LAYERS = 4
"""Transformer layers in the bottleneck (TransBTS)."""

HEAD_CHANNELS = 64
"""Channels of an attention head in the bottleneck (Vaswani et al., 2017)."""


def unet_levels(spacing_mm: Vector3, shape: Shape3) -> tuple[tuple[Shape3, ...], tuple[Shape3, ...], str]:
    """Return the strides and kernels of a U-Net's levels for patches of this shape, by nnU-Net's rules.

    An axis is halved while its spacing is below twice that of the finest axis that can be halved, and at
    least `SHORTEST_EDGE` voxels remain, or `SHORTEST_LONE_EDGE` if it is the only one. Kernels are 1 along an
    axis until its spacing is below twice the finest, then 3; the coarsest level's are 3.
    """
    spacing, size = list(spacing_mm), list(shape)
    strides: list[Shape3] = [(1, 1, 1)]
    kernels: list[Shape3] = []
    side = [1, 1, 1]
    while True:
        side = [3 if k == 3 or d < 2 * min(spacing) else 1 for k, d in zip(side, spacing, strict=True)]
        long = [axis for axis in range(3) if size[axis] >= 2 * SHORTEST_EDGE]
        finest = min((spacing[axis] for axis in long), default=0.0)
        chosen = [axis for axis in long if spacing[axis] < 2 * finest]
        if not chosen or (len(chosen) == 1 and size[chosen[0]] < 2 * SHORTEST_LONE_EDGE):
            break
        kernels.append(triple(side))
        stride = [2 if axis in chosen else 1 for axis in range(3)]
        spacing = [d * k for d, k in zip(spacing, stride, strict=True)]
        size = [ceil(n / k) for n, k in zip(size, stride, strict=True)]
        strides.append(triple(stride))
    kernels.append((3, 3, 3))
    reason = f"nnU-Net's: halve the axes finer than twice the finest, while {SHORTEST_EDGE} voxels are left"
    return tuple(strides), tuple(kernels), reason


def unet_features(first: int, levels: int) -> tuple[int, ...]:
    """Return the channels per level: doubled from level to level up to `MOST_FEATURES`."""
    return tuple(min(first * 2**level, MOST_FEATURES) for level in range(levels))


def resenc_blocks(levels: int) -> tuple[int, ...]:
    """Return the residual blocks per level."""
    return tuple(RESENC_BLOCKS[min(level, len(RESENC_BLOCKS) - 1)] for level in range(levels))


def transformer_heads(channels: int) -> int:
    """Return the largest number of heads of at least `HEAD_CHANNELS` channels that divide the channels."""
    return next(h for h in range(max(1, channels // HEAD_CHANNELS), 0, -1) if channels % h == 0)


def dilations(spacing_mm: Vector3, shape: Shape3) -> tuple[tuple[Shape3, ...], str]:
    """Return the dilations of the plain network's layers: the voxel spacings of a U-Net's levels.

    Two layers without dilation, one per halving that `strides` would make, and one without again.
    """
    levels, _ = swin_strides(spacing_mm, shape)
    steps, now = [(1, 1, 1), (1, 1, 1)], [1, 1, 1]
    for stride in levels[:-1]:
        if max(stride) > 1:
            now = [n * k for n, k in zip(now, stride, strict=True)]
            steps.append(triple(now))
    return (*steps, (1, 1, 1)), "doubled where a U-Net would halve; 1 at both ends (Yu and Koltun)"
