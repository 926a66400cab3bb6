"""How much memory training and inference take, predicted without running either.

A training step has moments at which it may need the most: in the loss, in the gradient of the loss, and in
the backward pass through the network. Each is a sum of parts that are counted, not fitted: for Swin UNETR
from its layout (`autospine.memory.swin_layout`), for any other network, those of other distributions too,
from a trace of the step on the meta device (`autospine.memory.trace`). What a process takes beyond its
tensors is a fixed amount, a few bytes per parameter, and a share of what lives for a moment only; these
three are fitted to the peak resident memory of training steps on a CPU. docs/results/planner.md has
predictions beside measurements.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from math import prod
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from autospine.core.errors import PlanError
from autospine.core.types import Shape3, Vector3
from autospine.inference.case_memory import CaseMemory
from autospine.memory.swin_layout import SwinLayout
from autospine.memory.trace import trace_step, trace_tile
from autospine.network.external_plan import ExternalPlan
from autospine.network.network_plan import NetworkPlan
from autospine.network.swin.swin_plan import SwinPlan
from autospine.plan import Precision

Traced = TypeVar("Traced")

FLOAT_BYTES = 4
"""Of a parameter, its gradient, each of AdamW's two moments and the running average."""

LOSS_BYTES = 17.0
"""Per voxel and class in the loss: logits in float32, their logarithmic softmax, probabilities and products
with the target in float32, and the target itself."""

LOSS_BYTES_PER_VOXEL = 9.0
"""Per voxel in the loss: its label as an integer of 64 bits, and whether it counts."""

LOSS_GRADIENT_BYTES = 20.0
"""Per voxel and class in the gradient of the loss: five float32."""

