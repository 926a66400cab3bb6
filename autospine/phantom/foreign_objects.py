"""Foreign objects: the table under a CT, the pillow, tubes, and the artefacts of metal."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32
from scipy import fft

from autospine.phantom.anatomy import Spine
from autospine.phantom.picture import Picture
from autospine.phantom.shapes import Custom, Field, Frame, Part, Point, Raster, render, smooth_max
from autospine.phantom.soft_tissue import Stage


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


# Tubes and lines: the share of people with each, its tissue's depth, and its way as u, v, level, height above
# that level and radius, mm.
_TUBES: tuple[tuple[float, float, tuple[tuple[float, float, str, float, float], ...]], ...] = (
    (
        0.05,
        1.0,
        ((4, -30, "T11", 0, 2.2), (4, -26, "T5", 0, 2.2), (3, -16, "C6", 0, 2.2), (0, -18, "C1", 0, 2.2)),
    ),
    (
        0.04,
        1.6,
        ((0, -38, "T3", 0, 4.5), (0, -36, "T1", 0, 4.5), (0, -26, "C4", 0, 4.5), (0, -25, "C1", 0, 4.5)),
    ),
    (
        0.08,
        9.0,
        (
            (-29, -56, "T7", 0, 1.2),
            (-28, -54, "T2", 0, 1.2),
            (-46, -44, "T1", 0, 1.2),
            (-78, -74, "T2", 0, 1.2),
        ),
    ),
    (
        0.03,
        9.0,
        ((52, -40, "L1", 0, 1.6), (56, -6, "L2", 0, 1.6), (50, -2, "L4", 0, 1.2), (16, -60, "end", 0, 1.2)),
    ),
)


def paint_tubes(stage: Stage, rng: np.random.Generator) -> None:
    """Paint tubes and lines: to the stomach, into the windpipe, a central vein, a ureter's stent."""
    for share, hollow_mm, way in _TUBES:
        if rng.random() < share:
            line = [(u, v, stage.space.levels[level] + above, r) for u, v, level, above, r in way]
            stage.rod([("catheter", 0.0), ("gas", hollow_mm)], line)


def paint_pillow(picture: Picture, spine: Spine, back_mm: float) -> None:
    """Paint the foam between head and table, with its cover."""
    head = spine.vertebrae[0].frame.origin_mm
    low, high = (-125.0, -10.0, -70.0), (125.0, back_mm - float(head[1]), 170.0)
    frame = Frame(origin_mm=head, axes=np.eye(3))
    block = Custom(low_mm=low, high_mm=high, function=_block(low, high))
    drawn = render(picture.raster, frame, (Part(shape=block),), margin_mm=2.0)
    if drawn is not None:
        picture.paint("table_shell", drawn[1], drawn[0], strength=0.5)
        picture.paint("table_foam", drawn[1] + np.float32(2.5), drawn[0])


def _block(low: Point, high: Point) -> Callable[[Field, Field, Field], Field]:
    """Return the distance to a rounded box, hollow where a head lies on it."""

    def distance(x: Field, y: Field, z: Field) -> Field:
        """Return the signed distance to the box, mm."""
        sides = [
            np.maximum(np.float32(a) - w, w - np.float32(b))
            for w, a, b in zip((x, y, z), low, high, strict=True)
        ]
        top = np.float32(60) - np.float32(0.004) * x * x - y
        return smooth_max(smooth_max(sides[0], sides[1], 12.0), np.maximum(sides[2], top), 12.0)

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
