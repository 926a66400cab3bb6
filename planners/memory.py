"""How much memory a training step takes: a closed form, fitted to measured peaks.

Fitted to the peak resident memory of two training steps in fresh processes on a CPU, over ten
configurations (feature sizes 16 to 48, 2 to 26 classes, float32 and bfloat16, isotropic and thick-sliced,
0.5 to 3 GB): largest error 6 %. docs/concepts/planning.md has the table.
"""

from functools import cache
from math import prod

import torch

from autospine.network.build import assemble
from autospine.plan import NetworkPlan, Precision
from autospine.types import Shape3
from planners.rules import token_grids

ELEMENTS_PER_VOXEL = 31.0
"""Activations kept for the backward pass, per voxel and channel of the full resolution."""

PER_ATTENTION_WEIGHT = 1.3
"""Attention matrices are kept once, and once more in part while gradients flow."""

BYTES_PER_SCORE = 21.0
"""Per voxel and class: logits, their logarithmic softmax, probabilities and gradients in float32."""

BYTES_PER_PARAMETER = 20.0
"""Weight, gradient, two moments and the running average, in float32."""

BASE_BYTES = 240e6
"""Code and scratch space that any training step needs."""

_SIZE: dict[Precision, int] = {"float32": 4, "bfloat16": 2}


def training_bytes(
    network: NetworkPlan,
    patch: Shape3,
    *,
    batch_size: int,
    precision: Precision,
    in_channels: int,
    out_channels: int,
) -> int:
    """Peak memory of a training step in bytes, for patches of this shape."""
    voxels = prod(patch)
    activations = ELEMENTS_PER_VOXEL * network.feature_size * voxels
    attention = PER_ATTENTION_WEIGHT * attention_weights(network, patch)
    per_patch = _SIZE[precision] * (activations + attention) + BYTES_PER_SCORE * out_channels * voxels
    parameters = parameter_count(network, in_channels, out_channels)
    return int(batch_size * per_patch + BYTES_PER_PARAMETER * parameters + BASE_BYTES)


def attention_weights(network: NetworkPlan, patch: Shape3) -> int:
    """Entries of all attention matrices for one patch."""
    total = 0
    grids = token_grids(patch, network.strides)
    for grid, window, heads, depth in zip(
        grids, network.window_sizes, network.num_heads, network.depths, strict=True
    ):
        clamped = [min(w, n) for w, n in zip(window, grid, strict=True)]
        tokens = prod(-(-n // w) * w for n, w in zip(grid, clamped, strict=True))
        total += depth * heads * tokens * prod(clamped)
    return total


@cache
def parameter_count(network: NetworkPlan, in_channels: int, out_channels: int) -> int:
    """Trainable numbers of the network; it is built without memory for them."""
    with torch.device("meta"):
        built = assemble(network, in_channels, out_channels)
    return sum(parameter.numel() for parameter in built.parameters())
