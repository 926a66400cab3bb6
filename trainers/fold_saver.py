"""Writing of a fold's checkpoints and of its finished weights, each with the facts in its header."""

from dataclasses import dataclass

import torch
from torch import nn

from autospine import __version__
from autospine.evaluation.held_out import VALIDATION
from autospine.models.model_folder import save_weights
from autospine.storage.file_names import folder_to_write
from autospine.system.devices import describe
from trainers import distributed
from trainers.checkpoints import Checkpoints
from trainers.fold_state import PartialEpoch
from trainers.learner import Learner
from trainers.metrics_log import Record
from trainers.run_identity import RunIdentity
from trainers.schedule import Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldSaver:
    """Writer of a fold's checkpoints and finished weights; of several processes only the first one has it."""

    run: RunIdentity
    """Identity of the training, for the headers."""

    steps_before: int
    """Number of steps of the finished training that is extended."""

    file_ending: str
    """Ending of the fold's validation predictions, such as `.nii.gz`."""

    def save_checkpoint(
        self, learner: Learner, clock: Clock, partial_epoch: PartialEpoch, metrics_log: Record
    ) -> None:
        """Write the complete state of the training, from which `fold_state.resume` resumes it.

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
        }
        Checkpoints(self.run.folder).save(learner.tensors(), facts)

    def save_finished(self, network: nn.Module, learner: Learner, clock: Clock, metrics_log: Record) -> None:
        """Write the weights of a finished training, after which its checkpoints are not needed any more.

        Validation predictions of earlier weights are removed first: wherever the process is killed, those in
        the folder belong to the weights beside them.
        """
        facts = {
            **self.run.facts(),
            "steps": self.steps_before + clock.step,
            "epochs": len(metrics_log.rows),
            "minutes": round(sum(row["seconds"] for row in metrics_log.rows) / 60, 2),
            "processes": distributed.size(),
            "device": describe(learner.device),
            "autospine": __version__,
            "torch": torch.__version__,
        }
        for outdated in folder_to_write(self.run.folder, VALIDATION).glob(f"*{self.file_ending}"):
            outdated.unlink()
        save_weights(self.run.folder, network, facts)
        Checkpoints(self.run.folder).remove()
