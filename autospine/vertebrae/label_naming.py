"""The right names of the vertebrae of a label map, and the map that bears them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from autospine.core.errors import listed
from autospine.core.geometry import Grid
from autospine.core.types import LabelArray
from autospine.vertebrae.bone_anchors import BoneAnchors
from autospine.vertebrae.decoding import Decoded, FoundVertebrae, decode, unfit_statement, with_uppermost
from autospine.vertebrae.identities import LEAST_CONFIDENCE, SpineIdentities, identities_of, nothing_found
from autospine.vertebrae.joined_vertebrae import join_vertebrae
from autospine.vertebrae.label_instances import LabelledVertebra, VertebraMap, find_vertebrae
from autospine.vertebrae.levels import INDEX, LEVELS, SACRUM, VARIANTS
from autospine.vertebrae.named_discs import rename_discs
from autospine.vertebrae.proportions import SIZES_MM, by_variant
from autospine.vertebrae.spine_curve import order_from_head
from autospine.vertebrae.touching_vertebrae import FRAGMENT_ML, VERTEBRA

SHIFTS = (-2, -1, 0, 1, 2)
"""Numbers of levels by which a tool may have miscounted."""

SHIFT_PRIOR = (0.01, 0.06, 0.86, 0.06, 0.01)
"""Probability of each of them."""

COUNTED_SHIFT_PRIOR = (0.02, 0.12, 0.72, 0.12, 0.02)
"""The same of a network beside which another one counts: it is asked to, as the first one miscounts."""

SWITCH = 0.12
"""Probability that a tool miscounts from a level on."""

RIGHT, NEXT, OTHER = 0.93, 0.025, 0.002
"""Probability of the level that a tool means, of each next to it, and of any other."""

ABSENT = 3.0
"""Evidence against a level that the map's scheme has no label for: a network that has learnt five levels
leaves other vertebrae out, and calls pieces of them by one of its five."""

ABSENT_COUNTED = 1.0
"""The same where another network counts: it knows where the other vertebrae are, and a network that is off by
one calls a vertebra by one of its levels that has none of them."""

UNCALLED = 0.5
"""Evidence against the levels that a map's scheme has labels for, of a vertebra that another network has
found and the map leaves out: a network of five levels leaves out the others, and a weak one some of them."""

PRESENT = 9.0
"""Evidence that a labelled vertebra is one."""

CLAIMED = 2.0
"""Evidence of a spine with one vertebra more or less that the labels of a map claim: they are a run of its
levels and of no usual spine's, such as one without T12. A tool that miscounts from that very level on would
be as likely without it."""

MOST_OFF, FEWEST_FOR_ONE_OFF = 2, 4
"""Most labels that such a run may have wrong, and labels to each of which there may be one."""

PURE = 0.9
"""Share of a vertebra's volume of which its name is from which on it has no other."""

SURE = 0.8
"""Probability that it takes to rename a vertebra of a map whose names have no fault and no anchor."""

SMALL = 0.5
"""Share of the median volume of a map's vertebrae below which one is less sure to be one."""

SACRAL = 7.0
"""Evidence by which what is labelled as the sacrum is it and nothing else."""

WHOLE_SIZE = 1.04
"""Cube root of a vertebra's volume, in parts of the distance to its nearer neighbour, above which its
posterior elements are labelled: it is 0.85 to 0.97 for bodies alone, and 1.1 to 1.6 for whole vertebrae."""

LEAST_TO_TELL = 3
"""Vertebrae that it takes to tell that a header has exchanged head and feet."""

