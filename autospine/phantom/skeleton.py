"""Painting of discs and bones with their labels: cortical shell, cancellous inside, a gap at each joint."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from autospine.core.labels import VERSE
from autospine.core.types import Slices3
from autospine.phantom.anatomy import SACRUM, Lesion, Spine, Vertebra
from autospine.phantom.canal import Canal
from autospine.phantom.picture import Picture
from autospine.phantom.sacrum import SacralSegment, disc_remnant, foramina, segment_parts
from autospine.phantom.shapes import (
    FAR_MM,
    Capsule,
    Ellipsoid,
    Field,
    Frame,
    Part,
    Shape,
    coverage,
    inside,
    intersection,
    render,
    smooth_max,
    smooth_min,
)
from autospine.phantom.vertebra import (
    arch_parts,
    body_part,
    bridge_part,
    footprint,
    lower_endplate,
    upper_endplate,
)
from autospine.synthesis.tissues import MARROW

_MARGIN_MM = 4.0
_CANAL_WALL_MM = 0.4


@dataclass(frozen=True, kw_only=True, slots=True)
class Skeleton:
    """The bones that are being painted; painting changes the arrays in place."""

    picture: Picture
    """The image."""
    labels: UInt8[np.ndarray, "S P L"]
    """Labels in the scheme by level."""
    canal: Canal
    """The spinal canal, which no bone enters."""
    bone: Field
    """Distance in mm to the bones painted so far."""
    shell_mm: tuple[float, float]
    """Thickness of the cortical shell of bodies and of arches, mm."""


def paint_discs(skeleton: Skeleton, spine: Spine, rng: np.random.Generator) -> None:
    """Paint every disc, from C2/C3 to the one above the sacrum."""
    last = spine.vertebrae[-1]
    top = Vertebra(
        name=last.name,
        size=replace(last.size, width=50.0 * spine.scale, depth=33.0 * spine.scale, height=0.0),
        frame=spine.sacrum,
        wedge=0.0,
    )
    lower = (*spine.vertebrae[1:], top)
    for upper, below, wear in zip(spine.vertebrae, lower, spine.degeneration, strict=True):
        bulge = float(rng.uniform(0.2, 0.8) + 1.6 * wear * rng.random())
        vacuum = wear > 0.75 and rng.random() < 0.25
        if upper.name != "C1":
            _disc(skeleton, upper, below, wear, bulge, vacuum=vacuum)


def _disc(
    skeleton: Skeleton, upper: Vertebra, lower: Vertebra, wear: float, bulge: float, *, vacuum: bool
) -> None:
    """Paint the disc between two bodies: all that lies between their endplates, slightly wider than they."""
    picture, size = skeleton.picture, upper.size
    low = (-size.width / 2 - 5, -size.depth / 2 - 5, -size.height / 2 - size.gap - 8)
    box = picture.raster.near(upper.frame, low, (-low[0], -low[1], -size.height / 2 + 5), 1.0)
    if box is None:
        return
    above, under = picture.raster.coordinates(upper.frame, box), picture.raster.coordinates(lower.frame, box)
    side = 0.5 * (footprint(upper, *above, waist=False) + footprint(lower, *under, waist=False)) - np.float32(
        bulge
    )
    ends = np.maximum(-lower_endplate(upper, *above), -upper_endplate(lower, *under))
    side = np.asarray(side, np.float32)
    exact = smooth_max(side, np.asarray(ends, np.float32), 1.0)
    voxel = picture.raster.voxel_mm
    core = smooth_max(
        side + np.float32(0.20 * size.depth), np.asarray(ends, np.float32) + np.float32(0.8), 3.0
    )
    # Bones are painted next; the disc reaches a voxel under them, lest soft tissue show between.
    picture.paint("annulus", np.maximum(side, ends - np.float32(voxel)), box)
    picture.mix("nucleus", coverage(core, max(voxel, 4.5)) * np.float32(1 - min(1.0, wear * 1.15)), box)
    if vacuum and not upper.fused:
        picture.paint("gas", core + np.float32(2.4), box, strength=0.8)
    if upper.fused:
        # Bone has grown through; a thin rest of the disc is left.
        picture.paint(MARROW[upper.region], side + np.float32(1.5), box, strength=0.8)
        picture.paint("cortical", np.abs(side + np.float32(0.5)) - np.float32(0.8), box, strength=0.7)
    skeleton.labels[box][exact < 0] = upper.disc_label


def paint_vertebrae(skeleton: Skeleton, spine: Spine) -> None:
    """Paint the vertebrae from the head down, each one leaving a gap to the one above."""
    for vertebra in spine.vertebrae:
        _vertebra(skeleton, vertebra)


def _vertebra(skeleton: Skeleton, vertebra: Vertebra) -> None:
    """Paint one vertebra."""
    raster = skeleton.picture.raster
    with_body = () if vertebra.name == "C1" else (body_part(vertebra),)
    bridge = (bridge_part(vertebra),) if vertebra.bridge else ()
    parts = (*with_body, *arch_parts(vertebra), *bridge)
    drawn = render(raster, vertebra.frame, parts, margin_mm=_MARGIN_MM)
    if drawn is None:
        return
    box, whole = drawn
    body = np.full_like(whole, FAR_MM)
    own = render(raster, vertebra.frame, with_body, margin_mm=_MARGIN_MM) if with_body else None
    if own is not None:
        common = intersection(own[0], box)
        if common is not None:
            body[inside(common, box)] = own[1][inside(common, own[0])]
    whole = np.maximum(whole, np.float32(_CANAL_WALL_MM) - skeleton.canal.wall[box])
    joint = 1.3 if vertebra.region != "C" else 1.0
    whole = smooth_max(whole, np.float32(joint) - skeleton.bone[box], 0.8)
    arch = np.clip((body - whole - 1) / 3, 0, 1)
    thin, thick = (np.float32(value) for value in skeleton.shell_mm)
    shell = np.asarray(thin + arch * (thick - thin), np.float32)
    _bone(skeleton, whole, box, shell, vertebra.region)
    skeleton.labels[box][whole < 0] = vertebra.label
    if vertebra.name not in ("C1", "C2"):
        _vein(skeleton, vertebra)
    for lesion in vertebra.lesions:
        _lesion(skeleton, vertebra, lesion, whole, box)


def _lesion(skeleton: Skeleton, vertebra: Vertebra, lesion: Lesion, whole: Field, box: Slices3) -> None:
    """Paint a tumour, haemangioma or cement within a vertebra; tumours may break through its shell."""
    picture = skeleton.picture
    egg = Ellipsoid(centre_mm=lesion.centre_mm, radii_mm=lesion.radii_mm)
    drawn = render(picture.raster, vertebra.frame, (Part(shape=egg),), margin_mm=3.0)
    common = None if drawn is None else intersection(drawn[0], box)
    if drawn is None or common is None:
        return
    distance = drawn[1][inside(common, drawn[0])]
    bone = whole[inside(common, box)]
    cloud, grain = picture.cloud[common], picture.grain[common]
    ragged = distance + np.float32(1.6) * cloud
    if lesion.kind == "lytic":
        picture.paint("tumour", np.maximum(ragged, bone - np.float32(0.4)), common, strength=0.92)
    elif lesion.kind == "sclerotic":
        picture.paint("sclerosis", np.maximum(ragged, bone), common, strength=0.8)
    elif lesion.kind == "cement":
        picture.paint("cement", np.maximum(ragged + grain, bone + np.float32(0.8)), common)
    else:
        picture.paint("fat", np.maximum(distance, bone + np.float32(1)), common, strength=0.75)
        # Coarse upright struts: corduroy from the side, polka dots from above.
        x, y, _ = picture.raster.coordinates(vertebra.frame, common)
        struts = np.clip(np.sin(1.5 * x) + np.sin(1.5 * y) - np.float32(1.1), 0, 1)
        share = struts * np.clip(-distance, 0, 1) * np.float32(0.6)
        picture.mix("cortical", np.asarray(share, np.float32), common)


def _vein(skeleton: Skeleton, vertebra: Vertebra) -> None:
    """Paint the basivertebral vein: a cleft in the middle of the posterior wall."""
    s = vertebra.size
    cleft = Capsule(
        start_mm=(0, 0.05 * s.depth, 0),
        end_mm=(0, 0.46 * s.depth, 0),
        radius_mm=(0.6, 1.5),
        stretch=(2.2, 1, 1),
    )
    drawn = render(skeleton.picture.raster, vertebra.frame, (Part(shape=cleft),), margin_mm=1.0)
    if drawn is not None:
        skeleton.picture.paint("epidural", drawn[1], drawn[0], strength=0.65)


def paint_sacrum(skeleton: Skeleton, chain: tuple[SacralSegment, ...]) -> None:
    """Paint the sacrum: five segments joined, then the foramina cut through all of them."""
    raster = skeleton.picture.raster
    whole = np.full(raster.shape, FAR_MM, dtype=np.float32)
    seen = False
    for index, segment in enumerate(chain):
        drawn = render(raster, segment.frame, segment_parts(chain, index), margin_mm=_MARGIN_MM + 2)
        if drawn is not None:
            seen = True
            whole[drawn[0]] = smooth_min(whole[drawn[0]], drawn[1], 5.0)
    if not seen:
        return
    for index in range(4):
        for part in foramina(chain, index):
            _carve(skeleton, whole, chain[index].frame, part)
    box = raster.everywhere()
    whole = np.maximum(whole, np.float32(_CANAL_WALL_MM) - skeleton.canal.wall)
    whole = smooth_max(whole, np.float32(1.3) - skeleton.bone, 0.8)
    _bone(skeleton, whole, box, np.float32(skeleton.shell_mm[0] * 1.15), "S")
    for index in range(2):
        drawn = render(raster, chain[index].frame, (Part(shape=disc_remnant(chain[index])),), margin_mm=1.0)
        if drawn is not None:
            rim = np.abs(drawn[1]) - np.float32(0.5)
            skeleton.picture.paint("annulus", drawn[1], drawn[0], strength=(0.8, 0.5)[index])
            skeleton.picture.paint("cortical", rim, drawn[0], strength=(0.45, 0.3)[index])
    skeleton.labels[whole < 0] = SACRUM


def _carve(skeleton: Skeleton, whole: Field, frame: Frame, part: Part) -> None:
    """Cut one opening in place."""
    box = skeleton.picture.raster.near(frame, *part.shape.bounds(), 3.0)
    if box is not None:
        hole = part.shape.distance(*skeleton.picture.raster.coordinates(frame, box))
        whole[box] = smooth_max(whole[box], -hole, part.blend_mm)


Thickness = Callable[[Field, Field, Field], Field]
"""Thickness of a bone's cortex in mm at points of its own frame in mm."""


