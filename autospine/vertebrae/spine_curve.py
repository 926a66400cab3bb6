"""The order of points along a spine."""

import numpy as np
from jaxtyping import Float64, Integer

STEPS = 4
"""Times that the curve is fitted anew to the order that it gave."""

DEGREE = 3
"""Degree of the curve's coordinates in the length along it: a spine bends forwards and backwards and to the
sides, and a higher degree would follow single points."""


def order_from_head(points_mm: Float64[np.ndarray, "n 3"]) -> Integer[np.ndarray, " n"]:
    """Return the order of points from the head down along the curve that fits them best.

    It begins with their order along the body's axis. A curve through all of them gives each a place by its
    nearest point, so that a spine that bends far forwards keeps its order.

    Args:
        points_mm: Positions (x, y, z); z grows to the head.
    """
    along = -points_mm[:, 2]
    if len(points_mm) <= DEGREE + 1:
        return np.argsort(along, kind="stable")
    for _ in range(STEPS):
        order = np.argsort(along, kind="stable")
        curve, places = fitted_curve(points_mm[order])
        nearest = np.linalg.norm(points_mm[:, None] - curve[None], axis=2).argmin(axis=1)
        along = places[nearest]
    return np.argsort(along, kind="stable")


def fitted_curve(
    points_mm: Float64[np.ndarray, "n 3"],
) -> tuple[Float64[np.ndarray, "m 3"], Float64[np.ndarray, " m"]]:
    """Return a smooth curve through ordered points, in steps of about a millimetre, and the places along it.

    Single points that lie far off hardly count: each is weighted by its distance from the curve of the round
    before.
    """
    steps = np.linalg.norm(np.diff(points_mm, axis=0), axis=1)
    along = np.concatenate(([0.0], np.cumsum(steps)))
    scaled = along / max(along[-1], 1.0) * 2 - 1
    degree = min(DEGREE, len(points_mm) - 1)
    basis = np.polynomial.chebyshev.chebvander(scaled, degree)
    weights = np.ones(len(points_mm))
    for _ in range(STEPS):
        root = np.sqrt(weights)[:, None]
        coefficients = np.linalg.lstsq(basis * root, points_mm * root, rcond=None)[0]
        off = np.linalg.norm(points_mm - basis @ coefficients, axis=1)
        weights = 1 / (1 + (off / max(float(np.median(off)) * 3, 2.0)) ** 2)
    margin = 1.05  # points beyond the ends have places of their own
    fine = np.linspace(-margin, margin, max(8, int(along[-1])))
    curve = np.polynomial.chebyshev.chebvander(fine, degree) @ coefficients
    return curve, fine
