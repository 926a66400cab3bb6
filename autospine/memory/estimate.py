"""The memory that training and inference take, predicted without running either.

A training step has moments at which it may need the most: in the loss, in the gradient of the loss, and in
the backward pass through the network. Each is a sum of parts that are counted, not fitted: for Swin UNETR
from its layout (`autospine.memory.swin_layout`), for a network of another distribution by its own statement
if it makes one, and for any other network from a trace of the step on the meta device
(`autospine.memory.trace`). To its tensors a process adds a fixed amount, a few bytes per parameter, and a
share of what lives for a moment only; these three are fitted to the peak resident memory of training steps
on a CPU. docs/results/planner.md compares predictions with measurements.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from math import prod
from typing import TypeGuard, TypeVar

import torch
from torch import nn

from autospine.core.errors import PlanError
from autospine.core.tensor_types import ImageBatch
from autospine.core.types import Shape3, Vector3
from autospine.inference.case_memory import CaseMemory
from autospine.memory.footprint import InferenceMemory, TrainingMemory
from autospine.memory.loss_memory import loss_bytes, other_loss_bytes
from autospine.memory.swin_layout import SwinLayout
from autospine.memory.trace import trace_step, trace_tile
from autospine.network.external import StatedMemory, find_external
from autospine.network.external_plan import ExternalPlan
from autospine.network.network_plan import NetworkPlan
from autospine.network.swin.swin_plan import SwinPlan
from autospine.plan import Precision

__all__ = [
    "InferenceMemory",
    "TrainingMemory",
    "has_closed_form",
    "inference_memory",
    "parameter_count",
    "training_memory",
]

Traced = TypeVar("Traced")

FLOAT_BYTES = 4
"""Bytes of a parameter, its gradient, each of AdamW's two moments and the running average."""

TILE_SCORE_BYTES = 8.0
"""Bytes per voxel and class of a tile: a network's logits, and the sum of the probabilities, in float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overhead:
    """Memory of a process beyond its tensors."""

    base: float
    """Bytes of code and libraries that the first step loads."""

    per_parameter: float
    """Bytes per parameter: gradients before they are float32, and kernels reordered for a convolution."""

    share: float
    """Share of the momentary tensors of loss and backward pass: workspace of convolutions, and holes between
    blocks of memory that later tensors do not fit."""


CPU_SWIN = Overhead(base=290e6, per_parameter=2.0, share=0.7)
"""Fitted, and `base` raised, so that steps fit rather than just miss the budget."""

CPU_TRACED = Overhead(base=150e6, per_parameter=0.0, share=1.8)
"""Fitted. Other networks load less code, but their maps are copied for every convolution, since channels do
not lie last in them."""

CPU_SWIN_INFERENCE = Overhead(base=160e6, per_parameter=0.0, share=0.4)
"""Fitted; no code of optimisers and gradients is loaded."""

CPU_TRACED_INFERENCE = Overhead(base=110e6, per_parameter=0.0, share=0.0)
"""Fitted."""

GPU = Overhead(base=1e9, per_parameter=0.0, share=0.5)
"""Not measured: CUDA's context and the workspace of cuDNN are reported to take 0.5 to 1 GB, fragments of
memory about a tenth of the whole."""

_VALUE_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Workload:
    """The batch that a network is run on."""

    patch: Shape3
    """Voxels (S, P, L) of a patch or tile."""

    batch_size: int
    precision: Precision
    in_channels: int
    out_channels: int
    spacing_mm: Vector3
    gpu: bool
    other_loss: bool = False
    """Whether the loss is one of another distribution."""

    @property
    def value_bytes(self) -> int:
        """Bytes of one activation."""
        return _VALUE_BYTES[self.precision]


@dataclass(frozen=True, kw_only=True, slots=True)
class _StepBytes:
    """Bytes of a training step's tensors, counted, stated or traced."""

    parameters: int
    """Number of parameters."""

    kept: int
    """Bytes at the end of the forward pass."""

    backward: int
    """Bytes beyond `kept` at the peak of the backward pass."""

    late: int = 0
    """All activations near the end of the backward pass, where the gradients of all parameters exist; 0 where
    that is known to be less."""


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
    other_loss: bool = False,
    overhead: Overhead | None = None,
) -> TrainingMemory:
    """Return the peak memory of a training step.

    Args:
        network: Network to be trained.
        patch: Voxels (S, P, L) of a patch.
        batch_size: Patches per step.
        precision: Number format of the activations.
        in_channels: Channels of the image.
        out_channels: Channels of the logits, background included.
        spacing_mm: Voxel spacing (S, P, L) of the patch.
        gpu: Whether training runs on a GPU.
        factor: Factor measured by `planners.calibration_factor`, which multiplies all but the fixed part.
        other_loss: Whether the loss is one of another distribution, which may keep more than `dice_ce`.
        overhead: Memory beyond the tensors; None for what is known of the device. Measurements fit it.

    Raises:
        PlanError: If a network of another distribution cannot be built or traced.
    """
    load = _Workload(
        patch=patch,
        batch_size=batch_size,
        precision=precision,
        in_channels=in_channels,
        out_channels=out_channels,
        spacing_mm=spacing_mm,
        gpu=gpu,
        other_loss=other_loss,
    )
    moments = _moments(_step_bytes(network, load), overhead or _training_overhead(network, gpu), load)
    return max(moments, key=lambda moment: moment.total).calibrated(factor)


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
    """Return the peak memory of the prediction of one volume.

    Args:
        network: Network of each fold.
        tile: Voxels (S, P, L) of a tile.
        case: Memory of the volume itself.
        precision: Number format of the activations.
        in_channels: Channels of the image.
        out_channels: Channels of the logits, background included.
        spacing_mm: Voxel spacing (S, P, L) of the prepared volume.
        networks: Number of networks that are ensembled.
        gpu: Whether inference runs on a GPU.
        factor: As in `training_memory`.

    Raises:
        PlanError: If a network of another distribution cannot be built or traced.
    """
    load = _Workload(
        patch=tile,
        batch_size=1,
        precision=precision,
        in_channels=in_channels,
        out_channels=out_channels,
        spacing_mm=spacing_mm,
        gpu=gpu,
    )
    built = _on_meta(network, load)
    stated = _stated(network, load)
    inside = _checked(network, trace_tile, built, load) if stated is None else stated.tile
    overhead = _inference_overhead(network, gpu)
    return InferenceMemory(
        weights=networks * (FLOAT_BYTES * _count(built) + _position_biases(network, load)),
        activations=round(factor * (inside + TILE_SCORE_BYTES * out_channels * prod(tile))),
        scores=case.scores,
        image=case.image,
        transients=round(factor * overhead.share * inside),
        libraries=round(overhead.base),
    )


