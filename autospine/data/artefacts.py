"""Simulated artefacts of scanners: metal with its streaks in CT, uneven sensitivity in MR.

Both are made on normalised patches and leave the labels as they are; the window of a CT is shifted before
normalisation, where the stored values still reach beyond it.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, Float64

from autospine.core.geometry import triple
from autospine.core.labels import IGNORE_INDEX
from autospine.core.types import ImageArray, LabelArray, Modality, Shape3, Vector3
from autospine.plan import Augmentation
from autospine.preprocessing.normalise import IntensityTransform
from autospine.preprocessing.resample import resample

BIAS_MM = 80.0
"""Approximate distance of the bias field's control points: coils are larger than vertebrae."""

BIAS_LIMIT = 2.5
"""Largest deviation of a control point from its mean, in standard deviations."""

SCREW_RADIUS_MM = (2.0, 3.5)
SCREW_LENGTH_MM = (30.0, 55.0)
SCREW_DISTANCE_MM = (20.0, 40.0)
"""Range of the distance between two screws of one vertebra. Pedicle screws are 4 to 7 mm thick."""

SCREW_TURN_DEG = 25.0
SCREW_TILT_DEG = 10.0
"""Largest angles of a screw to the sagittal axis, within the axial plane and out of it."""

STREAK_MM = 40.0
"""Distance over which streaks fall to 1/e."""

STREAK_SLICES_MM = 2.0
"""Half the distance that streaks reach beyond the slices with metal; streaks arise slice by slice."""

STREAK_WAVES = (2, 14)
"""Range of the number of pairs of bright and dark streaks around a screw."""


def windowed(
    transform: IntensityTransform, modality: Modality, strength: Augmentation, rng: np.random.Generator
) -> IntensityTransform:
    """Return an intensity transform; in CT, its clipping bounds are shifted at random."""
    if modality != "CT" or rng.random() >= strength.window_probability:
        return transform
    low, high = rng.uniform(-strength.window_shift, strength.window_shift, 2)
    bounds = [
        (a + low * (b - a), b + high * (b - a)) for a, b in zip(transform.lower, transform.upper, strict=True)
    ]
    lower, upper = zip(*bounds, strict=True)
    return replace(transform, lower=lower, upper=upper)


def add_artefacts(
    image: ImageArray,
    labels: LabelArray,
    modality: Modality,
    transform: IntensityTransform,
    spacing_mm: Vector3,
    strength: Augmentation,
    rng: np.random.Generator,
) -> ImageArray:
    """Add metal to a CT patch or a bias field to an MR patch, each with its planned probability.

    Args:
        image: Image (C, S, P, L), normalised by `transform`; may be overwritten.
        labels: Stored indices (S, P, L).
        modality: Modality of the image.
        transform: Intensity transform that normalised the image.
        spacing_mm: Voxel size (S, P, L).
        strength: Probabilities and strengths of the artefacts.
        rng: Random generator of the patch.
    """
    if modality == "MR":
        if rng.random() < strength.bias_probability:
            return add_bias(image, transform, strength.bias_std, spacing_mm, rng)
    elif rng.random() < strength.metal_probability:
        return add_metal(image, labels, transform, strength.metal_hu, spacing_mm, rng)
    return image


def add_bias(
    image: ImageArray,
    transform: IntensityTransform,
    std: float,
    spacing_mm: Vector3,
    rng: np.random.Generator,
) -> ImageArray:
    """Multiply the intensities above air by a smooth field, the same one for all channels.

    Args:
        image: Normalised image (C, S, P, L); overwritten.
        transform: Intensity transform of the image, whose lower bound is air.
        std: Standard deviation of the field's logarithm at its control points.
        spacing_mm: Voxel size (S, P, L).
        rng: Random generator of the patch.
    """
    field = bias_field(triple(image.shape[1:]), std, spacing_mm, rng)
    for values, air in zip(image, transform.background, strict=True):
        values -= np.float32(air)
        values *= field
        values += np.float32(air)
    return image


def bias_field(
    size: Shape3, std: float, spacing_mm: Vector3, rng: np.random.Generator
) -> Float32[np.ndarray, "s p l"]:
    """Draw a positive field around 1 that varies over `BIAS_MM`: the exponential of a cubic spline.

    Args:
        size: Shape of the field in voxels (S, P, L).
        std: Standard deviation of the field's logarithm at its control points.
        spacing_mm: Voxel size (S, P, L).
        rng: Random generator of the patch.
    """
    points = [max(2, round(n * d / BIAS_MM) + 1) for n, d in zip(size, spacing_mm, strict=True)]
    control = np.clip(rng.standard_normal(points, dtype=np.float32), -BIAS_LIMIT, BIAS_LIMIT)
    field: np.ndarray = resample((control * np.float32(std))[None], size)[0]
    np.exp(field, out=field)
    return field


