"""How far vertebrae lie apart, how large they are, and how often one is missed.

Distances and widths are means of the tuning half of 300 public CT of whole and partial spines with keypoints
(Bürgin, Prevost and Stollenga, MICCAI 2023, CC BY-SA 4.0), smoothed in the neck, where those are few.
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

from autospine.vertebrae.levels import INDEX, LEVELS, SACRUM, VARIANTS, SpineVariant

STEPS_MM: Mapping[str, float] = {
    "C1": 18.0,
    "C2": 22.0,
    "C3": 18.0,
    "C4": 17.7,
    "C5": 17.8,
    "C6": 19.0,
    "C7": 20.2,
    "T1": 21.0,
    "T2": 21.2,
    "T3": 21.6,
    "T4": 22.1,
    "T5": 22.3,
    "T6": 22.9,
    "T7": 23.7,
    "T8": 24.3,
    "T9": 25.6,
    "T10": 27.6,
    "T11": 30.1,
    "T12": 32.7,
    "L1": 34.9,
    "L2": 36.0,
    "L3": 36.5,
    "L4": 36.3,
    "L5": 35.0,
}
"""Mean distance from the centre of each body to that of the next below."""

PEDICLES_MM: Mapping[str, float] = {
    "C1": 41.0,
    "C2": 36.0,
    "C3": 33.0,
    "C4": 32.0,
    "C5": 32.0,
    "C6": 31.5,
    "C7": 29.0,
    "T1": 27.4,
    "T2": 25.2,
    "T3": 24.4,
    "T4": 23.6,
    "T5": 23.0,
    "T6": 22.2,
    "T7": 22.2,
    "T8": 22.7,
    "T9": 23.4,
    "T10": 24.7,
    "T11": 27.2,
    "T12": 29.2,
    "L1": 30.0,
    "L2": 30.8,
    "L3": 32.9,
    "L4": 36.2,
    "L5": 43.3,
}
"""Mean distance between the centres of the left and right pedicle."""

SIZES_MM: Mapping[str, float] = {
    "C1": 23.0,
    "C2": 24.0,
    "C3": 20.0,
    "C4": 20.0,
    "C5": 20.8,
    "C6": 20.8,
    "C7": 22.0,
    "T1": 26.5,
    "T2": 27.3,
    "T3": 28.0,
    "T4": 28.8,
    "T5": 29.7,
    "T6": 30.7,
    "T7": 31.6,
    "T8": 32.5,
    "T9": 33.5,
    "T10": 34.5,
    "T11": 35.5,
    "T12": 36.3,
    "L1": 37.6,
    "L2": 39.0,
    "L3": 40.6,
    "L4": 40.6,
    "L5": 40.6,
}
"""Cube root of the volume of a whole vertebra, measured on public masks (CC BY 4.0), smoothed."""

TILTS_DEGREES: Mapping[str, float] = {
    "C1": 10.0,
    "C2": 2.0,
    "C3": 3.0,
    "C4": 6.0,
    "C5": 10.0,
    "C6": 15.0,
    "C7": 24.0,
    "T1": 24.0,
    "T2": 22.0,
    "T3": 18.0,
    "T4": 12.5,
    "T5": 6.5,
    "T6": 0.0,
    "T7": -5.5,
    "T8": -9.8,
    "T9": -12.2,
    "T10": -13.2,
    "T11": -13.9,
    "T12": -14.5,
    "L1": -15.9,
    "L2": -13.5,
    "L3": -6.6,
    "L4": 5.9,
    "L5": 21.0,
}
"""Mean angle between the body's axis and the line to the next centre below, positive where that lies further
back."""

TILT_SPREAD_DEGREES = 11.0
"""Standard deviation of that angle."""

ANY_TILT_DEGREES = 20.0
"""Standard deviation of the angle where nothing is known of the levels."""

SPREAD = 0.08
"""Standard deviation of a distance in parts of its mean, in spines of one size."""

POSITION_ERROR_MM = 1.5
"""Standard deviation of a measured centre along the spine."""

SIZES: Float64[np.ndarray, " sizes"] = np.exp(np.linspace(-0.3, 0.26, 8))
"""Sizes of spines that are tried, in parts of the mean."""

SIZE_SPREAD = 0.11
"""Standard deviation of the logarithm of a spine's size."""

LOG_MISSED = math.log(0.02)
"""Logarithm of the chance that a vertebra in view was not found."""

LOG_OUTLIER = math.log(0.005 / 200)
"""Logarithm of the density, per mm, of a distance that fits no spine: a wrong centre, a fracture, a slip."""

TRUST = 0.7
"""Exponent of the evidence of distances, angles and sizes: neighbours deviate together, and are not
independent."""

EXTENT_SPREAD = 0.10
"""Standard deviation of the logarithm of a vertebra's own size, in spines of one size."""

LOG_EXTENT_OUTLIER = math.log(0.1)
"""Logarithm of the density of the logarithm of a size that fits no level."""


def log_size_prior() -> Float64[np.ndarray, " sizes"]:
    """Return the logarithm of the prior of each of `SIZES`."""
    log = -0.5 * (np.log(SIZES) / SIZE_SPREAD) ** 2
    return np.asarray(log - np.log(np.exp(log).sum()))


def by_variant(values: Mapping[str, float]) -> Float64[np.ndarray, "variants levels"]:
    """Return a value of each level in each kind of spine, NaN where there is none.

    A region with a vertebra more or less has the proportions of the usual one, stretched: the last lumbar
    vertebra is like L5, whatever its number.

    Args:
        values: Value of each usual level, perhaps of the sacrum.
    """
    table = np.full((len(VARIANTS), len(LEVELS)), np.nan)
    for row, variant in zip(table, VARIANTS, strict=True):
        for region in "CTL":
            there = [level for level in variant.levels if level[0] == region]
            usual = [values[level] for level in values if level[0] == region]
            row[[INDEX[level] for level in there]] = np.interp(
                np.linspace(0, 1, len(there)), np.linspace(0, 1, len(usual)), usual
            )
        row[INDEX[SACRUM]] = values.get(SACRUM, np.nan)
    return table


def places_mm(
    variant: SpineVariant, steps_mm: Float64[np.ndarray, " levels"]
) -> Float64[np.ndarray, " levels"]:
    """Return how far each level's centre lies below that of C1; NaN for levels that the spine lacks.

    Args:
        variant: Kind of spine.
        steps_mm: Distance from each level to the next below.
    """
    places = np.full(len(LEVELS), np.nan)
    there = [INDEX[level] for level in variant.levels]
    places[there] = np.concatenate(([0.0], np.cumsum(steps_mm[there[:-1]])))
    return places
