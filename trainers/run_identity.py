"""Identity of a fold's run (plan, cases, initial weights, seed); files in its folder must match it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autospine.core.errors import TrainingError
from autospine.models.model_folder import TrainedOn
from autospine.plan import Configuration, Plan
from autospine.preprocessing.store import StoredCase
from autospine.storage.digest import digest_of
from autospine.storage.serialization import to_json
from autospine.storage.trained_models import PLAN
from trainers.trained_on import describe_changes, plan_parts


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """Everything that files in a fold's folder must agree on before training resumes from them."""

    fold: str
    """Name of the fold."""

    folder: Path
    """Folder of the fold, for messages."""

    identity: str
    """Digest of plan, recipe and training cases, made by `identity`."""

    plan: str
    """Digest of plan and recipe, without the cases."""

    weights: str | None
    """Digest of the imported initial weights; None for random ones."""

    seed: int
    """Seed of the random initial weights and of every patch."""

    deep_supervision: bool
    """Whether coarser levels of the decoder have heads of their own in training."""

    extensions: int
    """Number of times that finished weights were trained further, this time included."""

    inputs: TrainedOn | None = None
    """Plan and cases part by part, to name what has changed; None where nobody asks."""

    def facts(self) -> dict[str, object]:
        """Return everything but folder and inputs, for the header of weights and checkpoints."""
        return {name: value for name, value in asdict(self).items() if name not in ("folder", "inputs")}

    def check(self, checkpoint: Path, facts: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of another run.

        Args:
            checkpoint: File of the checkpoint, for messages.
            facts: JSON facts in its header.

        Raises:
            TrainingError: If it belongs to another plan or has another start.
        """
        if facts["identity"] != self.identity:
            changes = "" if self.inputs is None else describe_changes(self.folder, self.inputs)
            former = self.folder.parent / f"{PLAN}.old"
            replanned = facts.get("plan", self.plan) != self.plan and former.is_file()
            raise TrainingError(
                f"expected a checkpoint of the present plan and cases in {checkpoint}, found one of others"
                f"{f' (changed: {changes})' if changes else ''}; move {self.folder} away to train anew, or "
                "restore what was there" + (f" (its plan is {former})" if replanned else "")
            )
        if facts.get("weights") != self.weights:
            raise TrainingError(other_start(self.folder, [f"fold {self.fold}"]))
        if facts.get("deep_supervision", False) != self.deep_supervision:
            raise TrainingError(
                f"expected --deep-supervision as when fold {self.fold} began, found it "
                f"{'added' if self.deep_supervision else 'left out'}; give the command as it was "
                f"then, or move {self.folder} away to train anew"
            )
        if facts.get("seed", self.seed) != self.seed:
            raise TrainingError(
                f"expected --seed {facts['seed']}, with which fold {self.fold} began, found {self.seed}; "
                f"give the command as it was then, or move {self.folder} away to train anew"
            )


def identity(plan: Plan, configuration: Configuration, cases: Sequence[StoredCase]) -> str:
    """Return the digest of plan, recipe and cases: all that weights depend on but chance and time."""
    content = to_json(tuple(sorted((case.name, case.record.content) for case in cases)))
    return digest_of(["\n".join((*plan_parts(plan, configuration).values(), content)).encode()])


def other_start(folder: Path, folds: Sequence[str]) -> str:
    """Return the message for folds that began from other initial weights than are asked for now."""
    return (
        f"expected folds that began from the present --pretrained in {folder}, found {', '.join(folds)} "
        "begun from others; give the same as then (none if there were none), or move that folder away to "
        "train anew"
    )


def damaged(weights: Path) -> str:
    """Return the message for finished weights of a fold that cannot be read."""
    return (
        f"expected the weights of a finished fold in {weights}, found them damaged; move {weights.parent} "
        "away and run the same command again to train this fold anew"
    )
