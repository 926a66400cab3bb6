"""Faults that users report of label maps of vertebrae, put into right ones."""

from collections.abc import Iterator

import numpy as np

from autospine.core.geometry import Grid
from autospine.core.labels import VERSE
from autospine.core.types import LabelArray
from autospine.vertebrae.schemes import COMMON

LARGE_ML = 3.0
"""Vertebrae of which less is in view are not counted."""


def with_faults(labels: LabelArray, grid: Grid, seed: int) -> Iterator[tuple[str, LabelArray]]:
    """Yield copies of a right map with the faults that users report."""
    random = np.random.default_rng(seed)
    values = [VERSE[level] for level in COMMON if volume_ml(labels == VERSE[level], grid) > LARGE_ML]
    chosen = int(random.choice(values[1:-1] or values))
    upper = labels == chosen
    heights = np.flatnonzero(upper.any(axis=(1, 2)))
    upper[: int(heights.mean())] = False
    yield "split between two labels", np.where(upper, chosen - 1, labels)
    vertebrae = (labels >= 1) & (labels <= 24)
    yield "shifted from a level down", np.where(vertebrae & (labels >= chosen), labels + 1, labels)
    upwards = vertebrae & (labels <= chosen) & (labels > 1)
    yield "shifted from a level up", np.where(upwards, labels - 1, labels)
    one, other = random.choice(values, 2, replace=False)
    yield "two swapped", np.select([labels == one, labels == other], [other, one], labels)
    place = int(random.integers(0, len(values) - 1))
    yield "one named twice", np.where(labels == values[place], values[place + 1], labels)
    yield "fragments", _fragmented(labels, grid, random)
    noisy = labels.copy()
    for value in values:
        if random.random() < 0.2:
            noisy[labels == value] = random.integers(1, 25)
    yield "20 % at random", noisy


def _fragmented(labels: LabelArray, grid: Grid, random: np.random.Generator) -> LabelArray:
    """Give twelve small blocks within vertebrae the label of another one."""
    changed = labels.copy()
    places = np.argwhere((labels >= 1) & (labels <= 24))
    for place in places[random.integers(len(places), size=12)]:
        block = tuple(
            slice(max(0, at - round(3 / mm)), at + round(3 / mm) + 1)
            for at, mm in zip(place, grid.spacing_mm, strict=True)
        )
        value = labels[tuple(place)]
        changed[block][labels[block] == value] = np.clip(value + random.choice([-1, 1, 5]), 1, 24)
    return changed


def volume_ml(mask: np.ndarray, grid: Grid) -> float:
    """Return the volume of a mask in ml."""
    return float(np.count_nonzero(mask) * np.prod(grid.spacing_mm) / 1000)
