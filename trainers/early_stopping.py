"""Early stopping: the rule that brings a training to its end once the held-out Dice has reached a plateau.

A plateau does not break a training off. The learning rate still has to decay, so the rest of the schedule is
run through in a short cooldown, after which the averaged weights are kept as always.
"""

from dataclasses import dataclass, replace
from math import ceil

from autospine.plan import TrainingPlan
from trainers.schedule import Clock

LEAST_RISE = 0.002
"""Rise of the held-out Dice that counts: as much as three seeds of a training differ by
(docs/results/training.md)."""

COOLDOWN_SHARE = 0.25
"""Epochs of the cooldown as a share of those before it. It is then a fifth of the whole training, with which
a late decay reaches what a cosine over all steps reaches (Hägele et al., 2024, arXiv 2405.18392)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plateau:
    """Course of the held-out Dice, as far as the rule has to know it."""

    epochs: int = 0
    """Complete epochs so far."""

    best: float | None = None
    """Dice that later epochs have to exceed by `LEAST_RISE`, in [0, 1]; None if none was measured."""

    best_epoch: int = 0
    """Epoch from which the patience counts: that of `best`, or a later one during the warm-up."""

    found: int | None = None
    """Epoch after which the training was brought to its end; None if it was not."""

    def after(self, dice: float | None, *, warming_up: bool = False) -> "Plateau":
        """Return the course after a further epoch.

        Args:
            dice: Held-out Dice of the epoch; None if it could not be computed.
            warming_up: Whether the learning rate still rises; then the patience has not begun to count.
        """
        epoch = self.epochs + 1
        if dice is not None and (self.best is None or dice > self.best + LEAST_RISE):
            return replace(self, epochs=epoch, best=dice, best_epoch=epoch)
        return replace(self, epochs=epoch, best_epoch=epoch if warming_up else self.best_epoch)

    @property
    def waited(self) -> int:
        """Return the number of epochs without a rise."""
        return self.epochs - self.best_epoch

    def reached(self, patience: int) -> bool:
        """Tell whether the Dice has not risen for this many epochs; False if it was never measured."""
        return self.best is not None and self.waited >= patience


@dataclass(kw_only=True, slots=True)
class EarlyStopping:
    """Early stopping of one fold; processes that train together decide alike."""

    patience: int
    """Epochs without a rise after which the training is brought to its end."""

    plateau: Plateau
    """Course of the held-out Dice so far."""

    def finish_epoch(self, dice: float | None, recipe: TrainingPlan, clock: Clock) -> str | None:
        """Shorten the schedule once the held-out Dice has reached a plateau.

        Args:
            dice: Held-out Dice of the epoch; None if it could not be computed.
            recipe: Recipe of the training.
            clock: Progress of the training.

        Returns:
            A sentence that says so, if training now comes to its end.
        """
        self.plateau = self.plateau.after(dice, warming_up=clock.progress <= recipe.warmup_fraction)
        if clock.cooldown is not None or not self.plateau.reached(self.patience):
            return None
        epochs = ceil(COOLDOWN_SHARE * self.plateau.epochs)
        if not clock.cool_down(epochs * recipe.iterations_per_epoch):
            return None
        self.plateau = replace(self.plateau, found=self.plateau.epochs)
        return (
            f"the held-out Dice has not risen by {LEAST_RISE} above {self.plateau.best:.3f} for "
            f"{self.plateau.waited} epochs; training stops early, after {epochs} more, in which the "
            "learning rate falls to its end"
        )
