"""The training of one fold, put together: state, learner, schedule, batches, metrics log and saver."""

import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import nn

from autospine.data import PatchBatches
from autospine.plan import Configuration, Plan
from autospine.preprocessing.store import StoredCase
from autospine.system.hardware import GIB
from autospine.system.log import progress
from trainers import distributed
from trainers.early_stopping import EarlyStopping
from trainers.epoch_validation import EpochValidation, prepare_validation, show_classes
from trainers.fold_saver import FoldSaver
from trainers.fold_state import FoldState, resume
from trainers.initial_weights import InitialWeights
from trainers.interruption import postponed
from trainers.learner import Learner
from trainers.metrics_log import Record
from trainers.optimizer import IMPORTED_SHARE
from trainers.progress_report import TRAINING
from trainers.randomness import threads
from trainers.run_identity import RunIdentity, identity
from trainers.schedule import ENDLESS, Clock, learning_rate
from trainers.settings import TrainingSettings
from trainers.time_budget import TimeBudget
from trainers.trackers import TrackedRun, Trackers, flat
from trainers.trained_on import keep_trained_on, trained_on
from trainers.training_loop import TrainingLoop

CACHE_BYTES = GIB
"""Decompressed cases that a fold keeps in memory; the others are read from disk patch by patch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldTrainer:
    """The training of one fold, ready to start or to resume; `prepare_fold` makes it.

    With `settings.extend` it trains finished weights further: a training with a short schedule of its own, at
    whose end its weights replace the finished ones. Of several processes that train together the first one
    writes.
    """

    plan: Plan
    """Labels and channels."""

    configuration: Configuration
    """Network and recipe, with the user's choices applied."""

    cases: Sequence[StoredCase]
    """Stored training cases."""

    held_out: Sequence[StoredCase]
    """Stored cases that are held out from training; the Dice shown after each epoch is theirs."""

    settings: TrainingSettings
    """The user's choices."""

    state: FoldState
    """State before the next step."""

    learner: Learner
    """Network and optimiser in that state."""

    def run(self, seconds: float | None, time_budget: TimeBudget | None = None) -> nn.Module:
        """Train to the end, write the averaged weights, and return the network that has them.

        Args:
            seconds: Time limit to fit the schedule into; None to take the planned number of epochs.
            time_budget: Corrects the time limit by what is measured meanwhile; None to keep it.

        Raises:
            TrainingError: If the training diverges, or a step needs more memory than there is.
            NoTimeLeftError: If the time limit has left no time for more than a few steps.
            KeyboardInterrupt: If it was told to stop; the step was finished and a checkpoint written.
        """
        clock = self.clock(seconds)
        validation, early_stopping = self._epoch_validation(), self._early_stopping()
        metrics_log, saver = (self._metrics_log(), self._saver()) if distributed.leads() else (None, None)
        with (
            postponed() as interruption,
            threads(self._threads()),
            closing(metrics_log) if metrics_log is not None else nullcontext(),
            self.batches(clock) as batches,
        ):
            loop = TrainingLoop(
                run_identity=self.state.run,
                learner=self.learner,
                clock=clock,
                batches=batches,
                learning_rate=self.learning_rate,
                partial_epoch=self.state.partial_epoch,
                metrics_log=metrics_log,
                saver=saver,
                interruption=interruption,
                epoch_validation=validation,
                early_stopping=early_stopping,
                time_budget=time_budget,
            )
            clock.start()
            with progress(
                f"fold {self.state.run.fold}, {TRAINING}",
                100,
                done=100 * clock.progress,
                percent=True,
                ends=time.monotonic() + clock.seconds if clock.endless and clock.seconds else None,
            ) as meter:
                loop.run(meter)
            distributed.meet()
        network = self.learner.averaged()
        if saver is not None and metrics_log is not None:
            plateau = None if early_stopping is None else early_stopping.plateau
            saver.save_finished(network, self.learner, clock, metrics_log, plateau)
        distributed.meet()
        return network

    def _threads(self) -> int | None:
        """Return the number of threads to train with, None for the present one.

        A deterministic training keeps the number that it began with.
        """
        return (self.state.threads or self.settings.threads) if self.settings.deterministic else None

    def clock(self, seconds: float | None) -> Clock:
        """Return the schedule at the present state; it has not been started.

        Args:
            seconds: Time limit; it replaces the planned number of epochs, but not one that the user chose.
        """
        recipe, cooldown = self.configuration.training, self.state.cooldown
        by_time = seconds is not None and self.settings.epochs is None and self.settings.extend is None
        total = ENDLESS if by_time else recipe.steps
        step = self.state.step
        if self.state.processes != distributed.size():
            # Another number of processes takes more or fewer steps per epoch, so the progress counts.
            if cooldown is not None:
                steps = cooldown.steps * self.state.processes / distributed.size()
                cooldown = replace(cooldown, steps=max(1, round(steps)))
            elif not by_time:
                step = round(self.state.progress * total)
        elif cooldown is not None and cooldown.end >= total:
            cooldown = None  # fewer epochs are asked for now than it would take
        return Clock(
            total_steps=total, step=step, progress=self.state.progress, seconds=seconds, cooldown=cooldown
        )

    def batches(self, clock: Clock) -> PatchBatches:
        """Return the batches of the steps that remain; those of an extension follow those of before."""
        return PatchBatches(
            self.cases,
            self.configuration,
            seed=self.state.run.seed,
            start=self.state.steps_before + clock.step,
            stop=self.state.steps_before + clock.total_steps,
            workers=self.settings.workers,
            cache_bytes=CACHE_BYTES,
            part=distributed.rank(),
            normalisation=self.plan.normalisation,
        )

    def learning_rate(self, progress: float) -> float:
        """Return the learning rate at a progress in [0, 1].

        The peak of an extension is the planned one times the share that its steps are of all steps, so that a
        few more epochs do not throw back weights that are nearly finished.
        """
        recipe = self.configuration.training
        steps = recipe.steps
        share = 1.0 if self.settings.extend is None else steps / (steps + self.state.steps_before)
        return learning_rate(progress, recipe.learning_rate * share, recipe.warmup_fraction)

    def _early_stopping(self) -> EarlyStopping | None:
        patience = self.settings.stop_early
        return None if patience is None else EarlyStopping(patience=patience, plateau=self.state.plateau)

    def _epoch_validation(self) -> EpochValidation | None:
        validation = prepare_validation(
            self.held_out, self.plan.labels, self.configuration, self.state.run.seed
        )
        if validation is not None:
            validation.restore(self.state.epoch_validation)
        return validation

    def tracked_run(self) -> TrackedRun:
        """Return what experiment trackers are told of this fold."""
        run = self.state.run
        return TrackedRun(
            group=f"{self.plan.dataset} {self.configuration.name}",
            name=f"fold {run.fold}",
            folder=run.folder,
            identity=f"{run.identity}-{run.fold}-{run.seed}",
            epoch=self.state.epochs,
            params=flat({"seed": run.seed, **asdict(self.configuration)}),
        )

    def _metrics_log(self) -> Record:
        run = self.state.run
        return Record(
            run.folder,
            title=f"{self.plan.dataset}, {self.configuration.name}, fold {run.fold}",
            classes=self.plan.labels.names,
            configuration=self.configuration,
            epochs=self.state.epochs,
            seen=self.state.monitor_counts,
            trackers=Trackers(self.settings.trackers, self.tracked_run()),
        )

    def _saver(self) -> FoldSaver:
        return FoldSaver(
            run=self.state.run,
            steps_before=self.state.steps_before,
            modalities=tuple(sorted({case.record.modality for case in self.cases})),
            file_ending=self.plan.file_ending,
        )


