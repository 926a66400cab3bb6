"""The resolutions of a plan: full resolution, and where they are worth having `fast` and `lowres`."""

from dataclasses import dataclass, field
from math import floor

from autospine.core.types import Vector3
from autospine.plan import Configuration, Decision
from autospine.system.log import get_logger
from planners import rules
from planners.configuration import plan_configuration
from planners.rationale import decisions, readable
from planners.sizing import FAST, FULLRES, LOWRES, MemoryBudgetError, SizeSearch

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedResolution:
    """The configurations of one spacing or several, and the reasons behind them."""

    configurations: list[Configuration] = field(default_factory=list)
    rationale: list[Decision] = field(default_factory=list)
    too_large: list[MemoryBudgetError] = field(default_factory=list)
    """Errors of the configurations that do not fit the memory."""


def plan_resolutions(search: SizeSearch) -> PlannedResolution:
    """Return the configurations in the order of recommendation, without those that do not fit the memory.

    Raises:
        MemoryBudgetError: If none fits; the one that needs the least memory.
    """
    full_mm, why = rules.target_spacing([case.spacing_mm for case in search.fingerprint.cases])
    if search.overrides.spacing_mm:
        full_mm, why = search.overrides.spacing_mm, "set by the user"
    fullres = _at_spacing(search, FULLRES, full_mm, why)
    fast = _fast(search, full_mm)
    lowres = _lowres(search, full_mm, fullres.configurations)
    # `fast` stands last where there is a GPU, and where it is empty.
    last_is_fast = search.budget.gpu or not fast.configurations
    ordered = [fullres, lowres, fast] if last_is_fast else [fast, lowres, fullres]
    configurations = [each for resolution in ordered for each in resolution.configurations]
    too_large = [error for resolution in (fullres, fast, lowres) for error in resolution.too_large]
    if not configurations:
        raise min(too_large, key=lambda error: error.least)
    for error in too_large:
        logger.warning("%s", error)
    recommended, reason = _recommended(search.budget.gpu, fullres, fast)
    return PlannedResolution(
        configurations=configurations,
        rationale=[
            *(decision for resolution in (fullres, fast, lowres) for decision in resolution.rationale),
            *decisions([("configuration 0", recommended, reason)]),
        ],
        too_large=too_large,
    )


def _recommended(gpu: bool, fullres: PlannedResolution, fast: PlannedResolution) -> tuple[str, str]:
    """Return the resolution that comes first, and the reason."""
    if not fullres.configurations:
        return FAST if fast.configurations else LOWRES, f"there is no {FULLRES}"
    if not fast.configurations:
        return FULLRES, f"there is no {FAST}"
    if gpu:
        return FULLRES, "a GPU trains at full resolution in reasonable time"
    return FAST, "without a GPU time is scarcest"


def _fast(search: SizeSearch, full_mm: Vector3) -> PlannedResolution:
    """Return the configurations of the coarse spacing; none where they would show less than three levels."""
    spacing_mm, why = rules.fast_spacing(full_mm, search.thicknesses_mm)
    if spacing_mm == full_mm:
        return _left_out(FAST, f"no coarser than {FULLRES} ({why})")
    planned = _at_spacing(search, FAST, spacing_mm, why)
    shape = search.median_shape(spacing_mm)
    shows_enough = all(
        rules.holds(each.patch_size, rules.THREE_LEVELS_MM, spacing_mm, shape)
        for each in planned.configurations
    )
    if shows_enough or search.overrides.patch_size:
        return planned
    reason = (
        f"{rules.FAST_VOXELS} voxels would show less than three levels at {readable(spacing_mm)} mm ({why})"
    )
    return _left_out(FAST, reason, planned.too_large)


def _lowres(search: SizeSearch, full_mm: Vector3, fullres: list[Configuration]) -> PlannedResolution:
    """Return the configurations whose patches span the spine; none where those of `fullres` show enough."""
    size_mm, spine_mm = search.median_size_mm, search.spine_mm
    low_mm, why = rules.lowres_spacing(full_mm, size_mm, spine_mm)
    patch_mm = fullres[0].patch_size[0] * full_mm[0] if fullres else None
    enough_mm, named = rules.context_mm(spine_mm, levels=search.names_levels)
    reason = rules.why_no_lowres(full_mm, low_mm, size_mm, patch_mm, enough_mm, named)
    if reason is None:
        if patch_mm is not None:
            why += f"; a patch of fullres spans {patch_mm:.0f} mm, less than {named} ({enough_mm:.0f} mm)"
        return _at_spacing(search, LOWRES, low_mm, why)
    return _left_out(LOWRES, reason)


def _left_out(cases: str, reason: str, too_large: list[MemoryBudgetError] | None = None) -> PlannedResolution:
    return PlannedResolution(rationale=decisions([(cases, "none", reason)]), too_large=too_large or [])


def _at_spacing(search: SizeSearch, cases: str, spacing_mm: Vector3, why: str) -> PlannedResolution:
    """Return a configuration for each requested network, and what does not fit the memory."""
    planned = PlannedResolution(rationale=_lost_classes(search, cases, spacing_mm))
    for request in search.overrides.requests:
        try:
            configuration, reasons = plan_configuration(search, cases, spacing_mm, why, request)
        except MemoryBudgetError as error:
            planned.rationale.extend(decisions([(f"{cases}{request.suffix}", "none", str(error))]))
            planned.too_large.append(error)
        else:
            planned.configurations.append(configuration)
            planned.rationale.extend(reasons)
    return planned


def _lost_classes(search: SizeSearch, cases: str, spacing_mm: Vector3) -> list[Decision]:
    """Return a note on the classes that are thinner than a voxel, and warn of them."""
    classes = search.fingerprint.classes
    known = {c.name: c.thickness_mm for c in classes if c.thickness_mm is not None}
    lost = rules.lost_classes(known, spacing_mm)
    if not lost:
        return []
    listed = ", ".join(f"{name} ({mm:.2f} mm)" for name, mm in lost.items())
    enough = floor(100 * min(lost.values())) / 100
    # Of the spacings only that of `fullres` is the user's to set.
    advice = f"--spacing of at most {enough:g} mm keeps them" if cases == FULLRES else "fullres is finer"
    reason = f"thinner than a voxel: {listed}; {advice}"
    logger.warning("%s at %s mm: %s", cases, readable(spacing_mm), reason)
    return decisions([(f"{cases} loses", f"{len(lost)} classes", reason)])
