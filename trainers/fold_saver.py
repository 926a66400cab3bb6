"""Writing of a fold's checkpoints and of its finished weights, each with the facts in its header."""

from dataclasses import asdict, dataclass

import torch
from torch import nn

from autospine import __version__
from autospine.core.types import Modality
from autospine.evaluation.held_out import VALIDATION
from autospine.models.model_folder import PRECISION, save_weights
from autospine.storage.file_names import folder_to_write
from autospine.system.devices import describe
from trainers import distributed
from trainers.checkpoints import Checkpoints
from trainers.early_stopping import Plateau
from trainers.epoch_validation import EpochValidation
from trainers.fold_state import PartialEpoch
from trainers.learner import Learner
from trainers.metrics_log import SKIPPED, Record
from trainers.run_identity import RunIdentity
from trainers.schedule import Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldSaver:
    """Writer of a fold's checkpoints and finished weights; of several processes only the first one has it."""

    run: RunIdentity
    """Identity of the training, for the headers."""

    steps_before: int
    """Number of steps of the finished training that is extended."""

    modalities: tuple[Modality, ...]
    """Modalities of the cases that it trains on."""

    file_ending: str
    """Ending of the fold's validation predictions, such as `.nii.gz`."""

    def save_checkpoint(
        self,
        learner: Learner,
        clock: Clock,
        partial_epoch: PartialEpoch,
        metrics_log: Record,
        plateau: Plateau | None = None,
        epoch_validation: EpochValidation | None = None,
    ) -> None:
        """Write the complete state of the training, from which `fold_state.resume` resumes it.

        Args:
            learner: Learner after its last step.
            clock: Progress of the training.
            partial_epoch: The epoch that has begun; it has no steps between two epochs.
            metrics_log: Log with the rows of all complete epochs.
            plateau: Course of the held-out Dice; None if the training may not stop early.
            epoch_validation: Validation after each epoch; None if nothing is held out.

        Raises:
            WorkspaceError: If it cannot be written; the checkpoints before it stay.
        """
        facts = {
            **self.run.facts(),
            "step": clock.step,
            "progress": clock.progress,
            "processes": distributed.size(),
            "threads": torch.get_num_threads(),
            "epochs": len(metrics_log.rows),
            # Keys of earlier versions: the partial epoch, and the counts of the monitors' samples.
            "begun": [step.plain() for step in partial_epoch.steps],
            "begun_seconds": partial_epoch.seconds,
            "seen": metrics_log.seen(),
            "early_stopping": None if plateau is None else _stopping(plateau, clock),
            "epoch_validation": None if epoch_validation is None else epoch_validation.state(),
        }
        Checkpoints(self.run.folder).save(learner.tensors(), facts)

    def save_finished(
        self,
        network: nn.Module,
        learner: Learner,
        clock: Clock,
        metrics_log: Record,
        plateau: Plateau | None = None,
    ) -> None:
        """Write the weights of a finished training, after which its checkpoints are not needed any more.

        Validation predictions of earlier weights are removed first: wherever the process is killed, those in
        the folder belong to the weights beside them.
        """
        facts = {
            **self.run.facts(),
            "steps": self.steps_before + clock.step,
            SKIPPED: sum(row.get(SKIPPED) or 0 for row in metrics_log.rows),
            "epochs": len(metrics_log.rows),
            "minutes": round(sum(row["seconds"] for row in metrics_log.rows) / 60, 2),
            "processes": distributed.size(),
            "modalities": self.modalities,
            "device": describe(learner.device),
            PRECISION: learner.precision,
            "autospine": __version__,
            "torch": torch.__version__,
            "stopped_early": None if plateau is None else plateau.found,
        }
        for outdated in folder_to_write(self.run.folder, VALIDATION).glob(f"*{self.file_ending}"):
            outdated.unlink()
        save_weights(self.run.folder, network, facts)
        Checkpoints(self.run.folder).remove()


def _stopping(plateau: Plateau, clock: Clock) -> dict[str, object]:
    """Return the state of early stopping; the plateau's epochs are those of the checkpoint."""
    return {
        "best": plateau.best,
        "best_epoch": plateau.best_epoch,
        "found": plateau.found,
        "cooldown": None if clock.cooldown is None else asdict(clock.cooldown),
    }
