"""How much memory a training step takes: a closed form where there is one, else a trace of the step.

The closed form, for Swin UNETR, is fitted to the peak resident memory of two training steps in fresh
processes on a CPU, over ten configurations (feature sizes 16 to 48, 2 to 26 classes, float32 and bfloat16,
isotropic and thick-sliced, 0.5 to 3 GB): largest error 6 %. docs/concepts/planning.md has the table.

Any other network, those of other distributions too, is built on the meta device and its forward and backward
passes are traced (`planners.trace`); measured in the same way over ten configurations, the largest error is
11 %.
"""

from functools import cache
from math import prod
from typing import TypeGuard

import torch
from torch import nn

from autospine.errors import PlanError
from autospine.network.build import assemble
from autospine.plan import CNNPlan, ExternalPlan, NetworkPlan, Precision, SwinPlan
from autospine.types import Shape3, Vector3
from planners.rules import token_grids
from planners.trace import Ledger, trace_step

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

WORKSPACE_MAPS = 12.0
"""For traced networks: what convolutions need beside their tensors, as maps of all channels at full
resolution."""

TRACED_BASE_BYTES = 20e6
"""For traced networks: code and scratch space."""

_SIZE: dict[Precision, int] = {"float32": 4, "bfloat16": 2}


def training_bytes(
    network: NetworkPlan,
    patch: Shape3,
    *,
    batch_size: int,
    precision: Precision,
    in_channels: int,
    out_channels: int,
    spacing_mm: Vector3,
) -> int:
    """Peak memory of a training step in bytes, for patches of this shape.

    Raises:
        PlanError: if a network of another distribution cannot be built or traced.
    """
    scores = BYTES_PER_SCORE * out_channels * prod(patch) * batch_size
    if has_closed_form(network):
        step = batch_size * _swin_bytes(network, patch, precision) + BASE_BYTES
        return int(step + scores + BYTES_PER_PARAMETER * parameter_count(network, in_channels, out_channels))
    with torch.device("meta"):
        built = assemble(network, in_channels, out_channels, spacing_mm=spacing_mm, patch_size=patch)
        if precision == "bfloat16" and hasattr(built, "compute_dtype"):
            setattr(built, "compute_dtype", torch.bfloat16)  # noqa: B010 (unknown to the module class)
        ledger = _trace(network, built, torch.empty(batch_size, in_channels, *patch))
    widest = batch_size * _SIZE[precision] * prod(patch) * _features(network)
    step = ledger.peak + WORKSPACE_MAPS * (widest or ledger.largest) + TRACED_BASE_BYTES
    return int(step + scores + BYTES_PER_PARAMETER * sum(p.numel() for p in built.parameters()))


def has_closed_form(network: NetworkPlan) -> TypeGuard[SwinPlan]:
    """Whether the memory of this network was fitted, so that it need not be traced."""
    if not isinstance(network, SwinPlan) or network.checkpointing:
        return False
    return network.fusion is None or network.fusion.placement == "embedding"


def _swin_bytes(network: SwinPlan, patch: Shape3, precision: Precision) -> float:
    """Activations of one patch."""
    activations = ELEMENTS_PER_VOXEL * network.feature_size * prod(patch)
    return _SIZE[precision] * (activations + PER_ATTENTION_WEIGHT * attention_weights(network, patch))


def _trace(network: NetworkPlan, built: nn.Module, image: torch.Tensor) -> Ledger:
    try:
        return trace_step(built, image)
    except Exception as error:
        if not isinstance(network, ExternalPlan):
            raise
        raise PlanError(
            f"expected the network {network.entry_point!r} of the distribution {network.distribution} to "
            f"take images {tuple(image.shape)} on torch's meta device, found {type(error).__name__}: "
            f"{error}; mend or uninstall it, or choose another network"
        ) from error


def _features(network: NetworkPlan) -> int:
    """Channels at full resolution; 0 where they are not known."""
    match network:
        case SwinPlan():
            return network.feature_size
        case CNNPlan():
            return network.features
        case ExternalPlan():
            return 0
    return network.features[0]


def attention_weights(network: SwinPlan, patch: Shape3) -> int:
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
def parameter_count(network: SwinPlan, in_channels: int, out_channels: int) -> int:
    """Trainable numbers of the network; it is built without memory for them."""
    with torch.device("meta"):
        built = assemble(network, in_channels, out_channels, spacing_mm=(1.0, 1.0, 1.0), patch_size=(1, 1, 1))
    return sum(parameter.numel() for parameter in built.parameters())
