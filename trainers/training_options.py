"""The user's choices for a training, declared once: the command line and Python read them from here.

PyTorch is not imported here, so that the command line can list them at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from autospine.core.declaration import Option


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

    pretrained: Annotated[
        Path | None,
        Option(
            names=("--pretrained",),
            help="Initialise the network from a trained model (its folder, a fold's folder in it, or an "
            ".autospine file), or from weights that `autospine model import-weights` has written.",
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
        bool,
        Option(
            names=("--compile",),
            help="Compile the network: training starts slowly, then steps are faster on a GPU. Where "
            "compiling fails, training goes on without it.",
        ),
    ] = False
    """Whether the network is compiled."""

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
