"""The recipe of a configuration: optimiser, schedule, sampling and augmentation, each with its reason."""

from math import prod

from autospine.core.defaults import DEFAULT_LOSS
from autospine.core.types import Vector3
from autospine.plan import Augmentation, TrainingPlan
from planners import rules
from planners.rationale import Note
from planners.rules import StepSize
from planners.sizing import SizeSearch

HOURS = "estimated hours"
"""Name of the decision that holds the estimated hours of a configuration on a GPU."""


def plan_training(search: SizeSearch, size: StepSize, spacing_mm: Vector3) -> tuple[TrainingPlan, list[Note]]:
    """Return the training recipe for a patch size and batch size, with the reasons.

    Args:
        search: Dataset and budget.
        size: Patch, width and batch size.
        spacing_mm: Target spacing (S, P, L).
    """
    device = search.trainer
    lambda_ce, why_lambda = rules.lambda_ce([c.volume_ml for c in search.fingerprint.classes])
    oversampling, why_oversampling = rules.oversampling(size.patch, search.median_shape(spacing_mm))
    epochs, why_epochs, hours = _plan_time(search, size, spacing_mm)
    plan = TrainingPlan(
        epochs=epochs,
        iterations_per_epoch=device.iterations_per_epoch,
        batch_size=size.batch,
        learning_rate=device.learning_rate,
        weight_decay=0.05,
        warmup_fraction=0.05,
        gradient_clip=1.0,
        ema_decay=0.999,
        loss=search.overrides.loss,
        loss_settings=search.overrides.loss_settings,
        lambda_ce=lambda_ce,
        oversample_foreground_fraction=oversampling,
        precision=search.budget.precision,
    )
    schedule = f"{plan.epochs} epochs of {plan.iterations_per_epoch} steps"
    rate_reason = "AdamW, relative to each tensor's size; higher where time is short"
    decay_reason = "nnU-Net's for transformers; on matrices and kernels only"
    notes: list[Note] = [
        ("batch_size", size.batch, _why_batch(size.batch, gpu=search.budget.gpu)),
        ("training", schedule, f"{why_epochs}; --max-minutes fits the schedule to a time"),
        *hours,
        ("learning_rate", plan.learning_rate, rate_reason),
        ("lambda_ce", lambda_ce, why_lambda),
        ("oversampling", oversampling, why_oversampling),
        ("precision", plan.precision, "the fastest number format that this device multiplies natively"),
        ("weight_decay", plan.weight_decay, decay_reason),
        ("warmup_fraction", plan.warmup_fraction, "nnU-Net's for transformers"),
        ("gradient_clip", plan.gradient_clip, "nnU-Net's for transformers"),
        ("ema_decay", plan.ema_decay, "a running average over about a thousand steps"),
    ]
    if plan.loss != DEFAULT_LOSS:
        notes.append(("loss", plan.loss, "set by the user"))
    return plan, notes


def _plan_time(search: SizeSearch, size: StepSize, spacing_mm: Vector3) -> tuple[int, str, list[Note]]:
    """Return the epochs, the reason for their number, and on a GPU a note on the hours that a fold takes."""
    device = search.trainer
    if isinstance(device, rules.CPU):
        return device.epochs, "the device's default", []
    gpu, found = rules.throughput_of(search.budget.gpu_name, search.budget.memory_bytes)
    voxels = size.batch * prod(size.patch)
    seconds = rules.step_seconds(gpu, size.width, voxels)
    epochs, why = rules.epochs_worth(device, voxels, search.dataset_voxels(spacing_mm), seconds)
    hours = rules.fold_hours(epochs, device.iterations_per_epoch, seconds)
    reason = f"estimated {found} by its data sheet ({seconds:.2g} s a step), not measured"
    return epochs, why, [(HOURS, f"{hours:.2g}", reason)]


def _why_batch(batch: int, *, gpu: bool) -> str:
    if not gpu:
        return "on a CPU more steps in the same time are worth more"
    if batch == 1:
        return "as much as fits, or as a CPU would take"
    if batch == 2:
        return "nnU-Net's least; more only once the case is covered and a batch is a small part of the data"
    return "the case is covered, and a batch is a small part of the data"


def plan_augmentation(search: SizeSearch) -> tuple[Augmentation, list[Note]]:
    """Return the strengths of the augmentation for the dataset's labels and modalities, with the reasons."""
    axes, pairs, why_axes = rules.mirroring(search.dataset.labels)
    scale, why_scale = rules.scaling(levels=search.names_levels)
    artefacts, listed = rules.artefacts({case.modality for case in search.fingerprint.cases})
    # An image that is made has one channel.
    mapped = sum(case.tissues is not None for case in search.dataset.cases if len(case.images) == 1)
    synthesis, why_synthesis = rules.synthesis(mapped, len(search.dataset.cases))
    plan = Augmentation(
        rotation_deg=(10.0, 10.0, 15.0),
        scale=scale,
        elastic_mm=2.0,
        spatial_probability=search.trainer.spatial_probability,
        intensity_probability=0.15,
        mirror_axes=axes,
        mirror_pairs=pairs,
        synthesis_probability=synthesis,
        **artefacts,
    )
    rotation_reason = "how patients lie; most about the L axis, where spines bend"
    return plan, [
        ("mirror_axes", "".join("SPL"[axis] for axis in axes) or "none", why_axes),
        ("artefacts", listed, "the modalities of the dataset"),
        *([("synthesis_probability", synthesis, why_synthesis)] if synthesis else []),
        ("rotation_deg", plan.rotation_deg, rotation_reason),
        ("scale", plan.scale, why_scale),
        ("elastic_mm", plan.elastic_mm, "less than the thinnest parts of a vertebra"),
        ("spatial_probability", plan.spatial_probability, "the device's: short trainings change fewer"),
        ("intensity_probability", plan.intensity_probability, "about nnU-Net's, for each change"),
    ]
