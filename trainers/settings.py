"""What the user may choose for a run without planning again."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from autospine.errors import TrainingError
from autospine.plan import Configuration
from trainers.trackers import check_trackers


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Choices for one run; None leaves the plan's."""

    epochs: int | None = None
    """Epochs per fold; with a time limit, whichever ends first."""

    iterations: int | None = None
    """Optimiser steps per epoch."""

    seed: int = 0
    """Of the first weights and of every patch."""

    workers: int = 0
    """Processes that make patches; 0 is a thread of this process."""

    parallel: int = 1
    """Folds trained side by side, each in a process with its share of the cores."""

    weights: Path | None = None
    """Imported weights from which folds begin; None for random ones."""

    trackers: tuple[str, ...] = ()
    """Who else is told how training goes, by name."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("iterations", self.iterations)):
            if value is not None and value < 1:
                raise TrainingError(f"expected --{name} of at least 1, found {value}")
        check_trackers(self.trackers)

    def applied(self, configuration: Configuration) -> Configuration:
        """The configuration with these choices in it."""
        training = configuration.training
        return replace(
            configuration,
            training=replace(
                training,
                epochs=self.epochs or training.epochs,
                iterations_per_epoch=self.iterations or training.iterations_per_epoch,
            ),
        )