UPSIDE_DOWN = 0.8
"""Correlation of height and level from which it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Renaming:
    """A vertebra, a piece of one, or a disc, that another label was given."""

    from_label: str
    """Level, or name of a disc or an endplate, that the map called it."""

    to_label: str
    """What it is."""

    ml: float
    """Its volume."""


class NamelessMap(NamedTuple):
    """A label map of the same image by a network that tells no levels."""

    labels: LabelArray
    """(S, P, L) label values on the grid of the map with names."""

    vertebra: int
    """Label value of all vertebrae."""

    sacrum: int | None
    """Label value of the sacrum; None if it has none."""


class NamedMap(NamedTuple):
    """A label map whose vertebrae have the labels of their levels."""

    labels: LabelArray
    identities: SpineIdentities
    changes: tuple[Renaming, ...]
    """Everything that has another label than before, the largest volume first."""


class _PaintedMap(NamedTuple):
    labels: LabelArray
    volumes_ml: dict[tuple[str, str], float]
    """Volume of what has another label than before, by both levels."""


def name_labels(
    case: str,
    labels: LabelArray,
    grid: Grid,
    integers: Mapping[str, int],
    *,
    whole: bool | None = None,
    uppermost: str | None = None,
    nameless: NamelessMap | None = None,
) -> NamedMap:
    """Give the vertebrae of a label map the labels of their levels.

    Discs and endplates by level follow them. A vertebra whose level is unknown keeps its labels, and nothing
    is ever removed.

    Args:
        case: Name of the map.
        labels: (S, P, L) label values.
        grid: Grid of the map.
        integers: Label value of each level, of the sacrum, of discs and endplates by level, and of ribs and
            the skull, in the map's scheme.
        whole: Whether whole vertebrae are labelled, and not only their bodies; None to tell by their sizes
            and distances.
        uppermost: Level of the uppermost vertebra, where a person has stated it.
        nameless: What another network has found, whose vertebrae and sacrum are joined to those of the map.
    """
    levels = {integer: level for level, integer in integers.items() if level in INDEX}
    bones = BoneAnchors.of(labels, integers)
    found = find_vertebrae(labels, grid, levels)
    if nameless is not None and found.vertebrae:
        found = join_vertebrae(found, _vertebrae_of(nameless, grid), levels, grid)
    large = [each for each in found.vertebrae if each.ml >= FRAGMENT_ML]
    if not large:
        return NamedMap(labels=labels, identities=nothing_found(case), changes=())
    notes = []
    if _is_upside_down(large):
        notes.append("head and feet are exchanged: the levels run against the header's direction")
    ordered, centres_mm = from_head(large, upside_down=bool(notes))
    if whole is None:
        whole = are_whole(ordered, centres_mm)
    chain = found_in_map(ordered, centres_mm, grid, whole, bool(notes))
    if nameless is not None:
        # The sacrum that the other network has found is none that this one has counted from.
        chain = replace(
            chain,
            log_modes=0.5 * np.log(COUNTED_SHIFT_PRIOR),
            log_last_modes=0.5 * np.log(COUNTED_SHIFT_PRIOR),
        )
    absent = ABSENT if nameless is None else ABSENT_COUNTED
    against = np.stack([_against(each, integers, absent) for each in ordered])
    beside = bones.evidence(ordered, found, grid)
    chain = replace(chain, evidence=chain.evidence + (beside - against)[:, None])
    chain = with_uppermost(chain, uppermost)
    decoded = decode(chain)
    notes += unfit_statement(decoded, uppermost)
    crumbs = _labels([each for each in found.vertebrae if each.ml < FRAGMENT_ML]) - _labels(large)
    if crumbs:
        few = sorted(crumbs, key=INDEX.__getitem__)
        notes.append(f"less than {FRAGMENT_ML:.0f} ml is called {listed(few, 6)}, which is not counted")
    least = _least_confidences(ordered, decoded, anchored=nameless is not None or bool(beside.any()))
    identities = identities_in_map(case, ordered, chain, decoded, notes, least)
    target: dict[int, int] = {}
    for place, (vertebra, level) in enumerate(zip(ordered, decoded.levels, strict=True)):
        if level is None or level not in integers:
            continue
        if decoded.probability[place, INDEX[level]] >= least[place]:
            target |= dict.fromkeys(vertebra.pieces, integers[level])
    named = _painted(labels, found, target, levels, grid)
    changed = named.volumes_ml | rename_discs(named.labels, grid, integers, identities.vertebrae)
    changes = [
        Renaming(from_label=was, to_label=becomes, ml=round(ml, 3))
        for (was, becomes), ml in sorted(changed.items(), key=lambda item: -item[1])
    ]
    return NamedMap(labels=named.labels, identities=identities, changes=tuple(changes))


def _vertebrae_of(nameless: NamelessMap, grid: Grid) -> VertebraMap:
    levels = {nameless.vertebra: VERTEBRA}
    if nameless.sacrum is not None:
        levels[nameless.sacrum] = SACRUM
    return find_vertebrae(nameless.labels, grid, levels)


def _against(
    vertebra: LabelledVertebra, integers: Mapping[str, int], absent: float
) -> Float64[np.ndarray, " levels"]:
    """Return the evidence against each level by what the map's scheme has a label for."""
    known = np.array([level in integers for level in LEVELS])
    if vertebra.is_sacrum and SACRUM not in integers:
        return np.zeros(len(LEVELS))
    if set(vertebra.labels) == {VERTEBRA}:
        return UNCALLED * known
    return absent * ~known


