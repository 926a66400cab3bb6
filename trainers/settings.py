"""Settings of a training: the user's choices, and the devices that it uses."""

from dataclasses import dataclass, field, replace
from math import ceil

import torch

from autospine.core.errors import TrainingError
from autospine.plan import Configuration, TrainingPlan
from trainers.distributed import size
from trainers.trackers import check_trackers
from trainers.training_options import TrainingOptions

LONG_TRAINING = 2000
"""Planned steps from which a network is compiled on a GPU: faster steps win back the minutes it takes."""

LONG_MINUTES = 60.0
"""Time limit from which it is, likewise."""

SEEDS = 2**64
"""Number of possible seeds: torch takes none above 2^64 - 1, and NumPy's generators none below 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSettings(TrainingOptions):
    """The user's choices for one training, and the devices that it uses."""

    workers: int = 0
    """Number of processes that make patches; 0 for a thread of the training process."""

    parallel: int = 1
    """Largest number of folds that are trained side by side, each in a process of its own."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Device of the training, unless `devices` lists several."""

    devices: tuple[torch.device, ...] = ()
    """GPUs to which folds are assigned that are trained side by side; empty if all use `device`."""

    threads: int | None = None
    """Threads of a fold's steps, where the weights have to be the same whichever folds are trained beside it;
    None for as many as there are cores for."""

    def __post_init__(self) -> None:
        TrainingOptions.__post_init__(self)  # super() does not find the class of a dataclass with slots
        if self.seed is not None and not 0 <= self.seed < SEEDS:
            raise TrainingError(f"expected --seed of 0 to {SEEDS - 1}, found {self.seed}")
        check_trackers(self.trackers)

    def compiles(self, training: TrainingPlan, device: torch.device) -> bool:
        """Return whether the network is compiled: as the user chose, or for a long training on a GPU.

        Args:
            training: Recipe with these choices in it.
            device: Device of the training.
        """
        if self.compiled is not None:
            return self.compiled
        is_long = training.steps >= LONG_TRAINING
        return device.type == "cuda" and is_long and not self.deterministic

    def applied(self, configuration: Configuration) -> Configuration:
        """Return the configuration with these choices in it.

        Processes that train together share the patches of a planned epoch. Each has the planned batch, so
        that an epoch has the planned number of steps divided by the number of processes.
        """
        training = configuration.training
        return replace(
            configuration,
            training=replace(
                training,
                epochs=self.extend or self.epochs or training.epochs,
                iterations_per_epoch=self.iterations or ceil(training.iterations_per_epoch / size()),
            ),
        )