def has_closed_form(network: NetworkPlan) -> TypeGuard[SwinPlan]:
    """Return whether the memory of this network is counted from its layout, so that it need not be traced."""
    return isinstance(network, SwinPlan)


def parameter_count(network: NetworkPlan, in_channels: int, out_channels: int) -> int:
    """Return the number of trainable parameters; the network is built on the meta device, without memory."""
    if not has_closed_form(network):
        return _built_count(network, in_channels, out_channels)
    # The size search asks for many windows, and these change nothing but the tables of position biases.
    plain = replace(network, window_sizes=((1, 1, 1),) * 4, checkpointing=False)
    tables = network.position_parameters - plain.position_parameters
    return _built_count(plain, in_channels, out_channels) + tables


@cache
def _built_count(network: NetworkPlan, in_channels: int, out_channels: int) -> int:
    with torch.device("meta"):
        built = network.build(in_channels, out_channels, spacing_mm=(1.0, 1.0, 1.0), patch_size=(1, 1, 1))
    return _count(built)


def _moments(step: _StepBytes, overhead: Overhead, load: _Workload) -> Iterator[TrainingMemory]:
    """Yield the moments of a step that may need the most.

    The gradients of the step before exist until the loss is known; those of this step come last.
    """
    weights = FLOAT_BYTES * step.parameters
    loss = (other_loss_bytes if load.other_loss else partial(loss_bytes, gpu=load.gpu))(
        load.patch, load.batch_size, load.out_channels, load.value_bytes
    )
    beyond = overhead.per_parameter * step.parameters
    beyond += overhead.share * (loss.gradient + step.backward)
    for gradients, activations, of_loss, transients in (
        (weights, step.kept, loss.forward, 0),
        (0, step.kept, loss.gradient, 0),
        (0, step.kept, 0, step.backward),
        (weights, step.late, 0, 0),
    ):
        yield TrainingMemory(
            weights=weights,
            gradients=gradients,
            optimiser=3 * weights,
            activations=activations,
            loss=round(of_loss),
            transients=round(transients + beyond),
            libraries=round(overhead.base),
        )