def _painted(
    labels: LabelArray,
    found: VertebraMap,
    target: Mapping[int, int],
    levels: Mapping[int, str],
    grid: Grid,
) -> _PaintedMap:
    """Give the pieces of vertebrae their new label values."""
    changed = {piece: value for piece, value in target.items() if found.integers[piece] != value}
    table = np.arange(int(found.numbers.max(initial=0)) + 1)
    becomes = np.zeros(len(table), dtype=np.result_type(labels.dtype, np.min_scalar_type(max(levels))))
    for piece, value in changed.items():
        becomes[piece] = value
    new = labels.astype(becomes.dtype)
    moved = np.zeros(len(table), dtype=bool)
    moved[list(changed)] = True
    for plane, numbers in zip(new[found.box.slices], found.numbers, strict=True):
        plane[moved[numbers]] = becomes[numbers[moved[numbers]]]
    volumes = (
        np.bincount(found.numbers.ravel(), minlength=len(table)) * float(np.prod(grid.spacing_mm)) / 1000
    )
    sums: dict[tuple[str, str], float] = {}
    for piece, value in changed.items():
        pair = (levels[found.integers[piece]], levels[value])
        sums[pair] = sums.get(pair, 0.0) + float(volumes[piece])
    return _PaintedMap(labels=new, volumes_ml=sums)


def from_head(
    vertebrae: Sequence[LabelledVertebra], *, upside_down: bool
) -> tuple[list[LabelledVertebra], Float64[np.ndarray, "n 3"]]:
    """Order vertebrae from the head down, and return them with their centres in mm, z growing to the head.

    Args:
        vertebrae: Vertebrae in any order.
        upside_down: Whether the header has exchanged head and feet.
    """
    centres = np.array([each.centre_mm for each in vertebrae]) * (1, 1, -1 if upside_down else 1)
    order = order_from_head(centres)
    return [vertebrae[place] for place in order.tolist()], centres[order]


def identities_in_map(
    case: str,
    ordered: Sequence[LabelledVertebra],
    chain: FoundVertebrae,
    decoded: Decoded,
    notes: Sequence[str],
    least: Sequence[float] = (),
) -> SpineIdentities:
    """Return what is written about the vertebrae of a label map.

    Args:
        case: Name of the map.
        ordered: Its vertebrae from the head down.
        chain: What was decoded of them.
        decoded: Their levels.
        notes: Oddities of the map.
        least: Probability that the level of each takes to be known.
    """
    # As in the map, also where head and feet are exchanged.
    chain = replace(chain, positions_mm=np.array([each.centre_mm for each in ordered]))
    called = [max(each.labels, key=each.labels.__getitem__) for each in ordered]
    return identities_of(case, chain, decoded, [each.cut for each in ordered], called, notes, least)


