"""Centroids of the classes of a case, and what they say of the names of vertebrae.

The identification rate is that of VerSe (Sekuboyina et al. 2021, arXiv:2001.09193): a vertebra is identified
if the centroid that was predicted for it lies within 20 mm of its own, and no other vertebra's is nearer.
Centroids are those of masks here, while VerSe annotates points in vertebral bodies.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from autospine.core.colours import level_named
from autospine.core.labels import VERTEBRAE

FARTHEST_MM = 20.0
"""Largest distance between two centroids of the same vertebra: less than that of thoracic neighbours."""


class CaseCentroids(NamedTuple):
    """Centroids of all classes of a case; a class that is absent has NaN."""

    predicted: Float[np.ndarray, "C 3"]
    """Centroid of each class in the prediction, in mm along S, P and L."""

    true: Float[np.ndarray, "C 3"]
    """The same in the reference."""

    vertebrae: Bool[np.ndarray, " C"]
    """Whether the class is a vertebra with a name."""

    def distance_mm(self, position: int) -> float:
        """Return the distance between a class's two centroids in mm; NaN where it is absent in either map."""
        return float(np.linalg.norm(self.predicted[position] - self.true[position]))

    def identified(self, position: int) -> float:
        """Tell whether a vertebra was identified, 0 or 1; NaN for other classes and absent vertebrae."""
        if not self.vertebrae[position] or np.isnan(self.true[position]).any():
            return math.nan
        distances = np.linalg.norm(self.true[self.vertebrae] - self.predicted[position], axis=1)
        own = self.distance_mm(position)
        return float(own <= FARTHEST_MM and own <= np.nanmin(distances))


def is_vertebra(name: str) -> bool:
    """Tell whether a class is a vertebra with a level by its name, as `L1`, `vertebrae_T12` or `C7_body`."""
    structure, level = level_named(name)
    return structure == "vertebra" and level in VERTEBRAE


def vertebrae_among(names: Sequence[str]) -> Bool[np.ndarray, " C"]:
    """Return which classes are vertebrae by their names."""
    return np.asarray([is_vertebra(name) for name in names], dtype=bool)
