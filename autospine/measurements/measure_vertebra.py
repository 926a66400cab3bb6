"""Measurements of one vertebra: its volume, tilt and lengths, the canal behind it, and its density."""

from dataclasses import replace

import numpy as np
from jaxtyping import Num

from autospine.core.geometry import Grid, vector
from autospine.core.types import LabelArray, Position
from autospine.evaluation.components import number_components
from autospine.measurements.body_frame import crop_around
from autospine.measurements.body_lengths import METAL_HU, METAL_ML, core_density
from autospine.measurements.canal_size import PLAUSIBLE_DEPTH_MM, CanalSize, canal_at, ring_at
from autospine.measurements.measured_bodies import (
    WITHOUT_BODY,
    WITHOUT_HEIGHT,
    MeasuredBody,
)
from autospine.measurements.measured_labels import SpineLabels
from autospine.measurements.spine_angles import tilt_degrees
from autospine.measurements.spine_measurements import VertebraMeasurements, rounded

AROUND_MM = 30.0
"""Margin in which the canal is looked for around a body."""

FRAGMENTS = 0.9
"""Share of a label's volume in its largest connected component below which the label is in fragments."""


def measure_vertebra(
    labels: LabelArray,
    grid: Grid,
    known: SpineLabels,
    found: MeasuredBody,
    image: Num[np.ndarray, "S P L"] | None,
) -> VertebraMeasurements:
    """Return the measurements of a vertebra, without those that need its neighbours."""
    inside = labels[found.box.slices] == found.integer
    partial = found.box.reaches_border(grid.shape)
    notes = [*_doubts(found, inside, partial)]
    voxel_ml = float(np.prod(grid.spacing_mm)) / 1000
    measured = VertebraMeasurements(
        level=found.level,
        centre_mm=_rounded_vector(found.centre_mm),
        volume_ml=None if partial else round(float(np.count_nonzero(inside)) * voxel_ml, 3),
    )
    body = found.body
    if body is not None and found.usable:
        superior = body.frame.axes[:, 2]
        measured = replace(
            measured,
            coronal_tilt_deg=rounded(tilt_degrees(superior, "coronal")),
            sagittal_tilt_deg=rounded(tilt_degrees(superior, "sagittal")),
        )
    if body is not None and found.heights is not None:
        heights = found.heights
        measured = replace(
            measured,
            body_ml=rounded(body.body_ml, 3),
            anterior_height_mm=rounded(heights.anterior_mm),
            middle_height_mm=rounded(heights.middle_mm),
            posterior_height_mm=rounded(heights.posterior_mm),
            depth_mm=rounded(body.depth_mm),
            width_mm=rounded(body.width_mm),
            wedge_ratio=rounded(heights.wedge_ratio, 3),
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
    """Add the size of the labelled canal or, in a map without one, of the ring that the vertebra closes."""
    body = found.body
    if body is None:
        return measured, []
    if known.canal:
        size = canal_at(crop_around(labels, grid, [found.box], AROUND_MM), known.canal, body)
        if size is None:
            return measured, ["the canal is not labelled from wall to wall at this level"]
        measured = replace(
            measured,
            canal_area_mm2=rounded(size.area_mm2, 1),
            canal_depth_mm=rounded(size.depth_mm),
            canal_width_mm=rounded(size.width_mm),
            canal_source="canal label",
        )
        return measured, _depth_doubts("canal", size)
    if not body.whole:
        return measured, []
    size = ring_at(body)
    if size is None:
        return measured, ["the vertebra closes no ring: no canal"]
    measured = replace(
        measured,
        ring_area_mm2=rounded(size.area_mm2, 1),
        ring_depth_mm=rounded(size.depth_mm),
        ring_width_mm=rounded(size.width_mm),
        canal_source="vertebral ring",
    )
    return measured, _depth_doubts("vertebral ring", size)


def _depth_doubts(what: str, size: CanalSize) -> list[str]:
    """Return a note if no usual canal is as shallow or as deep."""
    least, most = PLAUSIBLE_DEPTH_MM
    if least <= size.depth_mm <= most:
        return []
    doubt = (
        f"below {least:.0f} mm is a stenosis, or a label that runs into the canal"
        if size.depth_mm < least
        else f"above {most:.0f} mm is a label with a gap, or a wide canal"
    )
    return [f"the {what} is {size.depth_mm:.1f} mm deep: {doubt}; look at the label map"]


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
        trabecular_hu=rounded(density.mean_hu, 1),
        trabecular_sd_hu=rounded(density.sd_hu, 1),
    ), []


def _rounded_vector(values: Position) -> tuple[float, float, float]:
    return vector(np.round(values, 2))
