"""From settings and a seed to a phantom: an image, its labels and where it lies."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int16, Int32, UInt8

from autospine.core.errors import DatasetError
from autospine.core.geometry import Grid
from autospine.core.labels import DISC_OFFSET, VERSE
from autospine.core.types import Modality, Shape3, Vector3
from autospine.phantom.anatomy import CANAL, SACRUM, Spine, sample_posture, sample_spine
from autospine.phantom.body import hindmost, paint_body, sample_build
from autospine.phantom.canal import draw_canal, paint_canal
from autospine.phantom.foreign_objects import metal_streaks, paint_metal_mr, paint_pillow, paint_table
from autospine.phantom.head import paint_cavities
from autospine.phantom.implants import draw_metal, sample_implants
from autospine.phantom.pathology import Pathology, with_findings
from autospine.phantom.pelvis import paint_pelvis
from autospine.phantom.picture import new_picture
from autospine.phantom.rib_cage import draw_cage, paint_rib_cage
from autospine.phantom.sacrum import sacral_segments
from autospine.phantom.scan import ORIENTATIONS, ScanGeometry, raster_grid, reoriented, sample_scan
from autospine.phantom.shapes import FAR_MM
from autospine.phantom.shifts import SHIFTS, Shift, shifted_appearance, shifted_posture, shifted_spacing
from autospine.phantom.shoulders import paint_shoulders
from autospine.phantom.skeleton import (
    Skeleton,
    label_canal,
    paint_discs,
    paint_sacrum,
    paint_vertebrae,
)
from autospine.phantom.skull import paint_skull
from autospine.phantom.soft_tissue import space_around
from autospine.synthesis.appearance import Appearance, Contrast, draw_sequence, sample_appearance
from autospine.synthesis.render import render
from autospine.synthesis.scanner import blur, finish_ct, finish_mr
from autospine.synthesis.tissues import CODES

Region = Literal["lumbar", "thoracolumbar", "thoracic", "cervical", "whole", "any"]
Scheme = Literal["levels", "structures"]
Variant = Literal["usual", "T13", "L6", "four_lumbar"]

STRUCTURES: dict[str, int] = {"vertebra": 1, "disc": 2, "canal": 3, "sacrum": 4}
"""Integers of the scheme by structure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomSettings:
    """Settings of a phantom; those that are None are drawn from the seed."""

    region: Region = "lumbar"
    """The part of the spine in the field of view; `any` draws place and size, from a crop to a body."""
    modality: Modality | None = None
    """CT or MR."""
    contrast: Contrast | None = None
    """Sequence of an MR; None draws one."""
    variant: Variant | None = None
    """Number of vertebrae; None draws an unusual one in about one case of twelve."""
    spacing_mm: Vector3 | None = None
    """Distance between voxels along superior, posterior, left, mm."""
    size_mm: Vector3 | None = None
    """Field of view along superior, posterior, left, mm."""
    orientation: str | None = None
    """Directions in which the file's axes i, j, k grow, as three letters such as LPS or RAS."""
    oblique_deg: float | None = None
    """Angle of the scan to the patient's axes, degrees."""
    table: bool | None = None
    """Whether a CT shows the table under the patient; None leaves it out in one case of four."""
    metal: bool | None = None
    """True for screws in the spine, False for no metal; None draws screws, hips and fillings by chance."""
    pathology: Pathology = "usual"
    """How often there are fractures, tumours, spurs, slips, fusions and so on: `none`, `usual` or `much`."""
    shift: Shift | None = None
    """Difference that another hospital makes, one of `shifts.SHIFTS` for the modality; None for nothing."""

    def __post_init__(self) -> None:
        if self.orientation is not None and self.orientation not in ORIENTATIONS:
            raise DatasetError(
                f"expected an orientation of three letters such as LPS or RAS, found {self.orientation!r}"
            )
        if self.shift is not None and self.modality and self.shift not in SHIFTS[self.modality]:
            known = ", ".join(SHIFTS[self.modality])
            raise DatasetError(f"expected a shift of {self.modality} ({known}), found {self.shift!r}")
        for name, values in (("spacing_mm", self.spacing_mm), ("size_mm", self.size_mm)):
            if values is not None and min(values) <= 0:
                raise DatasetError(f"expected three positive numbers for {name}, found {values}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Phantom:
    """A synthetic case: what a scanner would have stored, and the truth."""

    image: Int16[np.ndarray, "k j i"]
    """Intensities (HU in CT), array axes as the grid gives them."""
    labels: UInt8[np.ndarray, "k j i"]
    """Labels by level: vertebrae, sacrum and canal as in VerSe, discs 100 + the vertebra above."""
    tissues: Int32[np.ndarray, "k j i"] = field(repr=False)
    """Tissue map, from which other images of the same anatomy can be made; see `autospine.synthesis`."""
    grid: Grid
    """Position and orientation of the arrays; not necessarily canonical."""
    modality: Modality
    """CT or MR."""
    contrast: Contrast
    """CT, or the sequence of an MR."""
    orientation: str
    """Directions in which the file's axes i, j, k grow."""
    centroids_mm: dict[str, Vector3] = field(repr=False)
    """LPS position (x, y, z) of the centre of each vertebra's body that lies in the field of view, mm."""
    spine: Spine = field(repr=False)
    """The anatomy that was painted: shape and place of every vertebra, from which true measures follow."""


def generate(settings: PhantomSettings, seed: int) -> Phantom:
    """Make one phantom; the same settings and seed give the same bytes.

    Anatomy, field of view, intensities and noise are drawn from separate random streams, so that giving one
    setting does not change the others.

    Args:
        settings: Settings of the phantom.
        seed: Any non-negative integer.

    Returns:
        The phantom.
    """
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(6)]
    kind, shape, field_of_view, appearance, texture, noise = streams
    contrast = _contrast(settings, kind)
    modality: Modality = "CT" if contrast == "CT" else "MR"
    posture = shifted_posture(sample_posture(shape), settings.shift)
    spine = sample_spine(shape, posture, _variant(settings, kind))
    spine = with_findings(spine, shape, settings.pathology)
    scan = sample_scan(
        spine,
        settings.region,
        contrast,
        field_of_view,
        spacing_mm=settings.spacing_mm or shifted_spacing(modality, settings.shift),
        size_mm=settings.size_mm,
        orientation=settings.orientation,
        oblique_deg=settings.oblique_deg,
    )
    intensities = sample_appearance(appearance, contrast, {code: name for name, code in CODES.items()})
    intensities = shifted_appearance(intensities, settings.shift)
    drawn = _draw(spine, scan, intensities, settings, texture, appearance)
    value = blur(drawn.value, scan.fine.spacing_mm, intensities.blur_mm)
    value, labels = _averaged(value, scan.factor), _elected(drawn.labels, scan.factor)
    tissues = _middle(drawn.tissues, scan.factor)
    if contrast == "CT":
        image = finish_ct(value, intensities, scan.raster.spacing_mm, noise)
    else:
        image = finish_mr(value, intensities, noise)
    grid, (image, labels, tissues) = reoriented(
        raster_grid(scan.raster), (image, labels, tissues), scan.orientation
    )
    return Phantom(
        image=image,
        labels=labels,
        tissues=tissues,
        grid=grid,
        modality=modality,
        contrast=contrast,
        orientation=scan.orientation,
        centroids_mm=_centroids(spine, scan),
        spine=spine,
    )


