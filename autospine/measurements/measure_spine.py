"""Measurement of one label map: every vertebra in a box of its own, then what lies between and along them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Num
from scipy import ndimage

from autospine.core.geometry import Box, Grid, vector
from autospine.core.types import LabelArray, Position
from autospine.evaluation.components import number_components
from autospine.measurements.body_frame import VertebralBody, body_centre, crop_around, find_body
from autospine.measurements.body_lengths import (
    METAL_HU,
    METAL_ML,
    BodyHeights,
    body_heights,
    core_density,
    genant_grade,
)
from autospine.measurements.canal_size import canal_at, ring_at
from autospine.measurements.disc_space import (
    FUSED,
    DiscSpace,
    Endplate,
    disc_space,
    endplate_of,
    sacral_endplate,
)
from autospine.measurements.measured_labels import SpineLabels
from autospine.measurements.spine_angles import PlacedEndplate, alignment_of, angles_of, tilt_degrees
from autospine.measurements.spine_measurements import (
    DISCLAIMER,
    FORMAT_VERSION,
    DiscMeasurements,
    SpineMeasurements,
    VertebraMeasurements,
)
from autospine.vertebrae.levels import INDEX, LEVELS, SACRUM

WITHOUT_BODY = ("C1",)
"""Levels that have no body."""

DEEPEST, DEEPEST_BELOW_T9 = 1.15, 0.95
"""Depth in parts of the width beyond which a label runs on into the canal: no body is as deep; those of the
chest are about as deep as wide, and those from T10 on are wider."""

WITHOUT_HEIGHT = ("C2",)
"""Levels whose body has no upper endplate: the dens of the axis stands there."""

MARGIN_MM = 6.0
"""Margin around a vertebra in which its body is sought."""

AROUND_MM = 30.0
"""Margin in which the canal is looked for around a body."""

LEAST_ML = 0.5
"""Volume of a label below which it is a speck and no vertebra."""

FRAGMENTS = 0.9
"""Share of a label's volume in its largest connected component below which the label is in fragments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredBody:
    """A vertebra with what was found of its body, for pictures and for what lies between bodies."""

    level: str
    integer: int
    box: Box
    centre_mm: Position
    body: VertebralBody | None
    """None where there is none, or none that can be measured."""

    heights: BodyHeights | None
    cut: bool
    """Whether the image's border cuts the body."""


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
    """
    boxes = _boxes(labels, known)
    bodies = _found_bodies(labels, grid, known, boxes)
    sacrum = _sacrum(labels, grid, known, boxes, bodies)
    discs = _discs(labels, grid, known, bodies, sacrum)
    vertebrae = [_vertebra(labels, grid, known, found, image) for found in bodies]
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
            angles=angles_of(placed),
            alignment=alignment_of({b.level: b.centre_mm for b in bodies if not b.cut}, sacrum),
            notes=_notes(known, bodies, sacrum, image is not None),
        ),
        bodies=tuple(bodies),
        sacrum=sacrum,
    )


def _boxes(labels: LabelArray, known: SpineLabels) -> dict[int, Box]:
    """Return the box of each label that a measurement needs and the map has."""
    wanted = (*known.levels.values(), *known.sacrum, *known.canal)
    whole = Box.around(labels)
    if whole is None:
        return {}
    found = ndimage.find_objects(np.ascontiguousarray(labels[whole.slices]), max_label=max(wanted))
    return {
        n: Box.of(found[n - 1]).moved(whole.start) for n in wanted if 0 < n <= len(found) and found[n - 1]
    }


def _found_bodies(
    labels: LabelArray, grid: Grid, known: SpineLabels, boxes: Mapping[int, Box]
) -> list[MeasuredBody]:
    """Find every vertebra's body, from the head down."""
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    centres: dict[str, Position] = {}
    for level, integer in known.levels.items():
        if integer not in boxes:
            continue
        inside = labels[boxes[integer].slices] == integer
        if np.count_nonzero(inside) * voxel_ml < LEAST_ML:
            continue
        if level in WITHOUT_BODY:
            centres[level] = grid.physical(np.argwhere(inside).mean(axis=0) + boxes[integer].start)
        else:
            centres[level] = body_centre(inside, boxes[integer], grid)
    directions = _directions(centres)
    return [
        _found_body(labels, grid, level, known.levels[level], boxes, centre, directions[level])
        for level, centre in centres.items()
    ]