def paint_plain_bone(
    skeleton: Skeleton,
    frame: Frame,
    parts: tuple[Part, ...],
    *,
    gap_mm: float,
    region: str,
    shell_mm: float | Thickness,
) -> None:
    """Paint a bone without a label, with a gap to the bones painted before.

    Args:
        skeleton: What is being painted.
        frame: The bone's frame.
        parts: Its solids.
        gap_mm: Distance that it keeps from other bones, mm.
        region: Whose cancellous bone it has: C, T, L or S.
        shell_mm: Thickness of the cortex, mm.
    """
    raster = skeleton.picture.raster
    drawn = render(raster, frame, parts, margin_mm=_MARGIN_MM)
    if drawn is None:
        return
    box, distance = drawn
    shell = shell_mm(*raster.coordinates(frame, box)) if callable(shell_mm) else shell_mm
    paint_loose_bone(skeleton, distance, box, gap_mm=gap_mm, region=region, shell_mm=shell)


def paint_loose_bone(
    skeleton: Skeleton,
    distance: Field,
    box: Slices3,
    *,
    gap_mm: float,
    region: str,
    shell_mm: float | Field,
) -> None:
    """Paint a bone without a label that is given by its distances; the arguments as in `paint_plain_bone`."""
    distance = smooth_max(distance, np.float32(gap_mm) - skeleton.bone[box], 0.8)
    distance = np.maximum(distance, np.float32(1.5) - skeleton.canal.wall[box])
    shell = np.float32(shell_mm) if isinstance(shell_mm, float) else shell_mm
    _bone(skeleton, distance, box, shell, region)