def by_structure(labels: UInt8[np.ndarray, "k j i"]) -> UInt8[np.ndarray, "k j i"]:
    """Return labels by level as labels by structure: vertebra 1, disc 2, canal 3, sacrum 4."""
    table = np.zeros(256, dtype=np.uint8)
    for name, integer in VERSE.items():
        if name[0] in "CTL":
            table[integer] = STRUCTURES["vertebra"]
            table[DISC_OFFSET + integer] = STRUCTURES["disc"]
    table[CANAL], table[SACRUM] = STRUCTURES["canal"], STRUCTURES["sacrum"]
    structures: np.ndarray = table[labels]
    return structures


def _contrast(settings: PhantomSettings, rng: np.random.Generator) -> Contrast:
    """Choose the contrast."""
    draw = float(rng.random())
    modality = settings.modality or ("CT" if draw < 0.5 else "MR")
    if modality == "CT":
        return "CT"
    sequence = draw_sequence(rng)
    return settings.contrast if settings.contrast not in (None, "CT") else sequence


def _variant(settings: PhantomSettings, rng: np.random.Generator) -> Variant:
    """Choose the number of vertebrae."""
    draw = float(rng.random())
    if settings.variant is not None:
        return settings.variant
    rare: tuple[Variant, ...] = ("T13", "L6", "four_lumbar")
    return rare[int(draw * 36)] if draw < 1 / 12 else "usual"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drawn:
    """Content of the fine raster."""

    value: Float32[np.ndarray, "S P L"]
    labels: UInt8[np.ndarray, "S P L"]
    tissues: Int32[np.ndarray, "S P L"]


