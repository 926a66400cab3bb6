"""Foreign objects: the table under a CT, and metal implants in the spine with their artefacts."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float32
from scipy import fft

from autospine.core.geometry import vector
from autospine.core.types import Position
from autospine.phantom.anatomy import Spine, Vertebra
from autospine.phantom.picture import Picture
from autospine.phantom.shapes import FAR_MM, Capsule, Field, Frame, Part, Point, Raster, render, smooth_max
from autospine.phantom.vertebra import canal_centre


def paint_table(picture: Picture, back_mm: float) -> None:
    """Paint the table: a hollow shell of carbon fibre, curved from side to side.

    Args:
        picture: The image.
        back_mm: Posterior LPS coordinate at which its top touches the patient, mm.
    """
    box = picture.raster.everywhere()
    x, y, _ = picture.raster.coordinates(Frame(origin_mm=np.zeros(3), axes=np.eye(3)), box)
    top = np.float32(back_mm) - np.float32(0.0004) * x * x
    slab = smooth_max(np.asarray(top - y, np.float32), np.asarray(y - top - np.float32(55), np.float32), 1.0)
    inner = slab + np.float32(2.0)
    picture.mix("table_shell", np.asarray(np.clip(0.5 - slab, 0, 1), np.float32), box)
    picture.mix("table_foam", np.asarray(np.clip(0.5 - inner, 0, 1), np.float32), box)


def screws(spine: Spine, rng: np.random.Generator) -> list[tuple[Frame, tuple[Part, ...]]]:
    """Draw pedicle screws and rods at two or three neighbouring lumbar levels."""
    low = [v for v in spine.vertebrae if v.region == "L"]
    count = int(rng.integers(2, 4))
    first = int(rng.integers(0, len(low) - count + 1))
    chosen = low[first : first + count]
    result = []
    heads: dict[int, list[Position]] = {1: [], -1: []}
    for vertebra in chosen:
        parts = []
        for side in (1, -1):
            tip, head = _screw(vertebra, side)
            parts.append(Part(shape=Capsule(start_mm=tip, end_mm=head, radius_mm=(2.4, 3.0)), blend_mm=0))
            parts.append(Part(shape=Capsule(start_mm=head, end_mm=head, radius_mm=(6.0, 6.0)), blend_mm=0))
            heads[side].append(vertebra.frame.to_world(head))
        result.append((vertebra.frame, tuple(parts)))
    world = Frame(origin_mm=np.zeros(3), axes=np.eye(3))
    rods = tuple(
        Part(shape=Capsule(start_mm=vector(a), end_mm=vector(b), radius_mm=(2.8, 2.8)), blend_mm=0)
        for places in heads.values()
        for a, b in pairwise(places)
    )
    return [*result, (world, rods)]


def _screw(vertebra: Vertebra, side: int) -> tuple[Point, Point]:
    """Return the tip in the body and the head behind the pedicle, in the vertebra's frame."""
    s = vertebra.size
    x = side * (s.canal_width / 2 + 4.5)
    y = canal_centre(vertebra)[1] + s.canal_depth / 2
    return (0.55 * x, -0.18 * s.depth, 0.14 * s.height), (1.25 * x, y + 13.0, 0.16 * s.height)


def draw_metal(picture: Picture, spine: Spine, rng: np.random.Generator) -> Field:
    """Return the distance in mm to the screws and rods."""
    distance = np.full(picture.raster.shape, FAR_MM, dtype=np.float32)
    for frame, parts in screws(spine, rng):
        drawn = render(picture.raster, frame, parts, margin_mm=12.0)
        if drawn is not None:
            box, here = drawn
            distance[box] = np.minimum(distance[box], here)
    return distance


def metal_streaks(raster: Raster, metal: Field, rng: np.random.Generator) -> Field:
    """Return the star of thin bright and dark streaks, in HU, that metal casts in each axial slice."""
    result = np.zeros(raster.shape, dtype=np.float32)
    solid = (metal < 0).astype(np.float32)
    if solid.any():
        _, step_p, step_l = raster.spacing_mm
        kernel = _star(raster.shape[1], raster.shape[2], step_p, step_l, rng)
        shape = [raster.shape[1] * 2, raster.shape[2] * 2]
        spectrum = fft.rfft2(kernel, shape)
        for index in np.flatnonzero(solid.any(axis=(1, 2))):
            cast = fft.irfft2(fft.rfft2(solid[index], shape) * spectrum, shape)
            centre = (raster.shape[1] // 2, raster.shape[2] // 2)
            streak = cast[centre[0] : centre[0] + solid.shape[1], centre[1] : centre[1] + solid.shape[2]]
            result[index] = streak.astype(np.float32) * (metal[index] > 0)
    return result


def _star(
    rows: int, columns: int, step_p: float, step_l: float, rng: np.random.Generator
) -> Float32[np.ndarray, "P L"]:
    """Return the streaks of a point of metal: falling off along each ray, irregular from ray to ray."""
    y = (np.arange(rows) - rows // 2)[:, None] * step_p
    x = (np.arange(columns) - columns // 2)[None, :] * step_l
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    rays = np.zeros(angle.shape)
    for order in range(3, 26):
        # Even orders only: a ray is the same on both sides of the metal.
        rays += rng.normal() * np.cos(2 * order * angle + rng.uniform(0, 2 * np.pi)) / np.sqrt(23)
    # Rays from side to side, through the most bone and metal, are darkest.
    rays -= 0.5 * np.exp(-((np.sin(angle) / 0.12) ** 2))
    strength = rng.uniform(100, 260) * step_p * step_l
    return np.asarray(strength * rays / (radius + 2.0) * np.exp(-radius / 60.0), dtype=np.float32)


def paint_metal_mr(picture: Picture, metal: Field) -> None:
    """Paint metal in MR: the signal is lost around it, and piled up in a rim."""
    box = picture.raster.everywhere()
    ragged = metal - np.float32(4.5) + np.float32(1.5) * picture.cloud
    rim = np.clip(1 - np.abs(ragged - 1) / np.float32(1.5), 0, 1) * np.float32(0.5)
    picture.mix("metal_rim", np.asarray(rim, np.float32), box)
    picture.paint("metal", np.asarray(ragged, np.float32), box)
