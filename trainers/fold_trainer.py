"""Training of one fold: the loop and its checkpoints."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autospine import __version__
from autospine.core.errors import TrainingError
from autospine.core.units import GIB
from autospine.data import Batch, DataWorkerError, PatchBatches
from autospine.evaluation.held_out import VALIDATION
from autospine.models.model_folder import save_weights
from autospine.plan import Configuration, Plan
from autospine.preprocessing.store import StoredCase
from autospine.storage.tensors import load_tensors
from autospine.storage.trained_models import WEIGHTS
from autospine.system.devices import describe
from autospine.system.log import Meter, get_logger, progress
from trainers import distributed
from trainers.checkpoints import Checkpoints
from trainers.initial_weights import InitialWeights
from trainers.interruption import Interruption, postponed
from trainers.learner import Learner, StepResult
from trainers.metrics_log import Record, summary
from trainers.monitors import LOOK_EVERY
from trainers.out_of_memory import is_out_of_memory
from trainers.run_identity import RunIdentity, identity
from trainers.schedule import Clock, learning_rate
from trainers.settings import TrainingSettings
from trainers.trackers import TrackedRun, Trackers, flat

logger = get_logger(__name__)

CACHE_BYTES = GIB
"""Decompressed cases that a fold keeps in memory; the others are read from disk patch by patch."""

ENDLESS = 10**9
"""Steps of a schedule that only time ends."""

MEASURED_STEPS = 10
"""So many steps tell how many a given time is enough for."""

FEW = 0.02
"""Training by time that has room for a smaller share of the planned steps is warned of."""

PATIENCE = 20
"""Steps in a row that may have a non-finite loss or gradient."""


class FoldTrainer:
    """Trains one network and leaves its averaged weights in the fold's folder.

    With `settings.extend` it trains finished weights further: a training with a short schedule of its own, at
    whose end its weights replace the finished ones. A checkpoint is written at the end of each epoch, and
    when training is told to stop; it is gone on from where there is one.
    Of several processes that train together the first one writes.

    Args:
        plan: labels and channels.
        configuration: network and recipe.
        cases: stored training cases.
        folder: where checkpoint, metrics and weights go.
        name: of the fold.
        settings: the user's choices.
        initial_weights: Weights to start from; None for random ones.

    Raises:
        TrainingError: if the checkpoint belongs to another plan or began otherwise.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        configuration: Configuration,
        cases: Sequence[StoredCase],
        folder: Path,
        name: str,
        settings: TrainingSettings,
        initial_weights: InitialWeights | None = None,
    ) -> None:
        self._configuration = settings.applied(configuration)
        self._cases, self._folder, self._name, self._settings = cases, folder, name, settings
        self._ending = plan.file_ending
        finished = None if settings.extend is None else load_tensors(folder / WEIGHTS)
        behind: Mapping[str, Any] = {} if finished is None else finished[1]
        self._steps_behind = int(behind.get("steps", 0))
        self._origin = RunIdentity(
            fold=name,
            folder=folder,
            identity=identity(plan, configuration, cases),
            plan=identity(plan, configuration, ()),
            weights=None if initial_weights is None else initial_weights.digest,
            seed=behind.get("seed", 0) if settings.seed is None else settings.seed,
            deep_supervision=settings.deep_supervision,
            extensions=0 if finished is None else int(behind.get("extensions", 0)) + 1,
        )
        self.learner = Learner(
            plan,
            self._configuration,
            seed=self._origin.seed,
            device=settings.device,
            imported=None if initial_weights is None else initial_weights.tensors,
            deep_supervision=settings.deep_supervision,
            compiled=settings.compiled,
        )
        if finished is not None:
            self.learner.begin_from(finished[0])
        self._clock = Clock(total_steps=ENDLESS)
        self._checkpoints = Checkpoints(folder)
        self._steps: list[StepResult] = []
        self._began, self._spent = time.monotonic(), 0.0  # of the epoch; before it was broken off
        self._seen: Sequence[Sequence[int]] = ()
        self._processes = distributed.size()
        with distributed.one_first():
            if finished is not None:
                self._checkpoints.remove_finished(self._origin.extensions - 1)
            rows = self._resume() or int(behind.get("epochs", 0))
        if finished is not None and not self._clock.step:
            logger.info("fold %s is extended by %s epochs, after its %d", name, settings.extend, rows)
        self._record = self._begin_record(plan, rows) if distributed.leads() else None
        self._not_finite, self._stopping = 0, False

    def run(self, seconds: float | None) -> nn.Module:
        """Train to the end and return the network with its averaged weights.

        Args:
            seconds: time to fit the schedule into; None to take the planned number of epochs.

        Raises:
            TrainingError: if training diverges.
            KeyboardInterrupt: if it was told to stop; the step was finished and a checkpoint written.
        """
        recipe = self._configuration.training
        by_time = seconds is not None and self._settings.epochs is None and self._settings.extend is None
        self._clock.total_steps = ENDLESS if by_time else recipe.epochs * recipe.iterations_per_epoch
        self._clock.seconds = seconds
        if self._processes != distributed.size() and not by_time:
            # Steps of other processes were larger or smaller; the share of the schedule counts.
            self._clock.step = round(self._clock.progress * self._clock.total_steps)
        with postponed() as interruption:
            batches = self._batches()
            try:
                self._clock.start()
                done = 100 * self._clock.progress
                with progress(f"fold {self._name}, training", 100, done=done, percent=True) as meter:
                    self._train(batches, meter, interruption)
                distributed.meet()
            finally:
                batches.close()
                if self._record is not None:
                    self._record.close()
        network = self.learner.averaged()
        if self._record is not None:
            facts = {
                **self._origin.facts(),
                "steps": self._steps_behind + self._clock.step,
                "epochs": len(self._record.rows),
                "minutes": round(sum(row["seconds"] for row in self._record.rows) / 60, 2),
                "processes": distributed.size(),
                "device": describe(self.learner.device),
                "autospine": __version__,
                "torch": torch.__version__,
            }
            for outdated in (self._folder / VALIDATION).glob(f"*{self._ending}"):
                outdated.unlink()
            save_weights(self._folder, network, facts)
            self._checkpoints.remove()
        distributed.meet()
        return network

    def _begin_record(self, plan: Plan, epochs: int) -> Record:
        return Record(
            self._folder,
            title=f"{plan.dataset}, {self._configuration.name}, fold {self._name}",
            classes=plan.labels.names,
            configuration=self._configuration,
            epochs=epochs,
            seen=self._seen,
            trackers=Trackers(self._settings.trackers, self._told(plan.dataset, epochs)),
        )

    def _told(self, dataset: str, epochs: int) -> TrackedRun:
        """What trackers are told of this fold."""
        return TrackedRun(
            group=f"{dataset} {self._configuration.name}",
            name=f"fold {self._name}",
            folder=self._folder,
            identity=f"{self._origin.identity}-{self._name}-{self._origin.seed}",
            epoch=epochs,
            params=flat({"seed": self._origin.seed, **asdict(self._configuration)}),
        )

    def _batches(self) -> PatchBatches:
        return PatchBatches(
            self._cases,
            self._configuration,
            seed=self._origin.seed,
            start=self._steps_behind + self._clock.step,
            stop=self._steps_behind + self._clock.total_steps,
            workers=self._settings.workers,
            cache_bytes=CACHE_BYTES,
            part=distributed.rank(),
        )

    def _train(self, batches: PatchBatches, meter: Meter, interruption: Interruption) -> None:
        stream, shown = iter(batches), 100 * self._clock.progress
        while not (self._clock.done or self._stopping):
            self._began, waited = time.monotonic() - self._spent, batches.seconds_waited
            self._spent = 0.0
            while not (self._epoch_done() or self._stopping):
                try:
                    self._steps.append(self._step(stream))
                except DataWorkerError:
                    # A signal to the whole process group has ended them too.
                    if not interruption.wanted or distributed.size() > 1:
                        raise
                self._agree(interruption)
                meter.advance(100 * self._clock.progress - shown)
                shown = 100 * self._clock.progress
                self._show_beginning(meter)
            if not self._epoch_done():
                break
            if self._record is not None:
                row = self._record.add(
                    self._steps,
                    self.learner.network,
                    progress=self._clock.progress,
                    step=self._clock.step,
                    learning_rate=self._rate(),
                    seconds=round(time.monotonic() - self._began, 2),
                    seconds_waited_for_data=round(batches.seconds_waited - waited, 2),
                )
                meter.update("\n".join(summary(row)))
            self._steps = []
            self._save()
        if self._steps:
            self._save()
        if self._stopping:
            logger.info(
                "fold %s stops after step %d; its checkpoint is written", self._name, self._clock.step
            )

    def _show_beginning(self, meter: Meter) -> None:
        """Until the first epoch has figures, show that steps are taken; say where time is short for them."""
        if self._record is None or self._record.rows:
            return
        taken, per_epoch = len(self._steps), self._configuration.training.iterations_per_epoch
        if taken:
            meter.update(f"step {taken} of {per_epoch} of the first epoch  loss {self._steps[-1].loss:.2f}")
        planned = self._configuration.training.epochs * per_epoch
        if taken == MEASURED_STEPS and self._clock.total_steps == ENDLESS:
            expected = taken / self._clock.progress
            if expected < FEW * planned:
                logger.warning(
                    "fold %s: this time is enough for about %d of the %d steps that the plan has; "
                    "labels will be coarse. More minutes, a smaller --patch or --feature-size, or a GPU help",
                    self._name,
                    round(expected),
                    planned,
                )

    def _agree(self, interruption: Interruption) -> None:
        """Let all processes be equally far, and stop together as soon as one is told to."""
        self._clock.progress, told = distributed.largest(self._clock.progress, interruption.signal or 0)
        if told:
            interruption.signal, self._stopping = int(told), True

    def _epoch_done(self) -> bool:
        return self._clock.done or len(self._steps) >= self._configuration.training.iterations_per_epoch

    def _step(self, stream: Iterator[Batch]) -> StepResult:
        look = self._clock.step % LOOK_EVERY == 0
        try:
            batch = next(stream)
            step = self.learner.step(batch.images, batch.labels, self._rate(), look)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Patches are made in RAM wherever the network is.
            place = self.learner.device if isinstance(error, torch.OutOfMemoryError) else "cpu"
            raise TrainingError(
                f"expected memory for a training step of fold {self._name} on {place}, found "
                "too little; end other programs there and train again, or plan with a smaller --memory"
            ) from None
        self._clock.tick()
        self._not_finite = 0 if step.finite else self._not_finite + 1
        if self._not_finite == PATIENCE:
            raise TrainingError(
                f"expected finite losses and gradients in fold {self._name}, found none in {PATIENCE} "
                f"steps in a row; move {self._folder} away, put a smaller learning_rate or the precision "
                "float32 into the configuration's training in plan.json, and train again"
            )
        return step

    def _rate(self) -> float:
        recipe = self._configuration.training
        peak = recipe.learning_rate
        if self._settings.extend is not None:
            steps = recipe.epochs * recipe.iterations_per_epoch
            peak *= steps / (steps + self._steps_behind)
        return learning_rate(self._clock.progress, peak, recipe.warmup_fraction)

    def _save(self) -> None:
        if self._record is None:
            return
        facts = {
            **self._origin.facts(),
            "step": self._clock.step,
            "progress": self._clock.progress,
            "processes": distributed.size(),
            "epochs": len(self._record.rows),
            "begun": [step.plain() for step in self._steps],
            "begun_seconds": round(time.monotonic() - self._began, 2) if self._steps else 0.0,
            "seen": self._record.seen(),
        }
        self._checkpoints.save(self.learner.tensors(), facts)

    def _resume(self) -> int:
        """Go on from the checkpoint, if there is one; the number of epochs that it has behind it."""
        found = self._checkpoints.load()
        if found is None:
            return 0
        tensors, facts, path = found
        if self._settings.seed is None:
            self._origin = replace(self._origin, seed=facts.get("seed", self._origin.seed))
        self._origin.check(path, facts)
        self.learner.restore(tensors)
        self._clock.step, self._clock.progress = int(facts["step"]), float(facts["progress"])
        self._processes = int(facts.get("processes", 1))
        self._steps = [StepResult.restored(step) for step in facts.get("begun", ())]
        self._spent = float(facts.get("begun_seconds", 0.0))
        self._seen = facts.get("seen", ())
        logger.info("fold %s goes on after epoch %d, step %d", self._name, facts["epochs"], facts["step"])
        return int(facts["epochs"])
