"""Ribs and the skull of a label map as evidence of the levels of its vertebrae.

A vertebra that bears a rib is a thoracic one, and one without any, in a map that labels ribs, most likely is
not; the vertebra at the skull is C1. Numbers of ribs are counts of the tool that made the map, and count
less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Integer
from scipy import ndimage

from autospine.core.geometry import Box, Grid, triple
from autospine.core.types import LabelArray
from autospine.vertebrae.dataset_levels import RIB, SKULL, anchor_named
from autospine.vertebrae.label_instances import LabelledVertebra, VertebraMap
from autospine.vertebrae.levels import LEVELS

COARSE_MM = 1.5
"""Voxel size that is fine enough for distances of bones."""

REACH_MM = 12.0
"""Distance within which a rib or the skull is at a vertebra. In public masks (CC BY 4.0) the twelfth rib
begins 8 to 10 mm beside T12, and lies 15 mm and more from its neighbours."""

HEAD_MM = 3.0
"""Length of the head of a rib, from where it is nearest to a vertebra."""

LEAST_ML = 0.02
"""Volume of a rib within this reach from which on it is one."""

BESIDE_MM = 30.0
"""Distance to the image's sides from which on a vertebra's ribs are in view."""

NO_RIB: Mapping[str, float] = {"T10": 0.08, "T11": 0.15, "T12": 0.25, "T13": 0.25}
"""Chance that no rib is labelled at a thoracic vertebra: lower ones are short and begin further away."""

NO_UPPER_RIB = 0.05
"""The same of those above."""

FALSE_RIB: Mapping[str, float] = {"C7": 0.02, "L1": 0.02}
"""Chance that a rib is labelled at a vertebra that is not thoracic: a cervical or lumbar rib, or the label of
a neighbour's."""

OTHER_FALSE_RIB = 0.004
"""The same of all others."""

MISCOUNTED = 0.15
"""Evidence against a thoracic level for each step that it lies from the number of its rib; ribs are counted
together, so that each says little."""

MOST_STEPS = 3
"""Steps from which on the number of a rib says no more."""

AT_SKULL: Mapping[str, float] = {"C1": 0.9, "C2": 0.09}
"""Probability of each level of the uppermost vertebra where the skull is next to it: C1 may have no label."""

