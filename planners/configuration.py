"""The plan of one configuration: a network at a spacing, with its sizes, recipe and augmentation."""

from dataclasses import fields

from autospine.core.types import Shape3, Vector3
from autospine.memory.estimate import InferenceMemory, TrainingMemory
from autospine.network.external_plan import ExternalPlan
from autospine.plan import Configuration, Decision
from autospine.storage.trained_models import FOLDS
from autospine.system.hardware import GIB
from autospine.system.log import get_logger
from planners import rules
from planners.networks import NetworkRequest
from planners.rationale import Note, decisions, readable
from planners.sizing import FAST, SearchResult, SizeSearch
from planners.training_recipe import plan_augmentation, plan_training

logger = get_logger(__name__)


def plan_configuration(
    search: SizeSearch, cases: str, spacing_mm: Vector3, why: str, request: NetworkRequest
) -> tuple[Configuration, list[Decision]]:
    """Return a configuration and the reasons for its numbers.

    Args:
        search: Dataset, budget and overrides.
        cases: Which of the spacings it is for: `fullres`, `lowres` or `fast`.
        spacing_mm: Target spacing (S, P, L).
        why: Reason for the spacing.
        request: Network to plan for.

    Raises:
        MemoryBudgetError: If not even the smallest size fits the memory.
        PlanError: If the user's patch is against the rules.
    """
    name = f"{cases}{request.suffix}"
    result, checkpointing_reason = search.choose(cases, name, spacing_mm, request)
    size, network = result.size, result.network
    shape = search.median_shape(spacing_mm)
    width_reason = "set by the user" if search.overrides.feature_size else result.planner.width_reason()
    notes: list[Note] = [
        ("spacing_mm", spacing_mm, why),
        ("patch_size", size.patch, _why_patch(search, cases, result, shape)),
        *result.planner.notes(network, width_reason),
    ]
    if not isinstance(network, ExternalPlan):
        notes.append(("checkpointing", "on" if network.checkpointing else "off", checkpointing_reason))
    memory = search.training(network, size, spacing_mm)
    share = f"{memory.total / search.budget.memory_bytes:.0%} of the budget"
    notes.append(("memory", f"{memory.total / GIB:.2f} GiB", f"{share}: {_parts(memory)}"))
    notes.append(_inference_note(search, name, result, spacing_mm))
    training, training_notes = plan_training(search, size, spacing_mm)
    augmentation, augmentation_notes = plan_augmentation(search)
    configuration = Configuration(
        name=name,
        cases=cases,
        spacing_mm=spacing_mm,
        patch_size=size.patch,
        network=network,
        training=training,
        augmentation=augmentation,
        memory_bytes=memory.total,
    )
    return configuration, decisions([*notes, *training_notes, *augmentation_notes], f"{name}.")


def _why_patch(search: SizeSearch, cases: str, result: SearchResult, shape: Shape3) -> str:
    """Return what stopped the growth of the patch."""
    size = result.size
    larger = result.candidates[result.candidates.index(size) + 1 :]
    grown = f"grown towards the median case {readable(shape)}"
    if search.names_levels:
        grown += f", up to {rules.REGION_MM:g} mm along S first: an end of a region tells levels"
    if search.overrides.patch_size:
        grown = "set by the user"
    if larger:
        following, budget = larger[0], search.budget.memory_bytes / GIB
        step = f"{readable(following.patch)}, {following.width} channels, batch {following.batch}"
        needed = result.bytes_needed(following)
        if needed <= search.budget.memory_bytes:
            return f"{grown}; as far as checkpointing is worth its time"
        return f"{grown}; the next step ({step}) needs {needed / GIB:.2f} GiB of {budget:.2f}"
    covered = all(n >= (1 - rules.SPARE) * m for n, m in zip(size.patch, shape, strict=True))
    if cases == FAST and not covered:
        return f"{grown}; a larger one would not be fast"
    if not search.overrides.patch_size and not covered:
        limit = search.device(cases).patch_voxels
        return f"{grown}, up to {limit} voxels: time is better spent on width and batch"
    if search.overrides.patch_size:
        return grown
    return f"{grown}, which is covered"


def _inference_note(search: SizeSearch, name: str, result: SearchResult, spacing_mm: Vector3) -> Note:
    """Return the memory of predicting the largest case, and warn where it exceeds the budget."""
    case, predicted = search.inference(result.network, result.size, spacing_mm)
    gib = predicted.total / GIB
    reason = f"estimated for the largest case, {case}, and {FOLDS} folds: {_parts(predicted)}"
    if predicted.total > search.budget.memory_bytes:
        reason += "; more than the budget for training"
        logger.warning("%s: the prediction of %s would take about %.1f GiB", name, case, gib)
    return "inference", f"{gib:.2f} GiB", reason


def _parts(memory: TrainingMemory | InferenceMemory) -> str:
    """Return the parts of an estimate in GiB, the largest first."""
    parts = {field.name: getattr(memory, field.name) / GIB for field in fields(memory)}
    listed = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {gib:.2f}" for name, gib in listed if gib >= 0.005)
