"""State from which a fold's training starts or resumes, read from the files in the fold's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from autospine.core.errors import counted
from autospine.storage.tensors import load_tensors
from autospine.storage.trained_models import WEIGHTS
from autospine.system.log import get_logger
from trainers import distributed
from trainers.checkpoints import Checkpoints
from trainers.early_stopping import Plateau
from trainers.run_identity import RunIdentity
from trainers.schedule import Cooldown
from trainers.settings import TrainingSettings
from trainers.step_result import StepResult

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialEpoch:
    """An epoch that has not ended: its first steps and the time that they took."""

    steps: tuple[StepResult, ...] = ()
    """Results of the steps that were taken, in order."""

    seconds: float = 0.0
    """Time that these steps took."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldState:
    """State of a fold's training before its next step, except for the tensors of its learner."""

    run: RunIdentity
    """Identity of the training; it is written into the headers of checkpoints and weights."""

    resumed: bool = False
    """Whether the state was read from a checkpoint, so that the training resumes instead of starting."""

    step: int = 0
    """Number of steps taken, without those of a finished training that is extended."""

    progress: float = 0.0
    """Share of the schedule that is behind the training, in [0, 1]."""

    epochs: int = 0
    """Number of complete epochs, with those of a finished training that is extended; as many rows of
    metrics.jsonl count."""

    steps_before: int = 0
    """Number of steps of the finished training that is extended; 0 for a training of its own."""

    processes: int
    """Number of processes that trained together when the state was written; now, if it starts."""

    threads: int | None = None
    """Number of threads that the checkpoint was trained with; None if it is not known, or training starts."""

    partial_epoch: PartialEpoch = PartialEpoch()
    """The epoch in which the training was interrupted; it has no steps between two epochs."""

    monitor_counts: Sequence[Sequence[int]] = ()
    """Counts of the monitors' latest samples, as `Record.seen` returns them."""

    plateau: Plateau = field(default_factory=Plateau)
    """Course of the held-out Dice, if the training may stop early."""

    cooldown: Cooldown | None = None
    """Short rest of the schedule, if the training has been brought to its end."""

    epoch_validation: Mapping[str, Any] = field(default_factory=dict)
    """State of the validation after each epoch, as `EpochValidation.state` returns it; empty at the start."""


def resume(asked: RunIdentity, settings: TrainingSettings) -> tuple[FoldState, dict[str, Tensor]]:
    """Read the state from which a fold starts or resumes.

    That is its checkpoint if there is one; otherwise the finished weights if they are to be extended;
    otherwise nothing but the run identity. Processes that train together have to call this together.

    Args:
        asked: Identity of the run that is asked for, with no extension. Its seed counts only if the user has
            chosen it; otherwise a fold keeps the seed that it started with.
        settings: The user's choices.

    Returns:
        The state, and the tensors that belong to it: those of the checkpoint (see `Learner.tensors`) if the
        state is resumed, the weights to extend, or none.

    Raises:
        TrainingError: If the checkpoint belongs to another plan, or the fold started otherwise than asked.
        FormatError: If all checkpoints, or the weights to extend, are damaged.
    """
    state, tensors = FoldState(run=asked, processes=distributed.size()), dict[str, Tensor]()
    if settings.extend is not None:
        state, tensors = _extended(state, settings)
    checkpoints = Checkpoints(asked.folder)
    # The first process may remove or rename checkpoints; the others look afterwards.
    with distributed.one_first():
        if settings.extend is not None:
            checkpoints.remove_finished(state.run.extensions - 1)
        if (checkpoint := checkpoints.load()) is not None:
            tensors, facts, path = checkpoint
            state = _resumed(state, facts, path, settings)
    if state.resumed:
        logger.info(
            "fold %s resumes after epoch %d, step %d%s",
            state.run.fold,
            state.epochs,
            state.step,
            "" if state.cooldown is None else f"; it stops early (plateau after epoch {state.plateau.found})",
        )
    elif settings.extend is not None:
        logger.info(
            "fold %s has finished %s and is trained for %d more",
            state.run.fold,
            counted(state.epochs, "epoch"),
            settings.extend,
        )
    return state, tensors


def _extended(start: FoldState, settings: TrainingSettings) -> tuple[FoldState, dict[str, Tensor]]:
    """Return the state after a finished training, with its weights."""
    weights, facts = load_tensors(start.run.folder / WEIGHTS)
    # The weights of earlier versions lack some of these facts.
    run = replace(
        start.run,
        seed=facts.get("seed", 0) if settings.seed is None else settings.seed,
        extensions=int(facts.get("extensions", 0)) + 1,
    )
    behind = replace(
        start, run=run, epochs=int(facts.get("epochs", 0)), steps_before=int(facts.get("steps", 0))
    )
    return behind, weights


def _resumed(
    start: FoldState, facts: Mapping[str, Any], checkpoint: Path, settings: TrainingSettings
) -> FoldState:
    """Return the state that the facts of a checkpoint describe, once the checkpoint is known to fit."""
    run = start.run
    if settings.seed is None:
        run = replace(run, seed=facts.get("seed", run.seed))
    run.check(checkpoint, facts)
    return replace(
        start,
        run=run,
        resumed=True,
        step=int(facts["step"]),
        progress=float(facts["progress"]),
        epochs=int(facts["epochs"]) or start.epochs,
        processes=int(facts.get("processes", 1)),
        threads=facts.get("threads"),
        partial_epoch=PartialEpoch(
            steps=tuple(StepResult.restored(step) for step in facts.get("begun", ())),
            seconds=float(facts.get("begun_seconds", 0.0)),
        ),
        monitor_counts=facts.get("seen", ()),
        epoch_validation=facts.get("epoch_validation") or {},
        **_stopping(facts, settings),
    )


def _stopping(facts: Mapping[str, Any], settings: TrainingSettings) -> dict[str, Any]:
    """Return the state of early stopping in a checkpoint, for a training that may still stop early.

    Without --stop-early the rest of the schedule is spread over the planned epochs again.
    """
    plateau = Plateau(epochs=int(facts["epochs"]), best_epoch=int(facts["epochs"]))
    if settings.stop_early is None:
        return {}
    kept = facts.get("early_stopping")
    if kept is None:  # it is asked for now for the first time
        return {"plateau": plateau}
    cooldown = kept["cooldown"]
    return {
        "plateau": replace(plateau, best=kept["best"], best_epoch=kept["best_epoch"], found=kept["found"]),
        "cooldown": None if cooldown is None else Cooldown(**cooldown),
    }
