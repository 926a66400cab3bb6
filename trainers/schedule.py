"""Training progress by steps or time, and the learning rate as a function of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi

from autospine.core.errors import TrainingError

SPARE = 0.03
"""Share of the remaining time that is reserved for the unforeseen, such as a slow last step."""

TOLERANCE = 1e-9
"""Largest difference between two values of the progress that are equal up to rounding."""

ENDLESS = 10**9
"""Steps of a schedule that only its time limit ends."""

LEAST_STEPS = 5
"""Steps that a training takes at least before a time limit may end it: after fewer the weights are those that
it began with."""

FINAL = 0.01
"""Share of the peak learning rate at the very end."""


class NoTimeLeftError(TrainingError):
    """A fold for which the time limit leaves no time; it stays as it was."""


def learning_rate(progress: float, peak: float, warmup: float) -> float:
    """Compute the learning rate: a linear warm-up to `peak`, then a cosine decay to `FINAL * peak`.

    Args:
        progress: Progress of the training in [0, 1].
        peak: Largest learning rate.
        warmup: Share of the progress that the warm-up takes, in [0, 1).
    """
    if progress < warmup:
        return peak * max(progress / warmup, FINAL)
    along = (progress - warmup) / (1 - warmup)
    return peak * (FINAL + (1 - FINAL) * 0.5 * (1 + cos(pi * min(along, 1.0))))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cooldown:
    """The rest of a schedule that is run through in fewer steps than planned."""

    step: int
    """Steps that had been taken when it began."""

    progress: float
    """Progress when it began, in [0, 1)."""

    steps: int
    """Steps that it takes, at least one."""

    @property
    def end(self) -> int:
        """Return the number of steps after which the training ends."""
        return self.step + self.steps

    def at(self, step: int) -> float:
        """Return the progress after this many steps of the training, in [0, 1]."""
        return self.progress + (1 - self.progress) * min((step - self.step) / self.steps, 1.0)

    def resumed(self, step: int, progress: float) -> "Cooldown":
        """Return the cooldown as a resumed training goes on with it.

        Args:
            step: Steps taken so far.
            progress: Progress reached.

        Returns:
            This cooldown if it is where its steps say; otherwise (time was short, or the number of processes
            has changed) one of the share of its steps that is left.
        """
        if abs(self.at(step) - progress) < TOLERANCE:
            return self
        left = (1 - progress) / (1 - self.progress) * self.steps
        return Cooldown(step=step, progress=progress, steps=max(1, round(left)))


@dataclass(slots=True)
class Clock:
    """Training progress by steps, or by time if the time limit is reached first.

    A resumed training continues from the progress that it had reached, whatever time or number of steps it is
    given now: the rest of the schedule is spread over the remaining steps or the remaining time.
    """

    total_steps: int
    """Optimiser steps of the whole training; those until the end of the cooldown if there is one."""

    step: int = 0
    """Optimiser steps taken so far."""

    progress: float = 0.0
    """Progress in [0, 1]; 1 is the end."""

    seconds: float | None = None
    """Time limit counted from `start`; None for no limit."""

    cooldown: Cooldown | None = None
    """Short rest of the schedule, once the training is brought to its end; it decides over `total_steps`."""

    _began: float = 0.0
    _base: float = 0.0
    """Value of `time.monotonic()` and progress from which the time limit counts."""

    _base_step: int = 0
    """Step from which this schedule counts; 0 if the progress has always been that of the steps."""

    _base_of_steps: float = 0.0
    """Progress at that step."""

    def __post_init__(self) -> None:
        if self.cooldown is not None:
            self.cooldown = self.cooldown.resumed(self.step, self.progress)
            self.total_steps = self.cooldown.end

    def start(self) -> None:
        """Start or resume now; the training is done if all steps were taken already."""
        if self.step >= self.total_steps:
            self.progress = 1.0
        self._began, self._base = time.monotonic(), self.progress
        as_planned = abs(self.progress - self.step / self.total_steps) < TOLERANCE
        self._base_step, self._base_of_steps = (0, 0.0) if as_planned else (self.step, self.progress)

    def fit_into(self, seconds: float) -> None:
        """Spread the rest of the schedule over another number of seconds from now on.

        Args:
            seconds: Time limit, counted from now; the training ends with its next step if it is 0 or less.
        """
        self._began, self._base, self.seconds = time.monotonic(), self.progress, max(seconds, 0.0)

    def cool_down(self, steps: int) -> bool:
        """Run through the rest of the schedule in this many steps from now on, or until the time is over.

        Returns:
            Whether that ends the training sooner; if it does not, nothing is changed.
        """
        if self.done or steps >= round(self.steps_left):
            return False
        self.cooldown = Cooldown(step=self.step, progress=self.progress, steps=steps)
        self.total_steps = self.cooldown.end
        return True

    def tick(self) -> None:
        """Count one step and update the progress, which never decreases."""
        self.step += 1
        self.progress = max(self.progress, self._by_steps(), self._by_time())

    @property
    def done(self) -> bool:
        """Whether the training has reached its end."""
        return self.progress >= 1.0

    @property
    def steps_left(self) -> float:
        """Number of steps until the end: the planned ones, or fewer if the time allows no more."""
        planned = self.total_steps - self.step
        if self.seconds is None or self.progress == 0:
            return planned
        return min(planned, self.step * (1 - self.progress) / self.progress)

    @property
    def endless(self) -> bool:
        """Whether the schedule has no number of steps, so that only its time limit ends it."""
        return self.total_steps == ENDLESS

    def _by_steps(self) -> float:
        if self.cooldown is not None:
            return self.cooldown.at(self.step)
        if self._base_step == 0:
            return self.step / self.total_steps
        share = (self.step - self._base_step) / (self.total_steps - self._base_step)
        return self._base_of_steps + (1 - self._base_of_steps) * share

    def _by_time(self) -> float:
        if self.seconds is None:
            return 0.0
        share = (time.monotonic() - self._began) / max(self.seconds, 1e-9)
        return self._base + (1 - self._base) * min(share, 1.0)


def share_of_time(deadline: float | None, share: float) -> float | None:
    """Compute a share of the time that remains until a deadline, in seconds.

    Args:
        deadline: Value of `time.monotonic()` at which the training has to end; None for no limit.
        share: Share of the remaining time, in (0, 1].

    Returns:
        Seconds, less the reserve `SPARE`; None without a deadline.

    Raises:
        NoTimeLeftError: If no time remains.
    """
    if deadline is None:
        return None
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise no_time_left(())
    return remaining * (1 - SPARE) * share


def no_time_left(folds: Sequence[str]) -> NoTimeLeftError:
    """Return the error that names the folds for which the time limit leaves no time.

    Args:
        folds: Names of the folds; empty if they are not known.
    """
    which = f"fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}" if folds else "the remaining folds"
    return NoTimeLeftError(
        f"no time is left for {which}, which stay{'s' if len(folds) == 1 else ''} incomplete; run the same "
        "command again, with a longer --max-minutes if it was too short for them: complete folds are kept"
    )