def _step_bytes(network: NetworkPlan, load: _Workload) -> _StepBytes:
    """Return the bytes of a step: counted where there is a closed form, stated by the network, or traced."""
    if has_closed_form(network):
        return _counted(network, load)
    built = _on_meta(network, load)
    stated = _stated(network, load)
    if stated is not None:
        return _StepBytes(parameters=_count(built), kept=stated.kept, backward=stated.backward)
    trace = _checked(network, trace_step, built, load)
    return _StepBytes(parameters=_count(built), kept=trace.kept, backward=trace.peak - trace.kept)


def _counted(network: SwinPlan, load: _Workload) -> _StepBytes:
    """Return the bytes of a step of the Swin UNETR, from its layout."""
    layout = _layout(network, load)
    parameters = parameter_count(network, load.in_channels, load.out_channels)
    # Convolutions keep their weights in the activations' format.
    cast = load.value_bytes * parameters if load.precision != "float32" else 0
    ends = cast + load.value_bytes * (load.in_channels + load.out_channels) * layout.voxels[0]
    ends += layout.gradient_channel + layout.level_logits(load.out_channels)
    backward, kept = layout.backward, layout.always + ends
    if network.checkpointing:
        # Encoder and decoder at full resolution keep their inputs and outputs, and the decoder is made again.
        kept += 2 * layout.map(0)
        backward += layout.decoder(0) - layout.map(0)
    else:
        kept += layout.recomputed
    return _StepBytes(parameters=parameters, kept=kept, backward=backward, late=ends + layout.late)


def _layout(network: SwinPlan, load: _Workload) -> SwinLayout:
    return SwinLayout(
        network=network,
        patch=load.patch,
        batch_size=load.batch_size,
        size=load.value_bytes,
        gpu=load.gpu,
    )


def _position_biases(network: NetworkPlan, load: _Workload) -> int:
    """Return the bytes of the position biases that a network gathers once and keeps in inference."""
    return _layout(network, load).position_biases if has_closed_form(network) else 0


def _stated(network: NetworkPlan, load: _Workload) -> StatedMemory | None:
    """Return what a network of another distribution states about its memory, if it does."""
    if not isinstance(network, ExternalPlan):
        return None
    return find_external(network.entry_point).memory(
        load.in_channels,
        load.out_channels,
        load.spacing_mm,
        load.patch,
        load.batch_size,
        load.value_bytes,
        network.settings,
    )


def _training_overhead(network: NetworkPlan, gpu: bool) -> Overhead:
    if gpu:
        return GPU
    return CPU_SWIN if has_closed_form(network) else CPU_TRACED


def _inference_overhead(network: NetworkPlan, gpu: bool) -> Overhead:
    if gpu:
        return GPU
    return CPU_SWIN_INFERENCE if has_closed_form(network) else CPU_TRACED_INFERENCE


def _on_meta(network: NetworkPlan, load: _Workload) -> nn.Module:
    """Return the network on the meta device, which takes no memory."""
    with torch.device("meta"):
        built = network.build(
            load.in_channels, load.out_channels, spacing_mm=load.spacing_mm, patch_size=load.patch
        )
    if load.precision != "float32" and hasattr(built, "compute_dtype"):
        setattr(built, "compute_dtype", getattr(torch, load.precision))  # noqa: B010 (unknown to the module class)
    return built


def _checked(
    network: NetworkPlan,
    trace: Callable[[nn.Module, ImageBatch], Traced],
    built: nn.Module,
    load: _Workload,
) -> Traced:
    """Return the trace of a network; say what is wrong with one of another distribution that fails."""
    if not isinstance(network, ExternalPlan):
        found: Traced = _traced(network, trace, load)
        return found
    external = find_external(network.entry_point)
    image = _image(load)
    try:
        with torch.device("meta"):
            external.check_output(built(image), (load.batch_size, load.out_channels, *load.patch))
            return trace(built, image)
    except PlanError:
        raise
    except Exception as error:
        what = f"does not take images {tuple(image.shape)} on torch's meta device:"
        raise external.plugin.broken(what, error) from error


# A trace takes up to a second, and plans for several budgets share configurations.
@lru_cache(maxsize=128)
def _traced(
    network: NetworkPlan, trace: Callable[[nn.Module, ImageBatch], Traced], load: _Workload
) -> Traced:
    built = _on_meta(network, load)
    with torch.device("meta"):
        return trace(built, _image(load))


def _image(load: _Workload) -> ImageBatch:
    return torch.empty(load.batch_size, load.in_channels, *load.patch, device="meta")


def _count(built: nn.Module) -> int:
    return sum(parameter.numel() for parameter in built.parameters())
