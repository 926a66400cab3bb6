"""Names of the vertebrae of 200 phantom spines: a part of `make bench-anatomy`.

Each is a random spine in a random field of view: one in two has an unusual number of vertebrae, one in five a
scoliosis of 20 to 40 mm, one in five two fused vertebrae. Label maps alone are drawn. Each map is named as it
is and with one of the faults that users report, and one in three without its names; and all of it again with
ribs beside the vertebrae, which in one map of four are miscounted by one.
"""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from anatomy_faults import LARGE_ML, volume_ml, with_faults

from autospine.core.geometry import Grid, triple
from autospine.core.labels import VERSE
from autospine.core.types import LabelArray
from autospine.phantom.anatomy import Spine, Vertebra, sample_posture, sample_spine
from autospine.phantom.pathology import with_findings
from autospine.phantom.sacrum import sacral_segments, segment_parts
from autospine.phantom.scan import raster_grid
from autospine.phantom.shapes import FAR_MM, Capsule, Frame, Part, Raster, render, smooth_max, smooth_min
from autospine.phantom.vertebra import (
    arch_parts,
    body_part,
    bridge_part,
    footprint,
    lower_endplate,
    upper_endplate,
)
from autospine.vertebrae.bone_anchors import BoneAnchors
from autospine.vertebrae.identities import UNKNOWN, SpineIdentities
from autospine.vertebrae.label_naming import NamedMap, name_labels
from autospine.vertebrae.levels import INDEX
from autospine.vertebrae.unnamed_vertebrae import FIRST_UNKNOWN, name_unnamed

PHANTOMS = 200
FIRST_SEED = 5000
"""Seed of the first phantom; nothing is tuned on these."""

UNNAMED_EVERY = 3
"""One phantom of so many is named without its names, which takes longest."""

SPACING_MM = 2.0
VARIANTS = ("usual", "T13", "usual", "L6", "usual", "T11", "usual", "four_lumbar")
AROUND_MM = 12.0
"""Least distance of the bones from the sides of the map."""

RIB_VALUES = {"left": 100, "right": 120}
"""Labels of the ribs of either side begin above these."""

RIBS = {f"rib_{side}_{n}": value + n for side, value in RIB_VALUES.items() for n in range(1, 14)}

MISCOUNTED_EVERY = 4
"""In one phantom of so many the numbers of all ribs are off by one."""

RIB_GAP_MM = 4.0
"""Distance of the ribs' heads from the bodies' sides."""

JOINT_MM = 1.3
"""Least gap between two bones, as in the phantoms of whole images."""

MISSING = "one missing"


