"""Measurement of one label map: every vertebra by itself, then what lies between and along them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Num

from autospine.core.errors import DatasetError
from autospine.core.geometry import Box, Grid
from autospine.core.types import LabelArray
from autospine.measurements.body_frame import crop_around
from autospine.measurements.disc_space import (
    FUSED,
    DiscSpace,
    Endplate,
    disc_space,
    endplate_of,
    sacral_endplate,
)
from autospine.measurements.fracture_grades import grade_fractures
from autospine.measurements.measure_vertebra import AROUND_MM, measure_vertebra
from autospine.measurements.measured_bodies import WITHOUT_HEIGHT, MeasuredBody, find_bodies, label_boxes
from autospine.measurements.measured_labels import SpineLabels
from autospine.measurements.spine_angles import PlacedEndplate, alignment_of, angle_between, angles_of
from autospine.measurements.spine_measurements import (
    DISCLAIMER,
    FORMAT_VERSION,
    DiscMeasurements,
    SpineMeasurements,
    VertebraMeasurements,
    rounded,
)
from autospine.vertebrae.label_naming import run_upwards
from autospine.vertebrae.levels import INDEX, LEVELS, SACRUM

COARSE_MM = 2.0
"""Voxel edge along S or P above which heights are rough: at 3 mm those of phantoms are off by up to 2.4 mm.
Thick sagittal slices hardly matter."""

LEAST_IN_ORDER = 2
"""Vertebrae of which one lies above the other; of three and more, most have to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredSpine:
    """The measurements of a case with the geometry behind them."""

    measurements: SpineMeasurements
    bodies: tuple[MeasuredBody, ...]
    sacrum: Endplate | None


def measure_spine(
    case: str,
    labels: LabelArray,
    grid: Grid,
    known: SpineLabels,
    image: Num[np.ndarray, "S P L"] | None = None,
) -> MeasuredSpine:
    """Measure the spine in a label map.

    Args:
        case: Name of the map.
        labels: (S, P, L) label values, named by level.
        grid: Grid of the map.
        known: What the label values stand for.
        image: CT in HU on the same grid; None for no image, or an MR, whose values mean nothing.

    Raises:
        DatasetError: If the levels run from the feet to the head.
    """
    boxes = label_boxes(labels, known)
    bodies = find_bodies(labels, grid, known, boxes)
    _check_direction(case, bodies)
    sacrum = _sacrum(labels, grid, known, boxes, bodies)
    discs = _discs(labels, grid, known, bodies, sacrum)
    vertebrae = [measure_vertebra(labels, grid, known, found, image) for found in bodies]
    vertebrae = _graded(bodies, vertebrae)
    vertebrae = _with_fusions(vertebrae, discs)
    placed = _placed(bodies, sacrum)
    return MeasuredSpine(
        measurements=SpineMeasurements(
            format_version=FORMAT_VERSION,
            case=case,
            disclaimer=DISCLAIMER,
            spacing_mm=grid.spacing_mm,
            coordinates="LPS",
            vertebrae=tuple(vertebrae),
            discs=tuple(discs),
            angles=angles_of(placed, [found.level for found in bodies]),
            alignment=alignment_of({b.level: b.centre_mm for b in bodies if not b.cut}, sacrum),
            notes=_notes(known, bodies, sacrum, grid, image is not None),
        ),
        bodies=tuple(bodies),
        sacrum=sacrum,
    )


def _check_direction(case: str, bodies: Sequence[MeasuredBody]) -> None:
    """Refuse a map whose levels run from the feet to the head: back and front would be exchanged.

    Raises:
        DatasetError: If they do.
    """
    heights = [float(found.centre_mm[2]) for found in bodies]
    if run_upwards([found.level for found in bodies], heights) or (
        len(bodies) == LEAST_IN_ORDER and heights[0] < heights[1]
    ):
        raise DatasetError(
            f"expected levels that run from the head to the feet in {case}, found {bodies[0].level} below "
            f"{bodies[-1].level}; either the header has exchanged head and feet, or the labels are counted "
            "from below: correct the header, or state the scheme that counts so"
        )


def _graded(
    bodies: Sequence[MeasuredBody], vertebrae: Sequence[VertebraMeasurements]
) -> list[VertebraMeasurements]:
    """Add Genant's grades, for which a vertebra is compared with its neighbours."""
    heights = {found.level: found.heights for found in bodies if found.heights is not None}
    grades = grade_fractures(heights, [found.level for found in bodies])
    graded = []
    for measured in vertebrae:
        if (found := grades.get(measured.level)) is not None:
            notes = (*measured.notes, *([found.note] if found.note else []))
            measured = replace(measured, genant_grade=found.grade, genant_shape=found.shape, notes=notes)
        graded.append(measured)
    return graded


def _with_fusions(
    vertebrae: Sequence[VertebraMeasurements], discs: Sequence[DiscMeasurements]
) -> list[VertebraMeasurements]:
    """Note at each vertebra which of its neighbours touch it."""
    others: dict[str, list[str]] = {}
    for disc in discs:
        if disc.notes and disc.height_mm is None:
            others.setdefault(disc.upper, []).append(disc.lower)
            others.setdefault(disc.lower, []).append(disc.upper)
    return [
        replace(
            each,
            notes=(*each.notes, f"fused with, or not separated from, {' and '.join(others[each.level])}"),
        )
        if each.level in others
        else each
        for each in vertebrae
    ]


