"""Sampling of the positions of training patches, uniform over cases or centred on uniformly drawn classes.

A patch depends only on (seed, step, index in the batch), so that a resumed run and any number of workers get
the same patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from autospine.core.errors import TrainingError
from autospine.core.geometry import triple
from autospine.core.labels import IGNORE_INDEX
from autospine.core.types import Shape3
from autospine.preprocessing.store import StoredCase


def patch_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """Make the random generator of one patch.

    Args:
        seed: Seed of the training run.
        step: Optimiser step.
        index: Position in the batch.
    """
    return np.random.default_rng((seed, step, index))


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Position of a patch in a case."""

    case: int
    """Index of the case in the sampler's cases."""

    start: Shape3
    """First voxel of the patch in the case; negative if the case is smaller than the patch."""


class Sampler:
    """Sampler of positions for patches.

    With probability `foreground_fraction` a class is drawn uniformly among those that occur in any case, then
    a case that has it, then a voxel of it, on which the patch is centred as far as the case extends.
    Otherwise a case is drawn uniformly, and a position in it.

    Args:
        cases: Stored cases to cut patches from.
        patch_size: Patch size in voxels (S, P, L).
        foreground_fraction: Share of patches that are centred on a class, in [0, 1].

    Raises:
        TrainingError: If there is no case.
    """

    def __init__(self, cases: Sequence[StoredCase], patch_size: Shape3, foreground_fraction: float) -> None:
        if not cases:
            raise TrainingError("expected at least one preprocessed case to train on, found none")
        self._cases = cases
        self._patch_size = np.asarray(patch_size)
        self._fraction = foreground_fraction
        self._homes: dict[int, list[int]] = {}
        for number, case in enumerate(cases):
            for label, _ in case.record.label_voxels:
                if label not in (0, IGNORE_INDEX):
                    self._homes.setdefault(label, []).append(number)
        self._classes = sorted(self._homes)

    def draw(self, rng: np.random.Generator) -> Site:
        """Draw the position of one patch."""
        if self._classes and rng.random() < self._fraction:
            label = self._classes[rng.integers(len(self._classes))]
            case = self._homes[label][rng.integers(len(self._homes[label]))]
            voxels = self._cases[case].locations[label]
            start = voxels[rng.integers(len(voxels))] - self._patch_size // 2
            low, high = self._limits(case)
            start = np.clip(start, low, high)
        else:
            case = int(rng.integers(len(self._cases)))
            low, high = self._limits(case)
            start = rng.integers(low, high, endpoint=True)
        return Site(case=case, start=triple(int(value) for value in start))

    def _limits(self, case: int) -> tuple[Int64[np.ndarray, "3"], Int64[np.ndarray, "3"]]:
        """Return the first and last start at which, along each axis, patch or case contains the other."""
        room = np.asarray(self._cases[case].shape) - self._patch_size
        return np.minimum(room, 0), np.maximum(room, 0)