def prepare_fold(
    *,
    plan: Plan,
    configuration: Configuration,
    cases: Sequence[StoredCase],
    folder: Path,
    name: str,
    settings: TrainingSettings,
    held_out: Sequence[StoredCase] = (),
    initial_weights: InitialWeights | None = None,
) -> FoldTrainer:
    """Read the state from which a fold starts or resumes, and build the learner in this state.

    Processes that train together have to call this together.

    Args:
        plan: Labels and channels.
        configuration: Network and recipe, as planned.
        cases: Stored training cases.
        folder: Folder of the fold, for checkpoints, metrics and weights.
        name: Name of the fold.
        settings: The user's choices.
        held_out: Stored cases that are held out, for the validation after each epoch.
        initial_weights: Weights to start from; None for random ones.

    Raises:
        TrainingError: If the checkpoint belongs to another plan, the fold started otherwise than asked, or it
            may stop early and holds no labelled case out.
        FormatError: If all checkpoints, or the weights to extend, are damaged.
    """
    settings.check_held_out(name, labelled=show_classes(held_out))
    asked = RunIdentity(
        fold=name,
        folder=folder,
        identity=identity(plan, configuration, cases),
        plan=identity(plan, configuration, ()),
        weights=None if initial_weights is None else initial_weights.digest,
        seed=settings.seed or 0,
        deep_supervision=settings.deep_supervision,
        extensions=0,
        inputs=trained_on(plan, configuration, cases),
    )
    state, tensors = resume(asked, settings)
    if distributed.leads() and asked.inputs is not None:
        keep_trained_on(folder, asked.inputs)
    configuration = settings.applied(configuration)
    learner = Learner(
        plan,
        configuration,
        seed=state.run.seed,
        device=settings.device,
        imported=None if initial_weights is None else initial_weights.tensors,
        imported_share=IMPORTED_SHARE if initial_weights is None else initial_weights.share,
        deep_supervision=settings.deep_supervision,
        compiled=settings.compiles(configuration.training, settings.device),
    )
    if state.resumed:
        learner.restore(tensors)
    elif tensors:
        learner.begin_from(tensors)
    return FoldTrainer(
        plan=plan,
        configuration=configuration,
        cases=cases,
        held_out=held_out,
        settings=settings,
        state=state,
        learner=learner,
    )