def _draw(
    spine: Spine,
    scan: ScanGeometry,
    intensities: Appearance,
    settings: PhantomSettings,
    texture: np.random.Generator,
    appearance: np.random.Generator,
) -> _Drawn:
    """Paint soft tissue, canal, discs and bones in this order."""
    raster = scan.fine
    picture = new_picture(raster, float(appearance.beta(1.5, 2.5)), texture)
    chain = sacral_segments(spine)
    build = sample_build(appearance)
    space = space_around(picture, spine)
    cage = draw_cage(space, spine, build)
    if build.pillow:
        paint_pillow(picture, spine, hindmost(spine, build) + 2)
    paint_body(picture, space, spine, build, cage)
    table = float(appearance.random())
    if intensities.contrast == "CT" and (table < 0.75 if settings.table is None else settings.table):
        paint_table(picture, hindmost(spine, build) + 2)
    canal = draw_canal(raster, spine, chain, appearance)
    paint_canal(picture, canal)
    skeleton = Skeleton(
        picture=picture,
        labels=np.zeros(raster.shape, dtype=np.uint8),
        canal=canal,
        bone=np.full(raster.shape, FAR_MM, dtype=np.float32),
        shell_mm=(float(appearance.uniform(0.5, 0.85)), float(appearance.uniform(0.8, 1.35))),
    )
    label_canal(skeleton)
    paint_discs(skeleton, spine, appearance)
    paint_vertebrae(skeleton, spine)
    paint_sacrum(skeleton, chain)
    paint_pelvis(skeleton, spine, chain)
    paint_rib_cage(skeleton, space, spine, cage, picture.infiltration)
    paint_shoulders(skeleton, space, spine, build)
    paint_skull(skeleton, spine, appearance)
    paint_cavities(skeleton, spine, appearance)
    streaks: Float32[np.ndarray, "S P L"] | None = None
    metal = True if settings.shift == "metal" else settings.metal
    implants = sample_implants(spine, space, build, appearance, metal=metal)
    distance = draw_metal(picture, implants)
    if distance is not None and intensities.contrast == "CT":
        picture.paint("metal", distance, raster.everywhere())
        streaks = metal_streaks(raster, distance, appearance)
    elif distance is not None:
        paint_metal_mr(picture, distance)
    codes = picture.mixture.codes()
    value = render(codes, intensities, picture.texture)
    if streaks is not None:
        value += streaks
    return _Drawn(value=value, labels=skeleton.labels, tissues=codes)


def _averaged(value: Float32[np.ndarray, "S P L"], factor: Shape3) -> Float32[np.ndarray, "s p l"]:
    """Return the mean over the thin slices of each thick one."""
    for axis, count in enumerate(factor):
        if count > 1:
            shape = (*value.shape[:axis], value.shape[axis] // count, count, *value.shape[axis + 1 :])
            value = value.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return value


def _elected(labels: UInt8[np.ndarray, "S P L"], factor: Shape3) -> UInt8[np.ndarray, "s p l"]:
    """Return the majority among the three thin slices of each thick one; the middle where all differ."""
    for axis, count in enumerate(factor):
        if count > 1:
            first, middle, last = (
                np.take(labels, range(k, labels.shape[axis], 3), axis=axis) for k in range(3)
            )
            labels = np.where(first == last, first, middle)
    return labels


def _middle(tissues: Int32[np.ndarray, "S P L"], factor: Shape3) -> Int32[np.ndarray, "s p l"]:
    """Return the middle one of the three thin slices of each thick one."""
    return tissues[tuple(slice(count // 2, None, count) for count in factor)]


def _centroids(spine: Spine, scan: ScanGeometry) -> dict[str, Vector3]:
    """Return the centres of the bodies that lie in the field of view."""
    found = {}
    inverse = np.linalg.inv(scan.raster.steps_mm)
    for vertebra in spine.vertebrae:
        x, y, z = vertebra.frame.origin_mm
        index = inverse @ (vertebra.frame.origin_mm - scan.raster.origin_mm)
        if np.all(index >= 0) and np.all(index <= np.asarray(scan.raster.shape) - 1):
            found[vertebra.name] = (float(x), float(y), float(z))
    return found
