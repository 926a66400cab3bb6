"""The planner: fingerprint and memory budget in, plan out."""

from autospine.dataset.raw import Dataset
from autospine.fingerprint import Fingerprint
from autospine.plan import FORMAT_VERSION, Plan
from autospine.system.hardware import GIB
from planners import rules
from planners.overrides import Overrides
from planners.rationale import Note, decisions
from planners.resolutions import plan_resolutions
from planners.sizing import Budget, SizeSearch


def make_plan(
    dataset: Dataset, fingerprint: Fingerprint, budget: Budget, overrides: Overrides | None = None
) -> Plan:
    """Decide everything that preprocessing, training and inference need.

    Args:
        dataset: Dataset whose channels, labels and file ending go into the plan.
        fingerprint: Measurements of the same dataset.
        budget: Memory and device to plan for.
        overrides: What the user has set; everything else is planned around it.

    Raises:
        PlanError: If no patch of any configuration fits the budget, or an override contradicts the rules.
    """
    search = SizeSearch(dataset, fingerprint, budget, overrides or Overrides())
    normalisation, reason = rules.normalisation(fingerprint)
    ct = normalisation["CT"]
    notes = _budget_notes(budget)
    notes.append(("normalisation", f"CT {ct.lower:.0f} ... {ct.upper:.0f} HU, MR per image", reason))
    planned = plan_resolutions(search)
    return Plan(
        format_version=FORMAT_VERSION,
        dataset=dataset.name,
        channels=dataset.channels,
        labels=dataset.labels,
        file_ending=dataset.file_ending,
        normalisation=normalisation,
        configurations=tuple(planned.configurations),
        memory_budget_bytes=budget.memory_bytes,
        device="gpu" if budget.gpu else "cpu",
        rationale=(*decisions(notes), *planned.rationale),
    )


def _budget_notes(budget: Budget) -> list[Note]:
    notes: list[Note] = [("memory budget", f"{budget.memory_bytes / GIB:.1f} GiB", budget.reason)]
    if budget.calibration != 1:
        reason = "measured over predicted memory, by real steps on this device"
        notes.append(("calibration", f"{budget.calibration:.2f}", reason))
    return notes