def _found_body(
    labels: LabelArray,
    grid: Grid,
    level: str,
    integer: int,
    boxes: Mapping[int, Box],
    centre_mm: Position,
    superior: Position,
) -> MeasuredBody:
    box = boxes[integer]
    body = None
    if level not in WITHOUT_BODY:
        crop = crop_around(labels, grid, [box], MARGIN_MM)
        body = find_body(crop, integer, centre_mm, superior, upright=level not in WITHOUT_HEIGHT)
    cut = _touches_border(box, grid) if body is None else _is_cut(body, grid)
    open_behind = body is not None and body.depth_mm > _deepest(level) * body.width_mm
    measurable = body is not None and not cut and not open_behind and level not in WITHOUT_HEIGHT
    return MeasuredBody(
        level=level,
        integer=integer,
        box=box,
        centre_mm=centre_mm if body is None else body.centroid_mm,
        body=body,
        heights=body_heights(body) if body is not None and measurable else None,
        cut=cut,
    )


def _directions(centres: Mapping[str, Position]) -> dict[str, Position]:
    """Return the direction to the head at each vertebra: along the line through its neighbours.

    C1, whose middle lies in the canal, has none, and is no neighbour.
    """
    names = [name for name in centres if name not in WITHOUT_BODY]
    points = np.array([centres[name] for name in names]).reshape(-1, 3)
    found = {name: np.array([0.0, 0.0, 1.0]) for name in centres}
    for place, name in enumerate(names):
        above, below = points[max(0, place - 1)], points[min(len(points) - 1, place + 1)]
        way = above - below
        if np.linalg.norm(way) > 1.0:
            found[name] = way
    return found


def _deepest(level: str) -> float:
    return DEEPEST if INDEX[level] <= INDEX["T9"] else DEEPEST_BELOW_T9


def _touches_border(box: Box, grid: Grid) -> bool:
    ends = zip(box.start, box.stop, grid.shape, strict=True)
    return any((start == 0 or stop == size) and size > 1 for start, stop, size in ends)


