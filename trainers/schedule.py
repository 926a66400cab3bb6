"""How far training is, and what the learning rate is there."""

import time
from dataclasses import dataclass
from math import cos, pi

from autospine.core.errors import TrainingError

SPARE = 0.03
"""Share of the time left that is kept for what cannot be foreseen."""

TOLERANCE = 1e-9
"""Difference of two shares of a schedule that are the same but for rounding."""

FINAL = 0.01
"""Share of the peak learning rate at the very end."""


def learning_rate(progress: float, peak: float, warmup: float) -> float:
    """Linear rise to `peak`, then a cosine to `FINAL` of it.

    Args:
        progress: in [0, 1].
        peak: largest learning rate.
        warmup: share of the progress spent rising, in [0, 1).
    """
    if progress < warmup:
        return peak * max(progress / warmup, FINAL)
    along = (progress - warmup) / (1 - warmup)
    return peak * (FINAL + (1 - FINAL) * 0.5 * (1 + cos(pi * min(along, 1.0))))


@dataclass(slots=True)
class Clock:
    """Training progress by steps, or by time where time runs out first.

    Resuming goes on from the progress that was reached, whatever time or number of steps is given now: what
    is left of the schedule spreads over what is left of either.
    """

    total_steps: int
    step: int = 0
    progress: float = 0.0
    """In [0, 1]; 1 is the end."""

    seconds: float | None = None
    """Time given from `start` on; None for as long as the steps take."""

    _began: float = 0.0
    _base: float = 0.0
    _base_step: int = 0
    """Where the steps of this schedule are counted from; 0 if it was one of steps from the beginning."""

    def start(self) -> None:
        """Begin, or go on, now; fewer steps than were taken already are the end."""
        if self.step >= self.total_steps:
            self.progress = 1.0
        self._began, self._base = time.monotonic(), self.progress
        as_planned = abs(self.progress - self.step / self.total_steps) < TOLERANCE
        self._base_step = 0 if as_planned else self.step

    def tick(self) -> None:
        """Count one step."""
        self.step += 1
        self.progress = max(self.progress, self._by_steps(), self._by_time())

    @property
    def done(self) -> bool:
        """Whether the end is reached."""
        return self.progress >= 1.0

    def _by_steps(self) -> float:
        if self._base_step == 0:
            return self.step / self.total_steps
        share = (self.step - self._base_step) / (self.total_steps - self._base_step)
        return self._base + (1 - self._base) * share

    def _by_time(self) -> float:
        if self.seconds is None:
            return 0.0
        share = (time.monotonic() - self._began) / max(self.seconds, 1e-9)
        return self._base + (1 - self._base) * min(share, 1.0)


def share_of_time(deadline: float | None, share: float) -> float | None:
    """This share of the time left until a value of `time.monotonic()`, in seconds.

    Raises:
        TrainingError: if none is left.
    """
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TrainingError(
            "expected time for the folds that are left, found none; "
            "run the same command again: complete folds are kept"
        )
    return left * (1 - SPARE) * share