def add_metal(
    image: ImageArray,
    labels: LabelArray,
    transform: IntensityTransform,
    streak_hu: float,
    spacing_mm: Vector3,
    rng: np.random.Generator,
) -> ImageArray:
    """Put one or two screws through a structure, with streaks in the slices that they lie in.

    Args:
        image: Normalised image (C, S, P, L); overwritten.
        labels: Stored indices (S, P, L); a patch without foreground stays as it is.
        transform: Intensity transform of the image; metal is as bright as its window allows.
        streak_hu: Largest change that streaks make, in HU.
        spacing_mm: Voxel size (S, P, L).
        rng: Random generator of the patch.
    """
    structure = np.flatnonzero((labels != 0) & (labels != IGNORE_INDEX))
    if not len(structure):
        return image
    voxel = np.unravel_index(structure[rng.integers(len(structure))], labels.shape)
    screw = _draw_screw(np.asarray(voxel) * np.asarray(spacing_mm), rng)
    screws = [screw]
    if rng.random() < 0.5:
        aside = np.asarray([0.0, 0.0, rng.uniform(*SCREW_DISTANCE_MM)])
        screws.append(_draw_screw(screw.centre_mm + aside, rng))
    for screw in screws:
        _add_streaks(image, screw, transform, streak_hu * rng.uniform(0.5, 1.0), spacing_mm, rng)
    for screw in screws:
        _paint(image, screw, transform, spacing_mm)
    return image


@dataclass(frozen=True, kw_only=True, slots=True)
class _Screw:
    """A cylindrical rod in a patch."""

    centre_mm: Float64[np.ndarray, "3"]
    """Centre, in mm from the first voxel of the patch."""

    direction: Float64[np.ndarray, "3"]
    """Unit vector along the rod."""

    radius_mm: float
    length_mm: float


def _draw_screw(centre_mm: Float64[np.ndarray, "3"], rng: np.random.Generator) -> _Screw:
    """Draw a screw around a centre that runs approximately from front to back."""
    turn, tilt = np.deg2rad(rng.uniform(-1, 1, 2) * (SCREW_TURN_DEG, SCREW_TILT_DEG))
    return _Screw(
        centre_mm=centre_mm,
        direction=np.asarray([np.sin(tilt), np.cos(tilt) * np.cos(turn), np.cos(tilt) * np.sin(turn)]),
        radius_mm=rng.uniform(*SCREW_RADIUS_MM),
        length_mm=rng.uniform(*SCREW_LENGTH_MM),
    )


def _add_streaks(
    image: ImageArray,
    screw: _Screw,
    transform: IntensityTransform,
    streak_hu: float,
    spacing_mm: Vector3,
    rng: np.random.Generator,
) -> None:
    """Add the streaks of a screw to the image, within the window of its transform."""
    slices, s, p, left = _around(screw, image.shape[1:], spacing_mm)
    streaks = streak_hu * _star(p, left, rng) * _nearness(s, _reach(screw))
    bounds = zip(transform.lower, transform.upper, transform.mean, transform.std, strict=True)
    for values, (lower, upper, mean, std) in zip(image[:, slices], bounds, strict=True):
        values += (streaks / std).astype(np.float32)
        np.clip(values, (lower - mean) / std, (upper - mean) / std, out=values)


def _paint(image: ImageArray, screw: _Screw, transform: IntensityTransform, spacing_mm: Vector3) -> None:
    """Set the voxels inside a screw to the upper bound of the window."""
    slices, s, p, left = _around(screw, image.shape[1:], spacing_mm)
    along = s * screw.direction[0] + p * screw.direction[1] + left * screw.direction[2]
    aside = s**2 + p**2 + left**2 - along**2
    metal = (aside <= screw.radius_mm**2) & (np.abs(along) <= screw.length_mm / 2)
    bounds = zip(transform.upper, transform.mean, transform.std, strict=True)
    for values, (upper, mean, std) in zip(image[:, slices], bounds, strict=True):
        values[metal] = (upper - mean) / std


def _around(
    screw: _Screw, size: tuple[int, ...], spacing_mm: Vector3
) -> tuple[slice, Float32[np.ndarray, "s 1 1"], Float32[np.ndarray, "p 1"], Float32[np.ndarray, "l"]]:
    """Return the slices that the streaks reach, and offsets in mm from the screw's centre along S, P, L."""
    reach = _reach(screw)
    first = max(0, int((screw.centre_mm[0] - reach) / spacing_mm[0]))
    last = min(size[0], int((screw.centre_mm[0] + reach) / spacing_mm[0]) + 2)
    s, p, left = (
        (np.arange(start, stop) * d - centre).astype(np.float32)
        for start, stop, d, centre in zip(
            (first, 0, 0), (last, *size[1:]), spacing_mm, screw.centre_mm, strict=True
        )
    )
    return slice(first, last), s[:, None, None], p[:, None], left


def _reach(screw: _Screw) -> float:
    """Return the distance in mm along S from the screw's centre at which its streaks end."""
    return float(abs(screw.direction[0]) * screw.length_mm / 2 + screw.radius_mm + 2 * STREAK_SLICES_MM)


def _star(
    p: Float32[np.ndarray, "p 1"], left: Float32[np.ndarray, "l"], rng: np.random.Generator
) -> Float[np.ndarray, "p l"]:
    """Draw bright and dark rays in [-1, 1] around the origin of an axial plane."""
    angle = np.arctan2(p, left)
    waves = rng.integers(*STREAK_WAVES, size=3, endpoint=True)
    phases = rng.uniform(0, 2 * np.pi, 3)
    rays = sum(np.cos(n * angle + phase) for n, phase in zip(waves, phases, strict=True)) / 3
    decaying: np.ndarray = rays * np.exp(-np.hypot(p, left) / STREAK_MM)
    return decaying


def _nearness(s: Float32[np.ndarray, "s 1 1"], reach: float) -> Float[np.ndarray, "s 1 1"]:
    """Weight slices with 1 where they hold metal, falling linearly to 0 where the streaks end."""
    beyond = np.abs(s) - (reach - 2 * STREAK_SLICES_MM)
    weight: np.ndarray = np.clip(1 - beyond / (2 * STREAK_SLICES_MM), 0, 1)
    return weight
