"""Early stopping: the Dice of fixed patches of held-out cases, and the rule that ends a training by it.

A plateau does not break a training off. The learning rate still has to decay, so the rest of the schedule is
run through in a short cooldown, after which the averaged weights are kept as always.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite
from typing import Any

from autospine.core.labels import IGNORE_INDEX
from autospine.data import Batch, PatchSource
from autospine.plan import Configuration
from autospine.preprocessing.store import StoredCase
from trainers import distributed
from trainers.learner import Learner
from trainers.metrics_log import EARLY_STOP, soft_dice
from trainers.schedule import Clock

PATCHES = 16
"""Least number of patches that the held-out Dice is measured on, by all processes together. They stay the
same, so that few are enough: what they do not show is missing after every epoch alike. To predict them takes
a tenth of an epoch as planned for a CPU (50 patches), and 1 % of one as planned for a GPU (500)."""

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

    patches: Sequence[Batch]
    """Patches of held-out cases, not augmented; this process's part of them."""

    plateau: Plateau
    """Course of the held-out Dice so far."""

    def finish_epoch(self, learner: Learner, clock: Clock) -> dict[str, Any]:
        """Measure the held-out Dice after an epoch, and shorten the schedule once it has reached a plateau.

        Args:
            learner: Learner, whose averaged weights are measured; nothing in it changes.
            clock: Progress of the training.

        Returns:
            Columns of the epoch: `held_out_dice`, and `early_stop`, a sentence, if training now comes to its
            end.
        """
        recipe = learner.recipe
        dice = agreed(mean_dice(learner, self.patches))
        self.plateau = self.plateau.after(dice, warming_up=clock.progress <= recipe.warmup_fraction)
        columns: dict[str, Any] = {"held_out_dice": dice}
        if clock.cooldown is not None or not self.plateau.reached(self.patience):
            return columns
        epochs = ceil(COOLDOWN_SHARE * self.plateau.epochs)
        if clock.cool_down(epochs * recipe.iterations_per_epoch):
            self.plateau = replace(self.plateau, found=self.plateau.epochs)
            columns[EARLY_STOP] = (
                f"the held-out Dice has not risen by {LEAST_RISE} above {self.plateau.best:.3f} for "
                f"{self.plateau.waited} epochs; training stops early, after {epochs} more, in which the "
                "learning rate falls to its end"
            )
        return columns


def show_classes(cases: Iterable[StoredCase]) -> bool:
    """Tell whether any class occurs in the labels of any of these cases."""
    return any(label not in (0, IGNORE_INDEX) for case in cases for label, _ in case.record.label_voxels)


def held_out_patches(cases: Sequence[StoredCase], configuration: Configuration, seed: int) -> list[Batch]:
    """Draw the patches that the held-out Dice of a fold is measured on, as those of training but unaugmented.

    Args:
        cases: Stored held-out cases.
        configuration: Configuration with patch size, batch size and oversampling.
        seed: Seed of the fold.

    Returns:
        Batches of this process; each of several processes has as many, with other patches.
    """
    source = PatchSource(
        cases, configuration, seed=seed, cache_bytes=0, augment=False, part=distributed.rank()
    )
    together = configuration.training.batch_size * distributed.size()
    return [source.batch(number) for number in range(ceil(PATCHES / together))]


def mean_dice(learner: Learner, patches: Sequence[Batch]) -> float | None:
    """Compute the mean soft Dice over the classes that occur in the patches of all processes.

    Returns:
        Dice in [0, 1]; None if no class occurs or the prediction is not finite.
    """
    known = [dice for dice in soft_dice(learner.overlap(patches)) if dice is not None]
    mean = sum(known) / len(known) if known else float("nan")
    return round(mean, 5) if isfinite(mean) else None


def agreed(dice: float | None) -> float | None:
    """Return the Dice as all processes take it, whatever their last bits."""
    (largest,) = distributed.largest(-1.0 if dice is None else dice)
    return None if largest < 0 else largest