@dataclass(frozen=True, kw_only=True)
class PhantomMap:
    """The right label map of one phantom, in VerSe's integers."""

    labels: LabelArray
    grid: Grid
    traits: tuple[str, ...]
    """What is special about it."""

    ribs: bool = False
    """Whether ribs are labelled, as in `RIBS`."""

    @property
    def integers(self) -> dict[str, int]:
        """Label value of each structure."""
        return {**VERSE, **RIBS} if self.ribs else dict(VERSE)

    @property
    def anchored(self) -> bool:
        """Whether C1, the sacrum or a labelled rib is in view."""
        anchors = (VERSE["C1"], VERSE["sacrum"], *(RIBS.values() if self.ribs else ()))
        return bool(np.isin(anchors, self.labels).any())

    @property
    def values(self) -> list[int]:
        """Labels of the vertebrae of which enough is in view, from the head down."""
        there = [VERSE[level] for level in INDEX if level != "sacrum"]
        return [value for value in there if volume_ml(self.labels == value, self.grid) > LARGE_ML]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Vertebrae of a map that was named."""

    fault: str
    traits: tuple[str, ...]
    anchored: bool
    vertebrae: int
    before: int
    """Vertebrae with the right label before naming."""
    right: int
    unknown: int = 0
    pairs: int = 0
    """Neighbours of which both have a level."""
    pairs_right: int = 0
    """Those whose levels are as far apart as they should be."""


def phantom_map(seed: int, *, ribs: bool = False) -> PhantomMap:
    """Draw the right label map of a random spine in a random field of view, perhaps with its ribs."""
    random = np.random.default_rng(seed)
    variant, scoliosis, fused = VARIANTS[seed % len(VARIANTS)], seed % 5 == 1, seed % 5 == 3
    posture = sample_posture(random)
    if scoliosis:
        posture = replace(posture, scoliosis_mm=float(random.uniform(20, 40)))
    spine = sample_spine(random, posture, "usual" if variant == "T11" else variant)
    spine = with_findings(spine, random, "usual")
    if variant == "T11":
        spine = _without(spine, "T12")
    if fused:
        place = int(random.integers(1, len(spine.vertebrae) - 1))
        vertebrae = list(spine.vertebrae)
        vertebrae[place] = replace(vertebrae[place], fused=True)
        spine = replace(spine, vertebrae=tuple(vertebrae))
    raster = _raster(spine, random)
    traits = (variant, *(["scoliosis"] if scoliosis else []), *(["fused"] if fused else []))
    labels = _drawn(spine, raster)
    if ribs:
        _add_ribs(labels, spine, raster, (-1, 1)[seed % 2] if seed % MISCOUNTED_EVERY == 1 else 0)
    return PhantomMap(labels=labels, grid=raster_grid(raster), traits=traits, ribs=ribs)


def _without(spine: Spine, level: str) -> Spine:
    """Return a spine that lacks a level; what lay above comes down."""
    place = next(i for i, each in enumerate(spine.vertebrae) if each.name == level)
    gone, above = spine.vertebrae[place], spine.vertebrae[place - 1]
    down = gone.frame.origin_mm - above.frame.origin_mm
    upper = tuple(
        replace(each, frame=Frame(origin_mm=each.frame.origin_mm + down, axes=each.frame.axes))
        for each in spine.vertebrae[:place]
    )
    return replace(
        spine,
        vertebrae=(*upper, *spine.vertebrae[place + 1 :]),
        degeneration=(*spine.degeneration[:place], *spine.degeneration[place + 1 :]),
    )


def _raster(spine: Spine, random: np.random.Generator) -> Raster:
    """Return a field of view of 120 to 700 mm along the spine, and as wide as it is."""
    centres = np.array([each.frame.origin_mm for each in spine.vertebrae])
    low, high = -90.0, float(centres[0, 2]) + 25.0
    length = min(float(random.uniform(120.0, 700.0)), high - low)
    start = float(random.uniform(low, high - length))
    seen = centres[(centres[:, 2] > start - 30) & (centres[:, 2] < start + length + 30)]
    seen = np.vstack([seen, np.zeros((1, 3))]) if start < 0 else seen
    left, right = seen[:, 0].min() - 50 - AROUND_MM, seen[:, 0].max() + 50 + AROUND_MM
    front, back = seen[:, 1].min() - 25 - AROUND_MM, seen[:, 1].max() + 75 + AROUND_MM
    shape = triple(max(1, int(mm / SPACING_MM)) for mm in (length, back - front, right - left))
    return Raster(
        shape=shape,
        origin_mm=np.array([left, front, start]),
        steps_mm=SPACING_MM * np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]]),
    )


def _drawn(spine: Spine, raster: Raster) -> LabelArray:
    """Return the labels of a spine's bones."""
    labels = np.zeros(raster.shape, dtype=np.int16)
    bone = np.full(raster.shape, FAR_MM, dtype=np.float32)
    for upper, lower in zip(spine.vertebrae, (*spine.vertebrae[1:], None), strict=True):
        body = () if upper.name == "C1" else (body_part(upper),)
        bridge = (bridge_part(upper),) if upper.bridge else ()
        drawn = render(raster, upper.frame, (*body, *arch_parts(upper), *bridge), margin_mm=2.0)
        if drawn is not None:
            box, whole = drawn
            whole = smooth_max(whole, np.float32(JOINT_MM) - bone[box], 0.8)
            labels[box][whole < 0] = upper.label
            bone[box] = np.minimum(bone[box], whole)
        if upper.fused and lower is not None:
            _fuse(labels, raster, upper, lower)
    whole = np.full(raster.shape, FAR_MM, dtype=np.float32)
    chain = sacral_segments(spine)
    for index, segment in enumerate(chain):
        drawn = render(raster, segment.frame, segment_parts(chain, index), margin_mm=4.0)
        if drawn is not None:
            whole[drawn[0]] = smooth_min(whole[drawn[0]], drawn[1], 5.0)
    labels[smooth_max(whole, np.float32(JOINT_MM) - bone, 0.8) < 0] = VERSE["sacrum"]
    return labels


