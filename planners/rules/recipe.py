"""Rules for intensities, mirroring, loss, sampling and artefacts."""

from collections.abc import Collection, Sequence
from math import log10, prod
from typing import TypedDict

from autospine.core.labels import LabelSpace, side_pairs
from autospine.core.types import Modality, Shape3
from autospine.fingerprint import Fingerprint
from autospine.plan import Normalisation
from autospine.vertebrae.dataset_levels import level_integers

BALANCE = 0.5
"""Share of the cross-entropy in the loss that the paper starts from."""

FREE_DECADES = 2.0
"""Powers of ten by which classes may differ in size before the share changes: vertebrae of one spine do."""

DECADE_SHIFT = 0.1
"""Decrease of the share per further power of ten; a rule of thumb, not a measured one."""

LEAST_LAMBDA = 0.3
"""Smallest share: Dice alone has unsteady gradients."""

WANTED_FOREGROUND = 0.75
"""Share of the patches that should show a structure."""

LEAST_OVERSAMPLING = 0.5
"""Least share of patches that are centred on one: what nnU-Net's third comes to for batches of two."""

SCALE = (0.85, 1.18)
"""Range of the zoom: from small to tall adults."""

LEVEL_SCALE = 1.15
"""Largest zoom, in and out, where classes are levels. In the mid-thorax they lie 24 mm apart, at T1 21 mm and
at T10 27.5 (measured on public CT masks): a larger zoom makes any of these levels as large as another."""

BIAS_PROBABILITY = 0.3
"""Share of MR patches with a bias field: most scans have one, and few are strong."""

BIAS_STD = 0.2
"""Standard deviation of the field's logarithm: 95 % of it lies within 40 %, the stronger of BrainWeb's two
fields (Collins, IEEE TMI 1998)."""

METAL_PROBABILITY = 0.1
"""Share of CT patches with metal; patients with implants are rarer, but failures there are gross."""

METAL_HU = 400.0
"""Streaks of about the contrast between bone and muscle; a rule of thumb, not a measured one."""

WINDOW_PROBABILITY = 0.3
"""Share of CT patches with another window; a rule of thumb."""

WINDOW_SHIFT = 0.05
"""Largest shift as a share of the clipping range: what another scanner's calibration and another dataset's
statistics come to."""

SYNTHESIS_PROBABILITY = 0.5
"""Share of patches whose image is made from a tissue map, where there is one; a rule of thumb."""


class Artefacts(TypedDict):
    """The keys of `Augmentation` that depend on the modalities."""

    bias_probability: float
    bias_std: float
    metal_probability: float
    metal_hu: float
    window_probability: float
    window_shift: float


def normalisation(fingerprint: Fingerprint) -> tuple[dict[Modality, Normalisation], str]:
    """Return the normalisation: CT by the dataset's foreground, where HU are comparable; MR by each image."""
    facts = fingerprint.intensities.get("CT")
    ct = (
        Normalisation(
            scope="dataset",
            lower=facts.percentile_00_5,
            upper=facts.percentile_99_5,
            mean=facts.mean,
            std=max(facts.std, 1.0),
        )
        if facts
        # Vertebrae in public CT: median 115 to 350 HU, cortex to about 1200.
        else Normalisation(scope="dataset", lower=-150.0, upper=1200.0, mean=250.0, std=250.0)
    )
    mr = Normalisation(scope="image", lower=0.005, upper=0.995, mean=0.0, std=1.0)
    reason = (
        f"CT: foreground percentiles 0.5 and 99.5 ({ct.lower:.0f} ... {ct.upper:.0f} HU)"
        if facts
        else "no CT here: usual range of vertebrae"
    )
    return {
        "CT": ct,
        "MR": mr,
    }, f"{reason}; MR: each image's own 0.5 and 99.5 % quantiles, mean and deviation"