def found_in_map(
    ordered: Sequence[LabelledVertebra],
    centres_mm: Float64[np.ndarray, "n 3"],
    grid: Grid,
    whole: bool,
    upside_down: bool,
) -> FoundVertebrae:
    """Return what the decoder takes of vertebrae in order from the head down.

    Args:
        ordered: The vertebrae; their labels are levels, or `VERTEBRA` where the map names none.
        centres_mm: Their centres, with z growing to the head.
        grid: Grid of the map.
        whole: Whether whole vertebrae are labelled, and not only their bodies.
        upside_down: Whether the header has exchanged head and feet.
    """
    sacral, cervical = any(each.is_sacrum for each in ordered), "C1" in _labels(ordered)
    extents = [
        10 * np.cbrt(each.ml) if whole and not each.cut and not each.is_sacrum else np.nan for each in ordered
    ]
    middle = (np.array(grid.shape[1:]) - 1) / 2
    ends = grid.physical(np.array([[0, *middle], [grid.shape[0] - 1, *middle]]))[:, 2]
    low, high = sorted((-ends if upside_down else ends).tolist())
    # Tools count from an anchor where they see one, and miscount further away.
    top = {(True, False): 0.0, (False, True): 1.0}.get((sacral, cervical), 0.5)
    room = (high - float(centres_mm[0, 2]), float(centres_mm[-1, 2]) - low)
    return FoundVertebrae(
        positions_mm=centres_mm,
        evidence=np.stack(
            [_evidence(each, present) for each, present in zip(ordered, _presence(ordered), strict=True)]
        ),
        extents_mm=np.array(extents),
        expected_mm=by_variant(SIZES_MM),
        log_modes=top * np.log(SHIFT_PRIOR),
        log_last_modes=(1 - top) * np.log(SHIFT_PRIOR),
        log_switch=math.log(SWITCH),
        log_variants=_claimed(ordered),
        cut=(0.95, 0.95 if ordered[-1].cut else 0.12),
        room_mm=(max(0.0, room[0]), max(0.0, room[1]) if sacral else None),
    )


def are_whole(ordered: Sequence[LabelledVertebra], centres_mm: Float64[np.ndarray, "n 3"]) -> bool:
    """Return whether vertebrae are as large, for their distances, as with their posterior elements."""
    steps = np.linalg.norm(np.diff(centres_mm, axis=0), axis=1)
    sizes = np.array([10 * np.cbrt(each.ml) for each in ordered])
    ratios = [
        size / steps[max(0, place - 1) : place + 1].min()
        for place, (size, each) in enumerate(zip(sizes, ordered, strict=True))
        if len(steps) and not each.cut and not each.is_sacrum
    ]
    return not ratios or float(np.median(ratios)) > WHOLE_SIZE


def _least_confidences(
    ordered: Sequence[LabelledVertebra], decoded: Decoded, *, anchored: bool
) -> list[float]:
    """Return the probability from which each vertebra of a map gets the level that it was found to be.

    Where nothing in view anchors the levels, names that are those of neighbours from the head down, each of
    one vertebra, are given up less easily: only sizes, distances and how much is in view speak against them.

    Args:
        ordered: Vertebrae from the head down.
        decoded: Their levels.
        anchored: Whether there is something beside the vertebrae that tells of levels.
    """
    called = [max(each.labels, key=each.labels.__getitem__) for each in ordered]
    usual = [LEAST_CONFIDENCE] * len(called)
    if anchored or not {"C1", SACRUM}.isdisjoint(called):
        return usual
    pure = all(each.labels[name] >= PURE * each.ml for each, name in zip(ordered, called, strict=True))
    if not pure or all(_names_off(called, variant.levels) > 0 for variant in VARIANTS):
        return usual
    changed = [level != name for level, name in zip(decoded.levels, called, strict=True)]
    return [SURE if changes else least for changes, least in zip(changed, usual, strict=True)]


def _labels(vertebrae: Sequence[LabelledVertebra]) -> set[str]:
    return {called for vertebra in vertebrae for called in vertebra.labels}


