"""Datasets as they come, and the plans for them that are kept to be read."""

from collections.abc import Callable

from unit.planners import facts

from autospine.core.labels import VERSE, parse_labels
from autospine.plan import Plan
from planners.planner import make_plan
from planners.sizing import Budget

GIB = 1024**3

STRUCTURES = {"vertebra": 1, "disc": 2, "canal": 3, "sacrum": 4}
LEVELS = {name: VERSE[name] for name in VERSE if name not in ("cord", "canal", "coccyx")}
LEVEL_MM = [9.0] * 7 + [13.0] * 12 + [17.0] * 6 + [24.0, 13.0]

Archetype = Callable[[Budget], Plan]


def laptop(gib: float = 6) -> Budget:
    return Budget(memory_bytes=int(gib * GIB), gpu=False, precision="bfloat16", reason="a test")


def gpu(gib: float) -> Budget:
    return Budget(memory_bytes=int(gib * GIB), gpu=True, precision="bfloat16", reason="a test")


def plan(name, names, cases, thicknesses_mm, budget, modality="CT") -> Plan:
    measured = facts.fingerprint(cases, thicknesses_mm, modality, name, list(names))
    channel = "MR" if modality == "MR" else "CT"
    return make_plan(facts.dataset(parse_labels(names), [channel], name), measured, budget)


def lumbar_ct(budget: Budget) -> Plan:
    """Lumbar CT of 0.8 mm."""
    cases = [
        ((275, 225, 240), (0.8, 0.8, 0.8)),
        ((225, 250, 250), (1.0, 0.75, 0.75)),
        ((300, 200, 210), (0.8, 0.85, 0.85)),
    ]
    return plan("Dataset001_LumbarCT", STRUCTURES, cases, [19.0, 8.5, 14.0, 26.0], budget)


def sagittal_mr(budget: Budget) -> Plan:
    """T2 in 15 thick sagittal slices."""
    names = {name: STRUCTURES[name] for name in ("vertebra", "disc", "canal")}
    cases = [((448, 448, 15), (0.68, 0.68, 4.4)), ((512, 512, 17), (0.6, 0.6, 4.0))]
    return plan("Dataset002_SagittalMR", names, cases, [18.0, 7.5, 13.0], budget, "MR")


def whole_spine(budget: Budget) -> Plan:
    """Every vertebra by level in CT of the whole spine, about 1 mm."""
    cases = [
        ((900, 350, 300), (0.8, 0.6, 0.6)),
        ((620, 280, 260), (1.0, 0.7, 0.7)),
        ((480, 512, 512), (1.0, 0.4, 0.4)),
    ]
    return plan("Dataset003_WholeSpine", LEVELS, cases, LEVEL_MM, budget)


def low_dose_ct(budget: Budget) -> Plan:
    """Low-dose CT of the trunk in slices of 3 mm."""
    cases = [((190, 512, 512), (3.0, 0.9, 0.9)), ((160, 512, 512), (3.0, 0.78, 0.78))]
    return plan("Dataset004_LowDoseCT", STRUCTURES, cases, [19.0, 8.5, 14.0, 26.0], budget)


def isotropic_mr(budget: Budget) -> Plan:
    """MR of about a millimetre in every direction."""
    cases = [((320, 256, 96), (0.9, 0.9, 0.9)), ((300, 300, 80), (1.0, 1.0, 1.0))]
    return plan("Dataset005_IsotropicMR", STRUCTURES, cases, [18.0, 7.5, 13.0, 25.0], budget, "MR")


def mixed(budget: Budget) -> Plan:
    """CT and MR of the lumbar spine in one dataset."""
    cases = [
        ((275, 225, 240), (0.8, 0.8, 0.8)),
        ((225, 250, 250), (1.0, 0.75, 0.75)),
        ((448, 448, 15), (0.68, 0.68, 4.4)),
        ((320, 256, 96), (0.9, 0.9, 0.9)),
    ]
    modality = ["CT", "CT", "MR", "MR"]
    return plan("Dataset006_Mixed", STRUCTURES, cases, [19.0, 8.0, 14.0, 26.0], budget, modality)


def tiny_crops(budget: Budget) -> Plan:
    """Single vertebrae, cut out."""
    names = {"body": 1, "arch": 2}
    shapes = [(48, 40, 50), (44, 38, 52), (50, 41, 47)]
    cases = [(shape, (1.0, 1.0, 1.0)) for shape in shapes]
    return plan("Dataset007_TinyCrops", names, cases, [22.0, 6.0], budget)


def one_huge_case(budget: Budget) -> Plan:
    """A CT of the whole body among small ones."""
    small = [((200, 160, 160), (1.0, 0.9, 0.9))] * 4
    cases = [*small, ((1800, 512, 512), (1.0, 0.98, 0.98))]
    return plan("Dataset008_OneHuge", STRUCTURES, cases, [19.0, 8.5, 14.0, 26.0], budget)


ARCHETYPES: dict[str, Archetype] = {
    "lumbar_ct": lumbar_ct,
    "sagittal_mr": sagittal_mr,
    "whole_spine": whole_spine,
    "low_dose_ct": low_dose_ct,
    "isotropic_mr": isotropic_mr,
    "mixed": mixed,
    "tiny_crops": tiny_crops,
    "one_huge_case": one_huge_case,
}

GOLDEN: dict[str, tuple[Archetype, Budget]] = {
    "lumbar_ct": (lumbar_ct, laptop()),
    "sagittal_mr": (sagittal_mr, laptop()),
    "whole_spine": (whole_spine, gpu(16)),
    "low_dose_ct": (low_dose_ct, gpu(11)),
    "isotropic_mr": (isotropic_mr, gpu(24)),
    "mixed": (mixed, gpu(8)),
    "tiny_crops": (tiny_crops, gpu(8)),
    "one_huge_case": (one_huge_case, laptop(10)),
}
"""Each with the device that its plan is kept for."""