def _sacrum(
    labels: LabelArray,
    grid: Grid,
    known: SpineLabels,
    boxes: Mapping[int, Box],
    bodies: Sequence[MeasuredBody],
) -> Endplate | None:
    """Return the upper endplate of the sacrum if it is labelled below the last vertebra."""
    found = [boxes[n] for n in known.sacrum if n in boxes]
    last = bodies[-1] if bodies else None
    if not found or last is None or last.body is None or not last.usable or last.level[0] != "L":
        return None
    crop = crop_around(labels, grid, [last.box], AROUND_MM)
    return sacral_endplate(crop, known.sacrum, last.body)


def _discs(
    labels: LabelArray,
    grid: Grid,
    known: SpineLabels,
    bodies: Sequence[MeasuredBody],
    sacrum: Endplate | None,
) -> list[DiscMeasurements]:
    """Measure what lies between neighbours, from the disc below C2 on."""
    found = []
    for upper, lower in pairwise(bodies):
        if upper.body is None or lower.body is None or not (upper.usable and lower.usable):
            continue
        if lower.level not in _below(upper.level):
            continue
        crop = crop_around(labels, grid, [upper.box, lower.box], 0.0)
        above, below = endplate_of(upper.body, cranial=False), endplate_of(lower.body, cranial=True)
        width_mm = min(upper.body.width_mm, lower.body.width_mm)
        space = disc_space(crop, (upper.integer, above), ([lower.integer], below), width_mm)
        if space is not None:
            found.append(_disc((upper.level, above), (lower.level, below), space))
    last = bodies[-1] if bodies else None
    if sacrum is not None and last is not None and last.body is not None:
        crop = crop_around(labels, grid, [last.box], AROUND_MM)
        above = endplate_of(last.body, cranial=False)
        space = disc_space(crop, (last.integer, above), (known.sacrum, sacrum), last.body.width_mm)
        if space is not None:
            found.append(_disc((last.level, above), (SACRUM, sacrum), space))
    return found


def _below(level: str) -> tuple[str, ...]:
    """Return the levels that may follow a level."""
    following = LEVELS[INDEX[level] + 1 :]
    rare = {"T11": ("L1",), "T12": ("L1",), "L4": (SACRUM,), "L5": (SACRUM,)}
    return (following[0], *rare.get(level, ()))


def _disc(upper: tuple[str, Endplate], lower: tuple[str, Endplate], space: DiscSpace) -> DiscMeasurements:
    """Return the measurements of the space between two endplates, each with its level."""
    (upper_level, above), (lower_level, below) = upper, lower
    if space.touching > FUSED:
        return DiscMeasurements(
            upper=upper_level,
            lower=lower_level,
            notes=(f"{space.touching:.0%} of the endplates touch: fused, or labels that are not separated",),
        )
    along = below.front_corner_mm - below.back_corner_mm
    along = along / np.linalg.norm(along)
    slip = float((above.back_corner_mm - below.back_corner_mm) @ along)
    return DiscMeasurements(
        upper=upper_level,
        lower=lower_level,
        height_mm=rounded(space.height_mm),
        anterior_height_mm=rounded(space.anterior_mm),
        posterior_height_mm=rounded(space.posterior_mm),
        angle_deg=rounded(angle_between(above.normal, below.normal, "sagittal")),
        slip_mm=rounded(slip),
        slip_percent=rounded(100 * slip / below.depth_mm, 1),
    )


def _placed(bodies: Sequence[MeasuredBody], sacrum: Endplate | None) -> list[PlacedEndplate]:
    """Return every endplate that was found, from the head down."""
    placed = []
    for found in bodies:
        if found.body is None or not found.usable:
            continue
        for cranial in (True, False):
            if cranial and found.level in WITHOUT_HEIGHT:
                continue
            middle, normal = found.body.endplate(cranial=cranial)
            placed.append(PlacedEndplate(found.level, cranial, middle, normal))
    if sacrum is not None:
        placed.append(PlacedEndplate(SACRUM, True, sacrum.middle_mm, sacrum.normal))
    return placed


def _notes(
    known: SpineLabels, bodies: Sequence[MeasuredBody], sacrum: Endplate | None, grid: Grid, has_ct: bool
) -> tuple[str, ...]:
    """Return what cannot be measured in this case, and why."""
    notes = []
    if not bodies:
        return ("there is no vertebra with a level",)
    whole = [found.body.whole for found in bodies if found.body is not None]
    if not known.canal and whole and not any(whole):
        notes.append("no canal: the map has no label of it, and bodies alone enclose none")
    elif not known.canal:
        notes.append("the canal has no label: instead the ring of bone is measured, which is larger")
    if sacrum is None:
        notes.append(
            "no sacral slope, no lordosis to the sacrum and no balance: no endplate of the sacrum below a "
            "labelled lumbar vertebra"
        )
    if swapped := _swapped(bodies):
        notes.append(
            f"names in the wrong order, {' and '.join(swapped)}: discs and angles there are wrong; name the "
            "map with `autospine anatomy identify`"
        )
    if (edge := max(grid.spacing_mm[:2])) > COARSE_MM:
        notes.append(f"voxels of {edge:.1f} mm: a height may be off by 2 mm, and a Genant grade by one")
    if not has_ct:
        notes.append("no HU: there is no CT beside the map")
    return tuple(notes)


def _swapped(bodies: Sequence[MeasuredBody]) -> list[str]:
    """Return the neighbours of which the one that is named as the lower lies above the other."""
    if not bodies:
        return []
    down = bodies[-1].centre_mm - bodies[0].centre_mm
    return [
        f"{lower.level} above {upper.level}"
        for upper, lower in pairwise(bodies)
        if (lower.centre_mm - upper.centre_mm) @ down < 0
    ]