def _add_ribs(labels: LabelArray, spine: Spine, raster: Raster, miscounted: int) -> None:
    """Label the part of each rib from its joint to beside the transverse process, where nothing else is."""
    for vertebra in spine.vertebrae:
        number = int(vertebra.name[1:]) + miscounted
        if vertebra.region != "T" or not 1 <= number <= len(RIBS) // 2:
            continue
        s = vertebra.size
        for side, sign in (("left", 1), ("right", -1)):
            head = (sign * (0.5 * s.width + RIB_GAP_MM), 0.36 * s.depth, 0.35 * s.height)
            bend = (sign * (0.5 * s.width + 40), s.depth / 2 + s.canal_depth + 12, -0.2 * s.height)
            rib = Part(
                shape=Capsule(start_mm=head, end_mm=bend, radius_mm=(3.0, 3.0), stretch=(1, 1, 1.5)),
                blend_mm=0,
            )
            drawn = render(raster, vertebra.frame, (rib,), margin_mm=2.0)
            if drawn is not None:
                here = labels[drawn[0]]
                here[(drawn[1] < 0) & (here == 0)] = RIBS[f"rib_{side}_{number}"]


def _fuse(labels: LabelArray, raster: Raster, upper: Vertebra, lower: Vertebra) -> None:
    """Label the disc between two bodies as the upper one."""
    size = upper.size
    low = (-size.width / 2 - 5, -size.depth / 2 - 5, -size.height / 2 - size.gap - 8)
    box = raster.near(upper.frame, low, (-low[0], -low[1], -size.height / 2 + 5), 1.0)
    if box is None:
        return
    above, under = raster.coordinates(upper.frame, box), raster.coordinates(lower.frame, box)
    side = 0.5 * (footprint(upper, *above, waist=False) + footprint(lower, *under, waist=False))
    ends = np.maximum(-lower_endplate(upper, *above), -upper_endplate(lower, *under))
    labels[box][np.maximum(side, ends) < 0] = upper.label


def outcomes(
    count: int = PHANTOMS, first: int = FIRST_SEED, *, ribs: bool = False
) -> tuple[list[Outcome], list[tuple[float, bool]], float]:
    """Name every phantom as it is, with a fault, and without names.

    Returns:
        What came of each map; probability and rightness of each name given in a map with a fault; and the
        largest share of labelled voxels of a right map that was changed.
    """
    found, sure, worst = [], [], 0.0
    for seed in range(first, first + count):
        phantom = phantom_map(seed, ribs=ribs)
        values = phantom.values
        if len(values) < 2:
            continue
        kept = name_labels("right", phantom.labels, phantom.grid, phantom.integers)
        worst = max(worst, float(np.mean((kept.labels != phantom.labels)[phantom.labels > 0])))
        found.append(_outcome("none", phantom, values, phantom.labels, kept.labels))
        fault, faulty, asked = _with_a_fault(phantom, values, seed)
        named = name_labels("faulty", faulty, phantom.grid, phantom.integers)
        found.append(_outcome(fault, phantom, asked, faulty, named.labels))
        sure += _probabilities(phantom, named)
        if seed % UNNAMED_EVERY == 0:
            found.append(_unnamed(phantom, values))
    return found, sure, worst


def _with_a_fault(phantom: PhantomMap, values: list[int], seed: int) -> tuple[str, LabelArray, list[int]]:
    """Return one of the faults in turn, the map with it, and the vertebrae that are there to be named."""
    faults = [*with_faults(phantom.labels, phantom.grid, seed)]
    place = seed // len(VARIANTS) % (len(faults) + 1)
    if place < len(faults):
        return (*faults[place], values)
    gone = int(np.random.default_rng(seed).choice(values[1:-1] or values))
    left = [value for value in values if value != gone]
    return MISSING, np.where(phantom.labels == gone, 0, phantom.labels), left


def _most(found: LabelArray, phantom: PhantomMap, value: int) -> int:
    return int(np.bincount(found[phantom.labels == value]).argmax())


def _outcome(
    fault: str, phantom: PhantomMap, values: list[int], before: LabelArray, after: LabelArray
) -> Outcome:
    called = [_most(after, phantom, value) for value in values]
    places = {VERSE[level]: place for level, place in INDEX.items()}
    steps = [
        (places[one] - places[other], places[a] - places[b])
        for one, other, a, b in zip(called, called[1:], values, values[1:], strict=False)
        if one in places and other in places
    ]
    return Outcome(
        fault=fault,
        traits=phantom.traits,
        anchored=phantom.anchored,
        vertebrae=len(values),
        before=sum(_most(before, phantom, value) == value for value in values),
        right=sum(one == value for one, value in zip(called, values, strict=True)),
        unknown=sum(one >= FIRST_UNKNOWN for one in called),
        pairs=len(steps),
        pairs_right=sum(one == other for one, other in steps),
    )


