"""The user's choices for a training, declared once: the command line and Python read them from here.

PyTorch is not imported here, so that the command line can list them at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from autospine.core.declaration import Option
from autospine.core.errors import TrainingError


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions:
    """Choices for one run that need no new plan; None leaves the plan's value."""

    epochs: Annotated[
        int | None,
        Option(names=("--epochs",), minimum=1, help="Train each fold for this many epochs, not the plan's."),
    ] = None
    """Epochs per fold; with a time limit, training ends with whichever is reached first."""

    iterations: Annotated[
        int | None,
        Option(
            names=("--iterations",),
            minimum=1,
            help="Take this many optimiser steps per epoch, not the plan's.",
        ),
    ] = None
    """Optimiser steps per epoch."""

    extend: Annotated[
        int | None,
        Option(
            names=("--extend",),
            minimum=1,
            metavar="EPOCHS",
            help="Train complete folds for this many further epochs, with a short schedule of their own.",
        ),
    ] = None
    """Epochs by which complete folds are trained further."""

    stop_early: Annotated[
        int | None,
        Option(
            names=("--stop-early",),
            minimum=1,
            metavar="EPOCHS",
            help="Stop a fold early once the Dice of patches of its held-out cases has not risen for this "
            "many epochs: its learning rate then falls to its end in a quarter of the epochs so far. Scores "
            "of held-out cases, which choose the end, become slightly too good. By default folds complete "
            "the plan's schedule, which the recipe is tuned for.",
        ),
    ] = None
    """Epochs without a rise of the held-out Dice after which the schedule is shortened; None for never."""

    pretrained: Annotated[
        Path | None,
        Option(
            names=("--pretrained",),
            help="Initialise the network from a trained model (its folder, a fold's folder in it, or an "
            ".autospine file), from `starter`, which comes with AutoSpine, or from weights that `autospine "
            "model import-weights` has written. Plan with the same --pretrained before.",
        ),
    ] = None
    """Imported weights, or a model, that folds begin from; None for random weights."""

    deep_supervision: Annotated[
        bool,
        Option(
            names=("--deep-supervision",), help="Apply the loss to coarser levels of the decoder as well."
        ),
    ] = False
    """Whether coarser levels of the decoder have heads, in training alone."""

    compiled: Annotated[
        bool | None,
        Option(
            names=("--compile/--no-compile",),
            help="Compile the network: training starts some minutes later, then steps are faster on a GPU. "
            "By default long trainings on a GPU are compiled. Where compiling fails, training goes on "
            "without it.",
        ),
    ] = None
    """Whether the network is compiled; None to compile it for long trainings on a GPU."""

    deterministic: Annotated[
        bool,
        Option(
            names=("--deterministic",),
            help="Give the same weights, bit for bit, each time on the same machine, interrupted or not; "
            "steps are slower on a GPU.",
        ),
    ] = False
    """Whether the same command gives the same bits every time."""

    seed: Annotated[
        int | None,
        Option(
            names=("--seed",),
            minimum=0,
            help="Seed the initial weights and the patches; by default 0, and resumed or extended folds keep "
            "their own seed.",
        ),
    ] = None
    """Random seed; None for 0, and for that of the fold where one is resumed or extended."""

    workers: Annotated[
        int | None,
        Option(
            names=("--workers", "-j"),
            minimum=0,
            help="Make patches in this many processes; 0 makes them in a thread. By default one process per "
            "core, at most 8, and 0 without a GPU.",
        ),
    ] = None
    """Processes that make patches; 0 is a thread of the training process."""

    parallel: Annotated[
        int | None,
        Option(
            names=("--parallel",),
            minimum=1,
            help="Train at most this many folds side by side; by default one per GPU, and on a CPU as many "
            "as the memory holds.",
        ),
    ] = None
    """Most folds that are trained side by side, each in a process of its own."""

    trackers: Annotated[
        tuple[str, ...],
        Option(
            names=("--tracker",),
            metavar="NAME",
            help="Log to an experiment tracker: tensorboard, wandb, mlflow or another that is installed. "
            "Repeat it for several.",
        ),
    ] = ()
    """Names of the experiment trackers that training is logged to."""

    def __post_init__(self) -> None:
        if self.epochs is not None and self.extend is not None:
            raise TrainingError("expected --epochs or --extend, found both; leave one out")
        if self.stop_early is not None and self.extend is not None:
            raise TrainingError(
                "expected --stop-early or --extend, found both; leave --stop-early out, and extend by fewer "
                "epochs at a time"
            )
        counts = {
            "epochs": self.epochs,
            "iterations": self.iterations,
            "extend": self.extend,
            "stop-early": self.stop_early,
        }
        for name, value in counts.items():
            if value is not None and value < 1:
                raise TrainingError(f"expected --{name} of at least 1, found {value}")

    def check_held_out(self, fold: str, *, labelled: bool) -> None:
        """Refuse choices that need held-out cases for a fold that has none.

        Args:
            fold: Name of the fold.
            labelled: Whether a case with labels of any class is held out from its training.

        Raises:
            TrainingError: If the fold cannot be trained with these choices.
        """
        if self.stop_early is not None and not labelled:
            raise TrainingError(
                f"expected labelled held-out cases for --stop-early, found none of fold {fold}; leave "
                "--stop-early out, and give --epochs for a shorter schedule"
            )
