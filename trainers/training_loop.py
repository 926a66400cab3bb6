"""The training loop of one fold: steps and epochs, until the schedule ends or a signal to stop arrives."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch

from autospine.core.errors import TrainingError, counted
from autospine.data import Batch, DataWorkerError, PatchBatches
from autospine.data.awaited_batches import AwaitedBatches
from autospine.network.base import SegmentationNetwork
from autospine.system.allocation import is_out_of_memory, lacks_gpu_memory
from autospine.system.log import Meter, get_logger
from trainers import distributed
from trainers.early_stopping import EarlyStopping
from trainers.epoch_validation import EpochValidation
from trainers.fold_saver import FoldSaver
from trainers.fold_state import PartialEpoch
from trainers.interruption import Interruption
from trainers.learner import Learner
from trainers.metrics_log import EARLY_STOP, HELD_OUT, SKIPPED, Record, rows_now, summary
from trainers.monitors import SAMPLE_EVERY
from trainers.run_identity import RunIdentity
from trainers.schedule import LEAST_STEPS, Clock, no_time_left
from trainers.sent_batches import SentBatches, sender
from trainers.step_result import StepResult
from trainers.time_budget import TimeBudget

logger = get_logger(__name__)

MEASURED_STEPS = 10
"""Steps timed before estimating how many fit the time limit, or how long the training takes."""

WARM_UP = 3
"""Steps that are not timed for the length of the training: kernels are loaded, chosen and compiled."""

HALF_TIME = 0.5
"""Progress at which a tile is timed for the time limit, if no epoch has ended by then."""

CHECKPOINT_SHARE = 0.02
"""Largest share of the time that checkpoints may take on a GPU, which has nothing to do meanwhile."""

PATIENCE = 20
"""Steps in a row that may have a non-finite loss or gradient. A few in a row are usual while the scale of
float16 is being found; more mean that the training has diverged."""

LEAST_TAKEN = 0.1
"""Least share of a training's steps that must have been taken: with fewer, the weights are nearly random."""

SHORTEST_EPOCH = 0.5
"""Share of an epoch's steps below which what is left of the time limit belongs to the epoch before it."""

MANY_TAKEN = 0.5
"""Warn of a training of whose steps a smaller share was taken."""