def mirroring(labels: LabelSpace) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], str]:
    """Return the axes that may be mirrored, and the pairs of stored labels that change places then.

    Only left and right may be exchanged, never top and bottom or front and back.
    """
    sides = side_pairs(labels.names)
    uneven = [(a, b) for a, b in sides.pairs if len(labels.members[a]) != len(labels.members[b])]
    alone = [labels.names[i] for i in (*sides.single, *(i for pair in uneven for i in pair))]
    if alone:
        return (), (), f"off: {', '.join(alone)} has no counterpart on the other side"
    index = {integer: i for i, integer in enumerate(labels.integers, start=1)}
    pairs = tuple(
        (index[a], index[b])
        for first, second in sides.pairs
        for a, b in zip(labels.members[first], labels.members[second], strict=True)
        if a != b
    )
    swapped = f", {len(pairs)} pairs of side-specific labels change places" if pairs else ""
    others = "the other flips do not occur in patients"
    if level_integers(labels):
        others = "along S, levels would run from the feet to the head, and no patient lies back to front"
    return (2,), pairs, f"left/right only{swapped}; {others}"


def scaling(*, levels: bool) -> tuple[tuple[float, float], str]:
    """Return the range of the zoom; a narrower one where the classes are vertebra levels."""
    if levels:
        reason = "from small to tall adults, short of what makes a vertebra look like one of another level"
        return (round(1 / LEVEL_SCALE, 2), LEVEL_SCALE), reason
    return SCALE, "from small to tall adults"


def lambda_ce(volumes_ml: Sequence[float]) -> tuple[float, str]:
    """Return the share of the cross-entropy in the loss, smaller where classes differ much in size.

    `max(0.3, 0.5 - 0.1 max(0, log10(r) - 2))` for the ratio r of the largest class to the smallest.
    Cross-entropy counts voxels, so small classes hardly weigh in it; Dice counts classes.

    Args:
        volumes_ml: Median volume of each class that occurs.
    """
    known = [volume for volume in volumes_ml if volume > 0]
    ratio = max(known) / min(known) if known else 1.0
    value = BALANCE - DECADE_SHIFT * max(0.0, log10(ratio) - FREE_DECADES)
    value = round(max(LEAST_LAMBDA, value), 2)
    differ = f"classes differ {ratio:.0f}-fold in size" if ratio >= 1.5 else "classes are alike in size"
    if value == BALANCE:
        return value, f"cross-entropy and Dice in balance (the paper): {differ}"
    return value, f"{differ}, and Dice counts small ones in full"


def oversampling(patch: Shape3, shape: Shape3) -> tuple[float, str]:
    """Return the share of patches centred on a structure, so that `WANTED_FOREGROUND` of all show one.

    `max(0.5, (0.75 - h) / (1 - h))`, where h, the share of the median case that a patch shows, is taken for
    the chance that a random one shows a structure.
    """
    by_chance = min(1.0, prod(patch) / prod(shape))
    value = LEAST_OVERSAMPLING
    if by_chance < WANTED_FOREGROUND:
        value = max(value, round((WANTED_FOREGROUND - by_chance) / (1 - by_chance), 2))
    return value, f"a patch shows {by_chance:.0%} of the median case"


def artefacts(modalities: Collection[Modality]) -> tuple[Artefacts, str]:
    """Return the artefacts of scanners to simulate, for the modalities that the dataset has."""
    ct, mr = "CT" in modalities, "MR" in modalities
    planned = Artefacts(
        bias_probability=BIAS_PROBABILITY if mr else 0.0,
        bias_std=BIAS_STD,
        metal_probability=METAL_PROBABILITY if ct else 0.0,
        metal_hu=METAL_HU,
        window_probability=WINDOW_PROBABILITY if ct else 0.0,
        window_shift=WINDOW_SHIFT,
    )
    parts = [*(["CT: metal with streaks, shifted window"] if ct else []), *(["MR: bias field"] if mr else [])]
    return planned, "; ".join(parts)


def synthesis(mapped: int, cases: int) -> tuple[float, str]:
    """Return the share of patches of cases with a tissue map whose image is made from the map.

    Args:
        mapped: Number of cases with a tissue map.
        cases: Number of all cases.
    """
    if not mapped:
        return 0.0, "no tissue maps"
    return (
        SYNTHESIS_PROBABILITY,
        f"{mapped} of {cases} cases have a tissue map: half of their patches as scanned",
    )
