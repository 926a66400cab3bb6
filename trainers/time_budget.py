"""The time that a fold has: how much of it training gets, and how much its validation needs.

The time of the validation is estimated before training and corrected by what is measured meanwhile, since
another program, or the folds beside it, may make a machine several times slower.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from trainers.schedule import SPARE, Clock, share_of_time

LEAST_SHARE = 0.5
"""Smallest share of a fold's fair time that training gets, however long validation will take."""

LEAST_SLOWDOWN, LARGEST_SLOWDOWN = 0.5, 4.0
"""Limits of what one validation tells of the next: a pause of the machine should not halve every training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldTime:
    """The time limit of one fold."""

    ends: float
    """Value of `time.monotonic()` at which the fold is to be done, its validation included."""

    fair_seconds: float
    """Seconds that it was to have when the first fold began; folds before it may have taken some of them."""

    slowdown: float = 1.0
    """Time of the validation of earlier folds of this run, as a multiple of what was estimated for it."""


class FairTimes:
    """The time limits of folds that are trained one after the other, or in rounds.

    Args:
        deadline: Value of `time.monotonic()` at which all are to be done; None for no limit.
        shares: Share of the time from now on that each fold is to have, by its position.
    """

    def __init__(self, deadline: float | None, shares: Sequence[float]) -> None:
        self._deadline = deadline
        left = 0.0 if deadline is None else max(0.0, deadline - time.monotonic())
        self._fair = [left * (1 - SPARE) * share for share in shares]
        self._slowdowns: list[float] = []

    def of(self, position: int, share: float) -> FoldTime | None:
        """Return the time limit of a fold that begins now; None for no limit.

        Args:
            position: Position of the fold.
            share: Share that it gets of the time that is left, in (0, 1].

        Raises:
            NoTimeLeftError: If no time is left.
        """
        seconds = share_of_time(self._deadline, share)
        if seconds is None:
            return None
        return FoldTime(
            ends=time.monotonic() + seconds,
            fair_seconds=max(seconds, self._fair[position]),
            slowdown=mean(self._slowdowns) if self._slowdowns else 1.0,
        )

    def note(self, slowdown: float | None) -> None:
        """Take the slowdown that the validation of a fold has shown; None if it was not measured."""
        if slowdown is not None:
            self._slowdowns.append(slowdown)


@dataclass(kw_only=True, slots=True)
class TimeBudget:
    """The time of a fold in training, which learns from the tiles that are predicted meanwhile."""

    ends: float
    """Value of `time.monotonic()` at which the fold is to be done, its validation included."""

    least_end: float
    """Value of `time.monotonic()` before which training is not ended, whatever the validation needs."""

    tiles: float
    """Tiles between the last step and the end of the fold: those of the last epoch and of the validation."""

    seconds_per_tile: float
    """Seconds that a tile took before the training."""

    fixed_seconds: float
    """Seconds that everything but the tiles takes, more than 0: reading, resampling and writing."""

    slowdown: float = 1.0
    """Time of the validation of earlier folds, as a multiple of what was estimated for it."""

    measured_seconds_per_tile: float | None = None
    """Seconds that a tile took while the training ran; None if none has been timed yet."""

    steps_ended: float | None = None
    """Value of `time.monotonic()` after the last step; None before."""

    @property
    def learnt(self) -> bool:
        """Tell whether a tile was timed while the training ran."""
        return self.measured_seconds_per_tile is not None

    @property
    def estimate(self) -> float:
        """Return the seconds that are needed after the last step, without what earlier folds tell.

        What slows tiles down slows reading and writing as well.
        """
        now = self.measured_seconds_per_tile or self.seconds_per_tile
        busier = max(1.0, now / self.seconds_per_tile) if self.seconds_per_tile > 0 else 1.0
        return now * self.tiles + busier * self.fixed_seconds

    @property
    def validation_seconds(self) -> float:
        """Return the seconds that are needed after the last step."""
        return self.slowdown * self.estimate

    def learn(self, seconds_per_tile: float, clock: Clock) -> None:
        """Take the time of a tile that was predicted while the training ran, and fit the schedule to it."""
        self.measured_seconds_per_tile = seconds_per_tile
        clock.fit_into(self.training_seconds())

    def training_seconds(self) -> float:
        """Return the seconds that training has from now on; negative if it should have ended."""
        return max(self.ends - self.validation_seconds, self.least_end) - time.monotonic()

    def measured_slowdown(self) -> float | None:
        """Return how much longer than estimated the fold took after its last step, now that it is done.

        Returns:
            A multiple of the estimate, within limits; None if no step was taken.
        """
        if self.steps_ended is None:
            return None
        slowdown = (time.monotonic() - self.steps_ended) / self.estimate
        return min(max(slowdown, LEAST_SLOWDOWN), LARGEST_SLOWDOWN)