def _is_cut(body: VertebralBody, grid: Grid) -> bool:
    """Return whether the image's border cuts a body: one of its corners lies there or beyond."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * 0.5
    x, y, side = (signs * [0.9 * body.width_mm, 0.9 * body.depth_mm, 1.0]).T
    planes = np.where(side[:, None] > 0, body.upper, body.lower)
    z = planes[:, 0] + planes[:, 1] * x + planes[:, 2] * y
    index = grid.index(body.frame.points(x, y, z))
    return bool((index < 0.5).any() or (index > np.array(grid.shape) - 1.5).any())


def _vertebra(
    labels: LabelArray,
    grid: Grid,
    known: SpineLabels,
    found: MeasuredBody,
    image: Num[np.ndarray, "S P L"] | None,
) -> VertebraMeasurements:
    """Return the measurements of a vertebra, without those that need its neighbours."""
    inside = labels[found.box.slices] == found.integer
    partial = _touches_border(found.box, grid)
    notes = [*_doubts(found, inside, partial)]
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    measured = VertebraMeasurements(
        level=found.level,
        centre_mm=_rounded_vector(found.centre_mm),
        volume_ml=None if partial else round(float(np.count_nonzero(inside)) * voxel_ml, 3),
    )
    body = found.body
    if body is not None and not found.cut:
        superior = body.frame.axes[:, 2]
        measured = replace(
            measured,
            coronal_tilt_deg=_rounded(tilt_degrees(superior, "coronal")),
            sagittal_tilt_deg=_rounded(tilt_degrees(superior, "sagittal")),
        )
    if body is not None and found.heights is not None:
        heights = found.heights
        measured = replace(
            measured,
            body_ml=_rounded(body.body_ml, 3),
            anterior_height_mm=_rounded(heights.anterior_mm),
            middle_height_mm=_rounded(heights.middle_mm),
            posterior_height_mm=_rounded(heights.posterior_mm),
            depth_mm=_rounded(body.depth_mm),
            width_mm=_rounded(body.width_mm),
            wedge_ratio=_rounded(heights.anterior_mm / heights.posterior_mm, 3),
        )
        measured, more = _with_canal(measured, labels, grid, known, found)
        notes += more
        if image is not None:
            measured, more = _with_density(measured, image, grid, found, inside)
            notes += more
    return replace(measured, notes=tuple(notes))


def _doubts(found: MeasuredBody, inside: np.ndarray, partial: bool) -> list[str]:
    """Return what makes the measurements of a vertebra doubtful, or impossible."""
    notes = []
    if found.cut:
        notes.append("the border of the image cuts the body: nothing but its place is measured")
    elif partial:
        notes.append("the border of the image cuts the vertebra behind or beside its body: no volume")
    numbers = np.bincount(number_components(inside.astype(np.uint8)).ravel())[1:]
    if numbers.max() < FRAGMENTS * numbers.sum():
        notes.append(f"the label is in pieces, the largest of {numbers.max() / numbers.sum():.0%}")
    if found.level in WITHOUT_BODY:
        notes.append("the atlas has no body")
    elif found.level in WITHOUT_HEIGHT:
        notes.append("the axis has no upper endplate: neither heights nor canal")
    elif found.body is None:
        notes.append("no body with two endplates was found")
    elif found.heights is None and not found.cut:
        notes.append("no back wall was found: the label runs on into the canal")
    return notes


def _with_canal(
    measured: VertebraMeasurements, labels: LabelArray, grid: Grid, known: SpineLabels, found: MeasuredBody
) -> tuple[VertebraMeasurements, list[str]]:
    body = found.body
    if body is None:
        return measured, []
    size, source = None, None
    if known.canal:
        crop = crop_around(labels, grid, [found.box], AROUND_MM)
        size, source = canal_at(crop, known.canal, body), "canal label"
        if size is None:
            return measured, ["the canal is not labelled from wall to wall at this level"]
    elif body.whole:
        size, source = ring_at(body), "vertebral ring"
        if size is None:
            return measured, ["the vertebra closes no ring: no canal"]
    if size is None:
        return measured, []
    return (
        replace(
            measured,
            canal_area_mm2=_rounded(size.area_mm2, 1),
            canal_depth_mm=_rounded(size.depth_mm),
            canal_width_mm=_rounded(size.width_mm),
            canal_source="canal label" if source == "canal label" else "vertebral ring",
        ),
        [],
    )


def _with_density(
    measured: VertebraMeasurements,
    image: Num[np.ndarray, "S P L"],
    grid: Grid,
    found: MeasuredBody,
    inside: np.ndarray,
) -> tuple[VertebraMeasurements, list[str]]:
    if found.body is None:
        return measured, []
    values = image[found.box.slices]
    metal_ml = np.count_nonzero(values[inside] > METAL_HU) * float(np.prod(grid.spacing_mm)) / 1000
    if metal_ml > METAL_ML:
        return measured, [f"{metal_ml:.2f} ml of metal or dense contrast: no HU, and shapes are doubtful"]
    density = core_density(found.body, values, found.box, grid)
    if density is None:
        return measured, ["too few voxels in the trabecular core: no HU"]
    return replace(
        measured,
        trabecular_hu=_rounded(density.mean_hu, 1),
        trabecular_sd_hu=_rounded(density.sd_hu, 1),
    ), []


def _graded(
    bodies: Sequence[MeasuredBody], vertebrae: Sequence[VertebraMeasurements]
) -> list[VertebraMeasurements]:
    """Add Genant's grades, for which a vertebra is compared with its neighbours."""
    tall = {found.level: found.heights.posterior_mm for found in bodies if found.heights is not None}
    graded = []
    for found, measured in zip(bodies, vertebrae, strict=True):
        if found.heights is None:
            graded.append(measured)
            continue
        place = INDEX[found.level]
        beside = [tall[level] for level in _beside(place) if level in tall]
        neighbour = float(np.mean(beside)) if len(beside) == 2 else None
        grade, shape = genant_grade(found.level, found.heights, neighbour)
        graded.append(replace(measured, genant_grade=grade, genant_shape=shape))
    return graded


