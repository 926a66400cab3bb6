"""The planner's rules: from measured facts to numbers, one small function each.

Each returns its value with the reason in words. Formulas, defaults and sources are explained in
docs/concepts/planning.md. Triples are in array order (superior, posterior, left).
"""

from planners.rules.convolutional import (
    HEAD_CHANNELS,
    MOST_FEATURES,
    RESENC_BLOCKS,
    SHORTEST_EDGE,
    SHORTEST_LONE_EDGE,
    TRANSFORMER_LAYERS,
    UNET_FEATURES,
    dilations,
    resenc_blocks,
    transformer_heads,
    unet_features,
    unet_levels,
)
from planners.rules.device import (
    CPU,
    GPU,
    Device,
    width_reason,
)
from planners.rules.sizes import (
    FAST_VOXELS,
    S_EMPHASIS,
    SPARE,
    STEP,
    holds_context,
    patch_path,
    patch_size,
    step,
)
from planners.rules.spacing import (
    ANISOTROPY,
    COARSE_AXIS_PERCENTILE,
    CONTEXT_MM,
    FAST_MM,
    VOXELS_ACROSS,
    fast_spacing,
    median_shape,
    target_spacing,
)
from planners.rules.swin import (
    LARGEST_KERNEL,
    LEVELS,
    fusion_kernels,
    heads,
    strides,
    token_grids,
    windows,
)
from planners.rules.training import (
    mirroring,
    normalisation,
)

__all__ = [
    "ANISOTROPY",
    "COARSE_AXIS_PERCENTILE",
    "CONTEXT_MM",
    "CPU",
    "FAST_MM",
    "FAST_VOXELS",
    "GPU",
    "HEAD_CHANNELS",
    "LARGEST_KERNEL",
    "LEVELS",
    "MOST_FEATURES",
    "RESENC_BLOCKS",
    "SHORTEST_EDGE",
    "SHORTEST_LONE_EDGE",
    "SPARE",
    "STEP",
    "S_EMPHASIS",
    "TRANSFORMER_LAYERS",
    "UNET_FEATURES",
    "VOXELS_ACROSS",
    "Device",
    "dilations",
    "fast_spacing",
    "fusion_kernels",
    "heads",
    "holds_context",
    "median_shape",
    "mirroring",
    "normalisation",
    "patch_path",
    "patch_size",
    "resenc_blocks",
    "step",
    "strides",
    "target_spacing",
    "token_grids",
    "transformer_heads",
    "unet_features",
    "unet_levels",
    "width_reason",
    "windows",
]