ELSE_AT_SKULL = 0.002
"""The same of all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BoneAnchors:
    """The ribs and the skull of a label map."""

    labels: LabelArray
    """(S, P, L) label values, on the grid of the vertebrae."""

    ribs: Mapping[int, int | None]
    """Number, from 1 on, of the rib that each label value is; None for one that all ribs share."""

    skull: int | None
    """Label value of the skull."""

    @classmethod
    def of(cls, labels: LabelArray, integers: Mapping[str, int]) -> "BoneAnchors":
        """Return what a map has of them.

        Args:
            labels: (S, P, L) label values.
            integers: Label value of each structure, or class of a dataset, by its name.
        """
        named = {integer: anchor_named(name) for name, integer in integers.items()}
        skulls = [integer for integer, found in named.items() if found == (SKULL, None)]
        return cls(
            labels=labels,
            ribs={n: found[1] for n, found in named.items() if found is not None and found[0] == RIB},
            skull=skulls[0] if skulls else None,
        )

    def evidence(
        self, ordered: Sequence[LabelledVertebra], found: VertebraMap, grid: Grid
    ) -> Float64[np.ndarray, "n levels"]:
        """Return the evidence of the bones at each vertebra for each level; zeros where they say nothing.

        Args:
            ordered: Vertebrae from the head down.
            found: The map that they are of.
            grid: Grid of the map.
        """
        evidence = np.zeros((len(ordered), len(LEVELS)))
        wanted = [*self.ribs, *([] if self.skull is None else [self.skull])]
        if not wanted:
            return evidence
        near = _bones_near(self.labels, wanted, ordered, found, grid)
        for place, vertebra in enumerate(ordered):
            if vertebra.is_sacrum or not (ribs := near.keys() & self.ribs.keys()):
                continue
            if borne := [rib for rib in ribs if near[rib][place] >= LEAST_ML]:
                evidence[place] = _with_ribs({n for rib in borne if (n := self.ribs[rib]) is not None})
            elif not vertebra.cut and _sides_in_view(vertebra, grid):
                evidence[place] = np.log([1 - _share_with_rib(level) for level in LEVELS])
        if self.skull in near and near[self.skull][0] >= LEAST_ML:
            evidence[0] += np.log([AT_SKULL.get(level, ELSE_AT_SKULL) for level in LEVELS])
        return evidence


def _bones_near(
    labels: LabelArray,
    wanted: Sequence[int],
    ordered: Sequence[LabelledVertebra],
    found: VertebraMap,
    grid: Grid,
) -> dict[int, Float64[np.ndarray, " n"]]:
    """Return the volume in ml of each bone that occurs at each vertebra.

    Of each bone a component within reach is at one vertebra, that to which most of its head is nearest: a rib
    touches the vertebra above, too, and falls towards the next one. It is at none where it comes nearest at
    the upper or lower end of the image, since its head is out of view.
    """
    steps = triple(max(1, round(COARSE_MM / spacing)) for spacing in grid.spacing_mm)
    thinned = tuple(slice(None, None, step) for step in steps)
    near = {bone: np.zeros(len(ordered)) for bone in np.intersect1d(labels[thinned], wanted).tolist()}
    if not near:
        return near
    box = _with_margin(found.box, labels.shape, grid)
    owner = _owners(ordered, found, box)[thinned]
    spacing_mm = np.array(grid.spacing_mm) * steps
    away, nearest = ndimage.distance_transform_edt(owner == 0, sampling=spacing_mm, return_indices=True)
    heights = np.arange(box.start[0], box.stop[0])[thinned[0]]
    at_end = (heights < steps[0]) | (heights >= labels.shape[0] - steps[0])
    bones = np.where(away <= REACH_MM, labels[box.slices][thinned], 0)
    for bone, ml in near.items():
        components, count = ndimage.label(bones == bone)
        for component in range(1, count + 1):
            inside = np.argwhere(components == component)
            apart = away[tuple(inside.T)]
            head = inside[apart <= apart.min() + HEAD_MM]
            places = owner[tuple(axis[tuple(head.T)] for axis in nearest)] - 1
            if not at_end[inside[apart.argmin()][0]]:
                ml[np.bincount(places).argmax()] += len(inside) * float(np.prod(spacing_mm)) / 1000
    return near


def _with_margin(box: Box, shape: tuple[int, ...], grid: Grid) -> Box:
    margins = [int(np.ceil(REACH_MM / spacing)) + 1 for spacing in grid.spacing_mm]
    ends = zip(box.start, box.stop, margins, shape, strict=True)
    return Box.of(slice(max(0, a - margin), min(size, b + margin)) for a, b, margin, size in ends)


def _owners(
    ordered: Sequence[LabelledVertebra], found: VertebraMap, box: Box
) -> Integer[np.ndarray, "s p l"]:
    """Return the place from 1 on, from the head down, of the vertebra at each voxel of a box around them."""
    table = np.zeros(int(found.numbers.max(initial=0)) + 1, dtype=np.int32)
    for place, vertebra in enumerate(ordered, start=1):
        table[list(vertebra.pieces)] = place
    owner = np.zeros(box.shape, dtype=np.int32)
    owner[found.box.counted_from(box.start).slices] = table[found.numbers]
    return owner


def _sides_in_view(vertebra: LabelledVertebra, grid: Grid) -> bool:
    """Return whether the image reaches far enough to both sides of a vertebra to show its ribs."""
    at = grid.index(np.array(vertebra.centre_mm))[2] * grid.spacing_mm[2]
    return bool(BESIDE_MM <= at <= (grid.shape[2] - 1) * grid.spacing_mm[2] - BESIDE_MM)


def _share_with_rib(level: str) -> float:
    """Return the chance that a rib is labelled at a vertebra."""
    if level[0] == "T":
        return 1 - NO_RIB.get(level, NO_UPPER_RIB)
    return FALSE_RIB.get(level, OTHER_FALSE_RIB)


def _with_ribs(numbers: set[int]) -> Float64[np.ndarray, " levels"]:
    """Return the evidence of ribs of these numbers at a vertebra, or of any where there are none."""
    evidence = np.log([_share_with_rib(level) for level in LEVELS])
    for place, level in enumerate(LEVELS):
        if level[0] == "T" and numbers:
            steps = min(abs(int(level[1:]) - number) for number in numbers)
            evidence[place] -= MISCOUNTED * min(steps, MOST_STEPS)
    return evidence