@dataclass(kw_only=True, slots=True)
class TrainingLoop:
    """The training loop of one fold, which is handed everything that it trains with.

    It opens no files: batches come from `batches`, and what is to be kept goes to `metrics_log` and `saver`.
    """

    run_identity: RunIdentity
    """Names the fold and its folder in messages."""

    learner: Learner
    clock: Clock
    """Progress along the schedule; it has been started."""

    batches: PatchBatches
    """Batches of the steps that remain, in order."""

    learning_rate: Callable[[float], float]
    """Gives the learning rate at a progress in [0, 1]."""

    partial_epoch: PartialEpoch
    """The epoch in which the training was interrupted; it has no steps if a new epoch begins."""

    metrics_log: Record | None
    """Takes a row per epoch; None in a process that does not write."""

    saver: FoldSaver | None
    """Writes checkpoints; None in a process that does not write."""

    interruption: Interruption
    """Signal to stop. The step is finished and a checkpoint written first."""

    epoch_validation: EpochValidation | None = None
    """Measures the held-out Dice after each epoch; None if no class is held out."""

    time_budget: TimeBudget | None = None
    """Fits the schedule anew to the time limit as soon as the time of the validation is known better; None
    without a limit."""

    early_stopping: EarlyStopping | None = None
    """Shortens the schedule once the held-out Dice has reached a plateau; None to complete it always."""

    _stream: AwaitedBatches = field(init=False)
    """The batches, on their way to a GPU where there is one."""

    _steps: list[StepResult] = field(init=False, default_factory=list)
    """Results of the present epoch's steps."""

    _began: float = field(init=False, default=0.0)
    """Time at which the present epoch would have begun if it had not been interrupted."""

    _warm: float = field(init=False, default_factory=time.monotonic)
    """Time at which the steps of the first epoch began to be timed."""

    _warm_progress: float = field(init=False, default=0.0)
    """Progress then."""

    _first: int = field(init=False, default=0)
    """Steps that were taken before this run."""

    _waited: float = field(init=False, default=0.0)
    """Seconds waited for batches before the present epoch."""

    _shown: float = field(init=False, default=0.0)
    """Progress that the display shows, in percent."""

    _saved: float = field(init=False, default=-inf)
    """Time at which the latest checkpoint was written."""

    _saving_seconds: float = field(init=False, default=0.0)
    """Seconds that it took to write it."""

    _saved_step: int = field(init=False, default=-1)
    """Step of the latest checkpoint."""

    _not_finite: int = field(init=False, default=0)
    """Number of steps in a row, up to now, with a non-finite loss or gradient."""

    _spoilt: Batch | None = field(init=False, default=None)
    """Batch of the latest step with a non-finite loss or gradient."""

    _stopping: bool = field(init=False, default=False)
    """Whether all processes have agreed to stop."""

    def run(self, meter: Meter) -> None:
        """Take steps until the schedule ends or a signal to stop arrives.

        Args:
            meter: Shows the progress, in percent.

        Raises:
            TrainingError: If the training diverges, hardly any of its steps could be taken, or a step needs
                more memory than there is.
            NoTimeLeftError: If the time limit has left no time for more than a few steps.
        """
        self._shown, self._first = 100 * self.clock.progress, self.clock.step
        with self._sending() as stream:
            self._take_steps(stream, meter)
        if self._steps or (self._stopping and self._saved_step != self.clock.step):
            self._save()
        if self._stopping:
            logger.info(
                "fold %s: stopped after step %d; its checkpoint is written",
                self.run_identity.fold,
                self.clock.step,
            )

    @contextmanager
    def _sending(self) -> Iterator[AwaitedBatches]:
        """Yield the batches; where training runs on a GPU, each is sent while the step before it runs."""
        device = self.learner.device
        if device.type != "cuda":
            yield self.batches
            return
        with closing(SentBatches(iter(self.batches), sender(device))) as sent:
            yield sent

    def _take_steps(self, stream: AwaitedBatches, meter: Meter) -> None:
        """Take steps and finish epochs until the schedule ends or a signal to stop arrives."""
        self._stream = stream
        self._begin_epoch(self.partial_epoch)
        while not (self.clock.done or self._stopping):
            # A partial epoch may be complete at once, if epochs have fewer steps than when it began.
            if not self._epoch_complete:
                self._take_step()
                self._agree()
                self._learn_at_half_time()
                self._show(meter)
            if self._epoch_complete:
                self._finish_epoch(meter)

    @property
    def _epoch_complete(self) -> bool:
        steps = self.learner.recipe.iterations_per_epoch
        return self.clock.done or (
            len(self._steps) >= steps and self.clock.steps_left >= SHORTEST_EPOCH * steps
        )

    def _begin_epoch(self, partial: PartialEpoch) -> None:
        self._steps = list(partial.steps)
        self._began = time.monotonic() - partial.seconds
        self._waited = self._stream.seconds_waited

    def _take_step(self) -> None:
        """Take a step; none if the workers that make batches have been ended by the signal to stop."""
        try:
            with self._memory_checked():
                batch = next(self._stream)
                result = self._step_on(batch)
        except DataWorkerError:
            # A signal to the whole process group has ended the workers too: then there is nothing wrong.
            if not self.interruption.wanted or distributed.size() > 1:
                raise
            return
        self.clock.tick()
        self._steps.append(result)
        self._check_finite(result, batch)

    def _step_on(self, batch: Batch) -> StepResult:
        """Take a step; where the GPU is full, take it again with stages recomputed, as all that follow."""
        rate, sample = self.learning_rate(self.clock.progress), self.clock.step % SAMPLE_EVERY == 0
        try:
            return self.learner.step(batch.images, batch.labels, rate, sample)
        except RuntimeError as error:
            if not lacks_gpu_memory(error) or not self._begin_recomputing():
                raise
        # Only here is the error gone, which has kept alive what the failed step had allocated.
        self.learner.forget_step()
        torch.cuda.empty_cache()
        logger.warning(
            "the memory of %s is full: fold %s goes on with checkpointing, which makes steps about a third "
            "longer; before it is resumed, end other programs there",
            *(self.learner.device, self.run_identity.fold),
        )
        return self.learner.step(batch.images, batch.labels, rate, sample)

    def _begin_recomputing(self) -> bool:
        """Let stages be recomputed in the backward pass; return False if they are, or cannot be."""
        network = self.learner.network
        if not isinstance(network, SegmentationNetwork) or network.checkpointing:
            return False
        network.checkpointing = True
        return True

    @contextmanager
    def _memory_checked(self) -> Iterator[None]:
        """Say what can be done if there is too little memory for what the block computes."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Patches are made in RAM wherever the network is.
            place = self.learner.device if lacks_gpu_memory(error) else "cpu"
            raise TrainingError(
                f"a training step of fold {self.run_identity.fold} needs more memory than {place} has free; "
                "end other programs there and train again, or plan with a smaller --memory or with "
                "--checkpointing"
            ) from None

    def _check_finite(self, result: StepResult, batch: Batch) -> None:
        """End a training that has diverged."""
        if result.finite:
            self._not_finite = 0
            return
        self._not_finite, self._spoilt = self._not_finite + 1, batch
        if self._not_finite == PATIENCE:
            raise self._diverged(f"{PATIENCE} steps in a row")

    def _check_taken(self) -> None:
        """Refuse the end of a training of which hardly any step was taken; warn if many were not."""
        rows = () if self.metrics_log is None else rows_now(self.metrics_log.rows)
        skipped = sum(row.get(SKIPPED) or 0 for row in rows) + sum(not step.finite for step in self._steps)
        # Only the first process has the rows; all of them must decide alike.
        (most,) = distributed.largest(skipped)
        taken, total = self.learner.steps_taken, self.learner.steps_taken + int(most)
        if taken < LEAST_TAKEN * total:
            raise self._diverged(f"{int(most)} of its {total} steps")
        if taken < MANY_TAKEN * total:
            logger.warning(
                "fold %s: only %d of its %d steps were taken, since losses or gradients of the others were "
                "not finite; its labels will be coarse. A smaller learning_rate or the precision float32 in "
                "the configuration's training in plan.json may help",
                self.run_identity.fold,
                taken,
                total,
            )

    def _diverged(self, steps: str) -> TrainingError:
        """Return the error of a training with too many steps that could not be taken.

        Args:
            steps: Number of these steps in words.
        """
        run, fault = self.run_identity, None
        if self._spoilt is not None:
            with self._memory_checked():
                fault = self.learner.fault_of_loss(self._spoilt.images, self._spoilt.labels)
        what = f"losses or gradients of fold {run.fold} were not finite in {steps}"
        if fault is not None:
            return TrainingError(f"{what}: {fault}; then move {run.folder} away and train again")
        return TrainingError(
            f"{what}; move {run.folder} away, put a smaller learning_rate or the precision float32 into the "
            "configuration's training in plan.json, and train again"
        )

    def _agree(self) -> None:
        """Let all processes have the same progress, and stop together as soon as one of them is told to."""
        self.clock.progress, told = distributed.largest(self.clock.progress, self.interruption.signal or 0)
        if told:
            self.interruption.signal, self._stopping = int(told), True

    def _finish_epoch(self, meter: Meter) -> None:
        """Write the epoch's row of metrics and a checkpoint, and begin the next epoch."""
        if self.clock.done:
            # The schedule ran through all its learning rates in these steps: the fold is not trained.
            if self.clock.endless and self.clock.step - self._first < LEAST_STEPS:
                raise no_time_left([self.run_identity.fold])
            if self.time_budget is not None:
                self.time_budget.steps_ended = time.monotonic()
            self._check_taken()
            if self.metrics_log is not None:
                meter.update("all steps taken: scoring held-out patches and writing the weights")
        columns = self._validated()
        if self.metrics_log is not None:
            row = self.metrics_log.add(
                self._steps,
                self.learner.network,
                progress=self.clock.progress,
                step=self.clock.step,
                learning_rate=self.learning_rate(self.clock.progress),
                seconds=round(time.monotonic() - self._began, 2),
                seconds_waited_for_data=round(self._stream.seconds_waited - self._waited, 2),
                **columns,
            )
            meter.update("\n".join(summary(row)))
        self._steps = []
        if self._checkpoint_is_due:
            self._save()
        self._begin_epoch(PartialEpoch())

    def _validated(self) -> dict[str, Any]:
        """Return the columns of the held-out Dice, which may bring the training to its end."""
        if self.epoch_validation is None:
            return {}
        began = time.monotonic()
        with self._memory_checked(), self.learner.predicting() as predict:
            columns = self.epoch_validation.finish_epoch(predict)
        seconds = time.monotonic() - began
        columns["seconds_held_out"] = round(seconds, 2)
        if self.time_budget is not None and not self.clock.done:
            each = seconds * distributed.size() / self.epoch_validation.predicted
            self.time_budget.learn(each, self.clock)
        if self.early_stopping is not None:
            told = self.early_stopping.finish_epoch(columns[HELD_OUT], self.learner.recipe, self.clock)
            columns |= {} if told is None else {EARLY_STOP: told}
        return columns

    def _learn_at_half_time(self) -> None:
        """Time a tile once half of the progress is made, if no epoch has ended by then."""
        budget, validation = self.time_budget, self.epoch_validation
        if budget is None or validation is None or budget.learnt or self._epoch_complete:
            return
        if self.clock.progress >= HALF_TIME:
            with self._memory_checked(), self.learner.predicting() as predict:
                seconds = validation.time_tile(predict)
            budget.learn(seconds, self.clock)

    @property
    def _checkpoint_is_due(self) -> bool:
        """Whether an epoch ends with a checkpoint: on a CPU, whose epochs take minutes, each one does.

        On a GPU the first and the last one do, and those between if the latest checkpoint lies so far back
        that writing takes `CHECKPOINT_SHARE` of the time.
        """
        if self.learner.device.type == "cpu" or self.clock.done or self._stopping:
            return True
        return self._saving_seconds <= CHECKPOINT_SHARE * (time.monotonic() - self._saved)

    def _save(self) -> None:
        """Write a checkpoint, with the present epoch's steps."""
        if self.saver is None or self.metrics_log is None:
            return
        began = time.monotonic()
        seconds = round(time.monotonic() - self._began, 2) if self._steps else 0.0
        partial = PartialEpoch(steps=tuple(self._steps), seconds=seconds)
        plateau = None if self.early_stopping is None else self.early_stopping.plateau
        self.saver.save_checkpoint(
            self.learner, self.clock, partial, self.metrics_log, plateau, self.epoch_validation
        )
        self._saved, self._saved_step = time.monotonic(), self.clock.step
        self._saving_seconds = self._saved - began

    def _show(self, meter: Meter) -> None:
        """Advance the display; until the first epoch has a row of metrics, show its steps."""
        percent = 100 * self.clock.progress
        meter.advance(percent - self._shown)
        self._shown = percent
        if self.metrics_log is None or self.metrics_log.rows or not self._steps:
            return
        taken, planned = len(self._steps), self.learner.recipe.iterations_per_epoch
        # The first epoch of a training by time is longer if what is left is too short for a second one.
        of = f"/{planned}" if taken <= planned else ""
        meter.update(f"epoch 1  step {taken}{of}  loss {self._steps[-1].loss:.2f}")
        if taken == WARM_UP:
            self._warm, self._warm_progress = time.monotonic(), self.clock.progress
        if len(self._steps) == MEASURED_STEPS and self.clock.endless:
            self._warn_if_few_steps_fit()
        elif len(self._steps) == MEASURED_STEPS:
            seconds = (time.monotonic() - self._warm) / (MEASURED_STEPS - WARM_UP)
            hours = float(f"{self.clock.steps_left * seconds / 3600:.1g}")
            minutes = max(1, int(float(f"{60 * hours:.1g}")))
            logger.info(  # with one digit, alike for folds that train side by side
                "fold %s: a step takes about %.1g s, and the %d that are left about %s",
                *(self.run_identity.fold, seconds, self.clock.steps_left),
                f"{hours:.0f} hours" if hours >= 2 else counted(minutes, "minute"),
            )

    def _warn_if_few_steps_fit(self) -> None:
        """Estimate from the first steps how many fit the time limit."""
        recipe = self.learner.recipe
        gained = (self.clock.progress - self._warm_progress) / (MEASURED_STEPS - WARM_UP)
        expected = self.clock.step + (1 - self.clock.progress) / gained if gained else recipe.steps
        if recipe.is_cut_short(expected):
            logger.warning(
                "fold %s: the time limit allows about %d of the %d steps that the plan has; labels will be "
                "coarse. More minutes, a smaller --patch or --feature-size, or a GPU help",
                self.run_identity.fold,
                float(f"{expected:.1g}"),  # alike for folds that train side by side
                recipe.steps,
            )
