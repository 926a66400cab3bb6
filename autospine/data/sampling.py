"""Where training patches are cut: evenly over cases, or centred on classes drawn evenly.

A patch depends on nothing but (seed, step, index in the batch), so that a resumed run and any number of
workers see the same patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autospine.core.errors import TrainingError
from autospine.core.labels import IGNORE_INDEX
from autospine.core.types import Shape3
from autospine.preprocessing.store import StoredCase


def patch_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """The source of all that is random in one patch.

    Args:
        seed: of the training run.
        step: optimiser step.
        index: position in the batch.
    """
    return np.random.default_rng((seed, step, index))


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Where a patch is cut."""

    case: int
    """Index into the sampler's cases."""

    start: Shape3
    """First voxel of the patch in the case; negative where the case is smaller than the patch."""


class Sampler:
    """Draws sites for patches.

    With probability `foreground_fraction` a class is drawn evenly among those that occur in any case, then
    a case that has it, then a voxel of it, on which the patch is centred as far as the case reaches.
    Otherwise a case is drawn evenly, and in it a position.

    Args:
        cases: to cut from.
        patch_size: voxels.
        foreground_fraction: in [0, 1].

    Raises:
        TrainingError: if there is no case.
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
        """A site for one patch."""
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
        s, p, left = (int(value) for value in start)
        return Site(case=case, start=(s, p, left))

    def _limits(self, case: int) -> tuple[np.ndarray, np.ndarray]:
        """First and last start with which patch and case lie inside one another along each axis."""
        room = np.asarray(self._cases[case].shape) - self._patch_size
        return np.minimum(room, 0), np.maximum(room, 0)