def _claimed(ordered: Sequence[LabelledVertebra]) -> Float64[np.ndarray, " variants"]:
    """Return the evidence of spines of which a map's labels, but for a few, are a run that no usual one has.

    Vertebrae that the border cuts do not count, since their place in the order is uncertain. There is none
    where neither C1 nor the sacrum is in view: the tool that made the map had nothing to count from.
    """
    called = [
        max(each.labels, key=each.labels.__getitem__) for each in ordered if each.is_sacrum or not each.cut
    ]
    usual = max(VARIANTS, key=lambda variant: variant.log_prior)
    if VERTEBRA in called or {"C1", SACRUM}.isdisjoint(called):
        return np.zeros(len(VARIANTS))
    off = min(MOST_OFF, len(called) // FEWEST_FOR_ONE_OFF)
    fewest = _names_off(called, usual.levels)
    apart = [len({*variant.levels} ^ {*usual.levels}) for variant in VARIANTS]
    names_off = [_names_off(called, variant.levels) for variant in VARIANTS]
    return np.array(
        [CLAIMED * (n <= off and n < fewest and a == 1) for n, a in zip(names_off, apart, strict=True)]
    )


def _names_off(called: Sequence[str], levels: Sequence[str]) -> float:
    """Return how many names, at least, are not those of neighbours from the head down, or infinity.

    It is infinite where a name is off by one and not between right ones: a tool may miscount from there.
    """
    fewest = math.inf
    for start in range(1 - len(called), len(levels)):
        run = [levels[start + i] if 0 <= start + i < len(levels) else None for i in range(len(called))]
        off = [i for i, (name, level) in enumerate(zip(called, run, strict=True)) if name != level]
        if len(off) < fewest and not any(_may_be_miscounted(called, run, i) for i in off):
            fewest = len(off)
    return fewest


def _may_be_miscounted(called: Sequence[str], run: Sequence[str | None], place: int) -> bool:
    level = run[place]
    if level is None:
        return True
    if abs(_ORDINALS[INDEX[level]] - _ORDINALS[INDEX[called[place]]]) > 1:
        return False
    sides = (place - 1, place + 1)
    return not all(0 <= side < len(run) and called[side] == run[side] for side in sides)


def _is_upside_down(vertebrae: Sequence[LabelledVertebra]) -> bool:
    """Return whether the labels run from the feet to the head by the header."""
    called = [max(each.labels, key=each.labels.__getitem__) for each in vertebrae]
    return run_upwards(called, [float(each.centre_mm[2]) for each in vertebrae])


def run_upwards(called: Sequence[str], heights_mm: Sequence[float]) -> bool:
    """Return whether levels run from the feet to the head, as after a header that has exchanged both.

    Args:
        called: Level of each vertebra, in any order; other names are passed over.
        heights_mm: Position of each along the header's superior axis, mm.
    """
    named = [place for place, level in enumerate(called) if level in INDEX]
    if len(named) < LEAST_TO_TELL:
        return False
    heights = np.array([heights_mm[place] for place in named])
    ordinals = np.array([_ORDINALS[INDEX[called[place]]] for place in named])
    if len(set(ordinals.tolist())) == 1:  # nothing runs in any direction
        return False
    correlation = np.corrcoef(np.argsort(np.argsort(heights)), ordinals)[0, 1]
    return bool(correlation > UPSIDE_DOWN)


def _presence(vertebrae: Sequence[LabelledVertebra]) -> list[float]:
    """Return the evidence that each is a vertebra: less of small ones that no border cuts."""
    typical = float(np.median([each.ml for each in vertebrae]))
    return [PRESENT if each.cut else PRESENT * min(1.0, each.ml / (SMALL * typical)) for each in vertebrae]


def _evidence(vertebra: LabelledVertebra, present: float) -> Float64[np.ndarray, "modes levels"]:
    """Return the evidence of the labels of a vertebra's pieces, weighted by their volume."""
    total = sum(vertebra.labels.values())
    evidence = np.full((len(SHIFTS), len(LEVELS)), present)
    for called, ml in vertebra.labels.items():
        for row, shift in zip(evidence, SHIFTS, strict=True):
            row += ml / total * _label_evidence(called, shift)
    return evidence


def _label_evidence(called: str, shift: int) -> Float64[np.ndarray, " levels"]:
    if called == SACRUM:
        evidence = np.full(len(LEVELS), -SACRAL)
        evidence[INDEX[SACRUM]] = 0.0
        return evidence
    if called == VERTEBRA:
        evidence = np.zeros(len(LEVELS))
        evidence[INDEX[SACRUM]] = -SACRAL
        return evidence
    off = np.abs(_ORDINALS + shift - _ORDINALS[INDEX[called]])
    chance = np.where(off < 0.1, RIGHT, np.where(off < 0.6, 0.3, np.where(off < 1.1, NEXT, OTHER)))
    evidence = np.log(chance)
    evidence[INDEX[SACRUM]] = -SACRAL
    return evidence


def _ordinals() -> Float64[np.ndarray, " levels"]:
    """Return the number of each level as most tools count, who do not know T13."""
    counted = [level for level in LEVELS if level != "T13"]
    return np.array([18.5 if level == "T13" else float(counted.index(level)) for level in LEVELS])


_ORDINALS = _ordinals()