def _beside(place: int) -> list[str]:
    """Return the levels next to a level, those that hardly anyone has passed over."""
    usual = [level for level in LEVELS if level not in ("T13", "L6") or LEVELS[place] == level]
    at = usual.index(LEVELS[place])
    return [level for level in usual[max(0, at - 1) : at + 2] if level != LEVELS[place]]


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
    if not found or last is None or last.body is None or last.level[0] != "L":
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
        if upper.body is None or lower.body is None or upper.cut or lower.cut:
            continue
        if lower.level not in _below(upper.level):
            continue
        crop = crop_around(labels, grid, [upper.box, lower.box], 0.0)
        space = disc_space(
            crop,
            (upper.integer, endplate_of(upper.body, cranial=False)),
            ([lower.integer], endplate_of(lower.body, cranial=True)),
            min(upper.body.width_mm, lower.body.width_mm),
        )
        if space is not None:
            found.append(_disc(upper, lower.level, endplate_of(lower.body, cranial=True), space))
    last = bodies[-1] if bodies else None
    if sacrum is not None and last is not None and last.body is not None and not last.cut:
        crop = crop_around(labels, grid, [last.box], AROUND_MM)
        space = disc_space(
            crop,
            (last.integer, endplate_of(last.body, cranial=False)),
            (known.sacrum, sacrum),
            last.body.width_mm,
        )
        if space is not None:
            found.append(_disc(last, SACRUM, sacrum, space))
    return found


def _below(level: str) -> tuple[str, ...]:
    """Return the levels that may follow a level."""
    following = LEVELS[INDEX[level] + 1 :]
    rare = {"T11": ("L1",), "T12": ("L1",), "L4": (SACRUM,), "L5": (SACRUM,)}
    return (following[0], *rare.get(level, ()))


def _disc(upper: MeasuredBody, lower: str, below: Endplate, space: DiscSpace) -> DiscMeasurements:
    if upper.body is None:
        raise AssertionError(upper.level)
    above = endplate_of(upper.body, cranial=False)
    if space.touching > FUSED:
        return DiscMeasurements(
            upper=upper.level,
            lower=lower,
            notes=(f"{space.touching:.0%} of the endplates touch: fused, or labels that are not separated",),
        )
    along = below.front_corner_mm - below.back_corner_mm
    along = along / np.linalg.norm(along)
    slip = float((above.back_corner_mm - below.back_corner_mm) @ along)
    angle = tilt_degrees(above.normal, "sagittal") - tilt_degrees(below.normal, "sagittal")
    return DiscMeasurements(
        upper=upper.level,
        lower=lower,
        height_mm=_rounded(space.height_mm),
        anterior_height_mm=_rounded(space.anterior_mm),
        posterior_height_mm=_rounded(space.posterior_mm),
        angle_deg=_rounded(-angle),
        slip_mm=_rounded(slip),
        slip_percent=_rounded(100 * slip / below.depth_mm, 1),
    )


def _placed(bodies: Sequence[MeasuredBody], sacrum: Endplate | None) -> list[PlacedEndplate]:
    """Return every endplate that was found, from the head down."""
    placed = []
    for found in bodies:
        if found.body is None or found.cut:
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
    known: SpineLabels, bodies: Sequence[MeasuredBody], sacrum: Endplate | None, has_ct: bool
) -> tuple[str, ...]:
    """Return what cannot be measured in this case, and why."""
    notes = []
    if not bodies:
        return ("there is no vertebra with a level",)
    whole = [found.body.whole for found in bodies if found.body is not None]
    if not known.canal and whole and not any(whole):
        notes.append("no canal: the map has no label of it, and bodies alone enclose none")
    elif not known.canal:
        notes.append("the canal has no label: its area is that of the ring of bone")
    if sacrum is None:
        notes.append(
            "no sacral slope, no lordosis to the sacrum and no balance: no endplate of the sacrum below a "
            "labelled lumbar vertebra"
        )
    if not has_ct:
        notes.append("no HU: there is no CT beside the map")
    return tuple(notes)


def _rounded(value: float, digits: int = 2) -> float:
    return round(float(value), digits)


def _rounded_vector(values: Position) -> tuple[float, float, float]:
    return vector(np.round(values, 2))
