"""What is trained, from where and to where."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autospine.dataset.raw import Dataset
from autospine.dataset.splits import Fold
from autospine.evaluation.held_out import VALIDATION
from autospine.plan import Configuration, Plan
from autospine.preprocessing.store import StoredCase
from autospine.storage.trained_models import WEIGHTS
from trainers.initial_weights import InitialWeights


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """What is trained, from where and to where."""

    dataset: Dataset
    plan: Plan
    configuration: Configuration
    stored: Mapping[str, StoredCase]
    """Preprocessed cases by name."""

    folder: Path
    """The model folder."""

    initial_weights: InitialWeights | None = None
    """Weights that every fold starts from; None for random ones."""

    split: tuple[Fold, ...] = ()
    """Every fold of the cross-validation, whichever are trained now."""

    def fold_folder(self, fold: Fold) -> Path:
        """Where a fold's weights, record and predictions go."""
        return self.folder / f"fold_{fold.name}"

    def cases(self, fold: Fold) -> list[StoredCase]:
        """The cases that train a fold."""
        return [self.stored[name] for name in fold.training]

    def prediction(self, fold: Fold, case: str) -> Path:
        """The label map of a held-out case."""
        return self.fold_folder(fold) / VALIDATION / f"{case}{self.plan.file_ending}"

    def complete(self, fold: Fold) -> bool:
        """Whether a fold is trained and all its held-out cases are predicted."""
        predicted = all(self.prediction(fold, name).is_file() for name in fold.validation)
        return (self.fold_folder(fold) / WEIGHTS).is_file() and predicted