TILE_SCORE_BYTES = 8.0
"""Per voxel and class of a tile: a network's logits, and the sum of the probabilities, in float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overhead:
    """What a process takes beyond its tensors."""

    base: float
    """Bytes of code and libraries that the first step loads."""

    per_parameter: float
    """Bytes: gradients before they are float32, and kernels in the order that a convolution wants."""

    share: float
    """Of what the loss and the backward pass take for a moment: workspace of convolutions, and holes that
    the one leaves and the other does not fit."""


CPU_SWIN = Overhead(base=290e6, per_parameter=2.0, share=0.7)
"""Fitted, and the first raised: the least that is wanted is that steps fit."""

CPU_TRACED = Overhead(base=120e6, per_parameter=0.0, share=1.65)
"""Fitted. Other networks load less code, but their maps are copied for every convolution, since channels do
not lie last in them."""

CPU_SWIN_INFERENCE = Overhead(base=160e6, per_parameter=0.0, share=0.4)
"""Fitted; no code of optimisers and gradients is loaded."""

CPU_TRACED_INFERENCE = Overhead(base=110e6, per_parameter=0.0, share=0.0)
"""Fitted."""

GPU = Overhead(base=1e9, per_parameter=0.0, share=0.5)
"""Not measured: CUDA's context and the workspace of cuDNN are said to take 0.5 to 1 GB, fragments of memory
about a tenth of the whole."""

_SIZE: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingMemory:
    """Bytes at the moment of a training step that needs the most."""

    weights: int

    gradients: int
    """Of the parameters; 0 where they are not there at that moment."""

    optimiser: int
    """AdamW's two moments and the running average of the weights."""

    activations: int
    """What the forward pass keeps for the backward pass, logits among it."""

    loss: int
    """What the loss takes beside the logits."""

    transients: int
    """What lives for a moment in the backward pass, and workspace."""

    libraries: int
    """What the process takes by itself."""

    @property
    def fixed(self) -> int:
        """What does not depend on the patch: weights, gradients, optimiser and libraries."""
        return self.weights + self.gradients + self.optimiser + self.libraries

    @property
    def total(self) -> int:
        """Everything."""
        return sum(getattr(self, field.name) for field in fields(self))

    def calibrated(self, factor: float) -> "TrainingMemory":
        """The same with all that is estimated multiplied by the factor of `planners.calibration_factor`."""
        return replace(
            self,
            activations=round(factor * self.activations),
            loss=round(factor * self.loss),
            transients=round(factor * self.transients),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceMemory:
    """Bytes that the prediction of one volume takes at most, beside what the process holds before."""

    weights: int
    """Of all networks of the ensemble, with the position biases that they keep."""

    activations: int
    """Of one tile in one network, and its scores."""

    scores: int
    """The slab of every class' scores that moves along the volume."""

    image: int
    """The volume as it was read, its label map, and the rows that tiles are cut from."""

    transients: int
    """Workspace."""

    libraries: int
    """What the process takes by itself."""

    @property
    def total(self) -> int:
        """Everything."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Passes:
    """What a network is run on."""

    batch_size: int
    precision: Precision
    in_channels: int
    out_channels: int
    spacing_mm: Vector3
    gpu: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """A step in bytes, however it was counted."""

    parameters: int
    """Their number."""

    kept: int
    """At the end of the forward pass."""

    backward: int
    """More than that at the peak of the backward pass."""

    late: int
    """Everything near the end of the backward pass, where gradients of all parameters are there; 0 where
    that is known to be less."""

    overhead: Overhead


def training_memory(
    network: NetworkPlan,
    patch: Shape3,
    *,
    batch_size: int,
    precision: Precision,
    in_channels: int,
    out_channels: int,
    spacing_mm: Vector3,
    gpu: bool = False,
    factor: float = 1.0,
) -> TrainingMemory:
    """Peak memory of a training step, for patches of this shape.

    Args:
        network: to be trained.
        patch: voxels (S, P, L).
        batch_size: patches per step.
        precision: of the activations.
        in_channels: of the image.
        out_channels: of the logits.
        spacing_mm: of the patch.
        gpu: whether training runs on a GPU.
        factor: measured by `planners.calibration_factor`; all but the fixed part is multiplied by it.

    Raises:
        PlanError: if a network of another distribution cannot be built or traced.
    """
    of = _Passes(
        batch_size=batch_size,
        precision=precision,
        in_channels=in_channels,
        out_channels=out_channels,
        spacing_mm=spacing_mm,
        gpu=gpu,
    )
    voxels = batch_size * prod(patch)
    step = _counted(network, patch, of) if has_closed_form(network) else _traced(network, patch, of)
    moments = _moments(step, out_channels * voxels, voxels, precision)
    return max(moments, key=lambda moment: moment.total).calibrated(factor)


def has_closed_form(network: NetworkPlan) -> TypeGuard[SwinPlan]:
    """Whether the memory of this network is counted from its layout, so that it need not be traced."""
    return isinstance(network, SwinPlan)


def inference_memory(
    network: NetworkPlan,
    tile: Shape3,
    *,
    case: CaseMemory,
    precision: Precision,
    in_channels: int,
    out_channels: int,
    spacing_mm: Vector3,
    networks: int = 1,
    gpu: bool = False,
    factor: float = 1.0,
) -> InferenceMemory:
    """Peak memory of the prediction of one volume.

    Args:
        network: of each fold.
        tile: voxels (S, P, L).
        case: what the volume takes by itself.
        precision: of the activations.
        in_channels: of the image.
        out_channels: of the logits.
        spacing_mm: of the prepared volume.
        networks: that are ensembled.
        gpu: whether inference runs on a GPU.
        factor: as in `training_memory`.

    Raises:
        PlanError: if a network of another distribution cannot be built or traced.
    """
    of = _Passes(
        batch_size=1,
        precision=precision,
        in_channels=in_channels,
        out_channels=out_channels,
        spacing_mm=spacing_mm,
        gpu=gpu,
    )
    built, image = _on_meta(network, tile, of)
    inside = _checked(network, trace_tile, built, image)
    activations = inside + TILE_SCORE_BYTES * out_channels * prod(tile)
    overhead = _inference_overhead(network, gpu)
    return InferenceMemory(
        weights=networks * (FLOAT_BYTES * _count(built) + _position_biases(network, tile, of)),
        activations=round(factor * activations),
        scores=case.scores,
        image=case.image,
        transients=round(factor * overhead.share * inside),
        libraries=round(overhead.base),
    )


def _moments(step: _Step, scores: int, voxels: int, precision: Precision) -> Iterator[TrainingMemory]:
    """The moments of a step that may need the most.

    Gradients of the step before are there until the loss is known; those of this one come last.
    """
    weights, overhead = FLOAT_BYTES * step.parameters, step.overhead
    # In float32 the logits are those of the loss already.
    per_score = LOSS_BYTES - (FLOAT_BYTES if precision == "float32" else 0)
    backward_of_loss = LOSS_GRADIENT_BYTES * scores
    beyond = overhead.per_parameter * step.parameters
    beyond += overhead.share * (backward_of_loss + step.backward)
    for gradients, activations, loss, transients in (
        (weights, step.kept, per_score * scores + LOSS_BYTES_PER_VOXEL * voxels, 0),
        (0, step.kept, backward_of_loss, 0),
        (0, step.kept, 0, step.backward),
        (weights, step.late, 0, 0),
    ):
        yield TrainingMemory(
            weights=weights,
            gradients=gradients,
            optimiser=3 * weights,
            activations=activations,
            loss=round(loss),
            transients=round(transients + beyond),
            libraries=round(overhead.base),
        )


def _counted(network: SwinPlan, patch: Shape3, of: _Passes) -> _Step:
    """From the layout."""
    size = _SIZE[of.precision]
    layout = SwinLayout(network=network, patch=patch, batch_size=of.batch_size, size=size, gpu=of.gpu)
    parameters = parameter_count(network, of.in_channels, of.out_channels)
    # Convolutions keep their weights in the activations' format.
    cast = size * parameters if of.precision != "float32" else 0
    ends = cast + size * (of.in_channels + of.out_channels) * layout.voxels[0]
    passing, edges = layout.backward, 2 * layout.map(0)
    kept = layout.always + ends + (edges if network.checkpointing else layout.recomputed)
    if network.checkpointing:
        passing += layout.decoder(0) - layout.map(0)
    return _Step(
        parameters=parameters,
        kept=kept,
        backward=passing,
        late=ends + layout.late,
        overhead=_overhead(network, of.gpu),
    )


def _traced(network: NetworkPlan, patch: Shape3, of: _Passes) -> _Step:
    built, image = _on_meta(network, patch, of)
    trace = _checked(network, trace_step, built, image)
    return _Step(
        parameters=_count(built),
        kept=trace.kept,
        backward=trace.peak - trace.kept,
        late=0,
        overhead=_overhead(network, of.gpu),
    )


def _overhead(network: NetworkPlan, gpu: bool) -> Overhead:
    if gpu:
        return GPU
    return CPU_SWIN if has_closed_form(network) else CPU_TRACED


def _inference_overhead(network: NetworkPlan, gpu: bool) -> Overhead:
    if gpu:
        return GPU
    return CPU_SWIN_INFERENCE if has_closed_form(network) else CPU_TRACED_INFERENCE


def _position_biases(network: NetworkPlan, tile: Shape3, of: _Passes) -> int:
    if not isinstance(network, SwinPlan):
        return 0
    size = _SIZE[of.precision]
    layout = SwinLayout(network=network, patch=tile, batch_size=1, size=size, gpu=of.gpu)
    return layout.position_biases


def _on_meta(network: NetworkPlan, patch: Shape3, of: _Passes) -> tuple[nn.Module, Tensor]:
    """The network and a batch of images, without memory."""
    with torch.device("meta"):
        built = network.build(of.in_channels, of.out_channels, spacing_mm=of.spacing_mm, patch_size=patch)
        image = torch.empty(of.batch_size, of.in_channels, *patch)
    if of.precision != "float32" and hasattr(built, "compute_dtype"):
        setattr(built, "compute_dtype", getattr(torch, of.precision))  # noqa: B010 (unknown to the module class)
    return built, image


def _checked(
    network: NetworkPlan, trace: Callable[[nn.Module, Tensor], Traced], built: nn.Module, image: Tensor
) -> Traced:
    """Trace the network; say what is wrong with one of another distribution that cannot be traced."""
    try:
        with torch.device("meta"):
            return trace(built, image)
    except Exception as error:
        if not isinstance(network, ExternalPlan):
            raise
        raise PlanError(
            f"expected the network {network.entry_point!r} of the distribution {network.distribution} to "
            f"take images {tuple(image.shape)} on torch's meta device, found {type(error).__name__}: "
            f"{error}; mend or uninstall it, or choose another network"
        ) from error


def _count(built: nn.Module) -> int:
    return sum(parameter.numel() for parameter in built.parameters())


@cache
def parameter_count(network: SwinPlan, in_channels: int, out_channels: int) -> int:
    """Trainable numbers of the network; it is built without memory for them."""
    with torch.device("meta"):
        built = network.build(in_channels, out_channels, spacing_mm=(1.0, 1.0, 1.0), patch_size=(1, 1, 1))
    return _count(built)
