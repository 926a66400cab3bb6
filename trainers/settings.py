"""TrainingSettings of a run: the user's choices, and the devices that it takes."""

from dataclasses import dataclass, field, replace
from math import ceil

import torch

from autospine.core.errors import TrainingError
from autospine.plan import Configuration
from trainers.distributed import size
from trainers.trackers import check_trackers
from trainers.training_options import TrainingOptions

SEEDS = 2**64
"""torch takes no larger ones, and NumPy's generators none below 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSettings(TrainingOptions):
    """The user's choices for one run, and the devices that it takes."""

    workers: int = 0
    """Processes that make patches; 0 is a thread of the training process."""

    parallel: int = 1
    """Most folds that are trained side by side, each in a process of its own."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    devices: tuple[torch.device, ...] = ()
    """GPUs that folds side by side are dealt out to; none where all are on `device`."""

    def __post_init__(self) -> None:
        if self.epochs is not None and self.extend is not None:
            raise TrainingError("expected --epochs or --extend, found both; leave one out")
        counts = (("epochs", self.epochs), ("iterations", self.iterations), ("extend", self.extend))
        for name, value in counts:
            if value is not None and value < 1:
                raise TrainingError(f"expected --{name} of at least 1, found {value}")
        if self.seed is not None and not 0 <= self.seed < SEEDS:
            raise TrainingError(f"expected --seed of 0 to {SEEDS - 1}, found {self.seed}")
        check_trackers(self.trackers)

    def applied(self, configuration: Configuration) -> Configuration:
        """The configuration with these choices in it.

        Processes that train together share the patches of a planned epoch, each with the planned batch, so
        that it has so many steps fewer.
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