def _unnamed(phantom: PhantomMap, values: list[int]) -> Outcome:
    sacrum = VERSE["sacrum"]
    bones = np.isin(phantom.labels, [VERSE[level] for level in INDEX])
    plain = np.where(phantom.labels == sacrum, 4, bones).astype(np.uint8)
    beside = BoneAnchors.of(phantom.labels, RIBS) if phantom.ribs else None
    named, _ = name_unnamed("plain", plain, phantom.grid, {"vertebra": 1, "sacrum": 4}, bones=beside)
    outcome = _outcome("no names", phantom, values, np.zeros_like(phantom.labels), named)
    return replace(outcome, anchored=bool((plain == 4).any()) or (phantom.ribs and phantom.anchored))


def _probabilities(phantom: PhantomMap, named: NamedMap) -> list[tuple[float, bool]]:
    """Return probability and rightness of each vertebra that has a name, by the true label at its centre."""
    identities: SpineIdentities = named.identities
    levels = {VERSE[level]: level for level in INDEX}
    where = np.argwhere(phantom.labels > 0)
    true = phantom.labels[tuple(where.T)]
    mm = phantom.grid.physical(where.astype(float))
    pairs = []
    for each in identities.vertebrae:
        if each.level != UNKNOWN:
            nearest = int(np.square(mm - each.position_mm).sum(axis=1).argmin())
            pairs.append((each.confidence, levels[int(true[nearest])] == each.level))
    return pairs


def phantom_figures(found: list[Outcome], sure: list[tuple[float, bool]], worst: float) -> dict[str, float]:
    """Return the figures of the phantoms."""
    faulty = [each for each in found if each.fault not in ("none", "no names")]
    anchored = [each for each in faulty if each.anchored]
    free = [each for each in faulty if not each.anchored]
    plain = [each for each in found if each.fault == "no names"]
    sacral = [each for each in plain if each.anchored]
    without = [each for each in plain if not each.anchored]
    confidence, right = (np.array(column, dtype=float) for column in zip(*sure, strict=True))
    at_90 = right[(confidence >= 0.85) & (confidence <= 0.95)]
    return {
        "id_rate_anchored": _rate(anchored, "right"),
        "id_rate_unanchored": _rate(free, "right"),
        "id_rate_unanchored_relative": sum(each.pairs_right for each in free)
        / sum(each.pairs for each in free),
        "phantoms_right_kept": _rate([each for each in found if each.fault == "none"], "right"),
        "phantoms_right_changed_worst": worst,
        "phantoms_unnamed_id_rate": _rate(sacral, "right"),
        "phantoms_unnamed_unanchored_wrong": 1 - _rate(without, "right") - _rate(without, "unknown"),
        "confidence_calibration_error": _calibration_error(confidence, right),
        "phantoms_confidence_at_90": float(at_90.mean()) if len(at_90) else float("nan"),
    }


def rib_figures(found: list[Outcome]) -> dict[str, float]:
    """Return the figures of the phantoms with ribs."""
    anchored = [each for each in found if each.anchored]
    return {
        "id_rate_ribs": _rate([each for each in anchored if each.fault not in ("none", "no names")], "right"),
        "ribs_right_kept": _rate([each for each in found if each.fault == "none"], "right"),
        "ribs_unnamed_id_rate": _rate([each for each in anchored if each.fault == "no names"], "right"),
    }


def _rate(outcomes_: list[Outcome], what: str) -> float:
    return sum(getattr(each, what) for each in outcomes_) / max(1, sum(each.vertebrae for each in outcomes_))


def _calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the mean distance of probability and share of right names over ten bins, by their size."""
    bins = np.minimum((confidence * 10).astype(int), 9)
    return float(
        sum(
            np.mean(bins == one) * abs(confidence[bins == one].mean() - right[bins == one].mean())
            for one in np.unique(bins)
        )
    )


def phantom_rows(found: list[Outcome]) -> list[str]:
    """Return the rows of a table by fault, and by what is special about the spine."""
    groups: dict[tuple[str, bool], list[Outcome]] = defaultdict(list)
    for each in found:
        groups[each.fault, each.anchored].append(each)
    for each in found:
        if each.fault not in ("none", "no names"):
            for trait in each.traits:
                groups[f"any, {trait}", each.anchored].append(each)
    return [
        f"| {name} | {'yes' if anchored else 'no'} | {sum(e.vertebrae for e in group)} | "
        f"{_rate(group, 'before'):.3f} | {_rate(group, 'right'):.3f} | {_rate(group, 'unknown'):.3f} |"
        for (name, anchored), group in sorted(groups.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]