def paint_between(skeleton: Skeleton, frame: Frame, shape: Shape, tissue: str) -> None:
    """Paint a tissue where no bone is: cartilage of a joint."""
    drawn = render(skeleton.picture.raster, frame, (Part(shape=shape),), margin_mm=2.0)
    if drawn is not None:
        box, distance = drawn
        free = np.maximum(distance, -skeleton.bone[box])
        skeleton.picture.paint(tissue, free, box)


def _bone(
    skeleton: Skeleton, distance: Field, box: Slices3, shell_mm: Field | np.float32, region: str
) -> None:
    """Paint cortical around cancellous bone, both with partial volume, and remember the distance."""
    picture = skeleton.picture
    voxel = picture.raster.voxel_mm
    outer, inner = coverage(distance, voxel), coverage(np.asarray(distance + shell_mm, np.float32), voxel)
    picture.mix("cortical", outer, box)
    picture.mix(MARROW[region], inner, box)
    # Trabeculae are denser next to the shell.
    dense = np.float32(0.06) * np.exp(np.minimum(distance + shell_mm, 0) / np.float32(2.2))
    picture.mix("cortical", inner * dense, box)
    skeleton.bone[box] = np.minimum(skeleton.bone[box], distance)


def label_canal(skeleton: Skeleton) -> None:
    """Label the canal; discs and bones are labelled after it and win."""
    skeleton.labels[skeleton.canal.wall < 0] = VERSE["canal"]
