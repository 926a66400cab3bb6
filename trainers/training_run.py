"""A training run: its data, its plan and its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autospine.dataset.raw import Dataset
from autospine.dataset.splits import Fold
from autospine.evaluation.held_out import validation_folder
from autospine.plan import Configuration, Plan
from autospine.preprocessing.store import StoredCase
from autospine.storage.file_names import folder_to_write, path_below
from autospine.storage.trained_models import WEIGHTS, fold_folder
from trainers.initial_weights import InitialWeights


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """Dataset, plan and folder of a training run, which all its folds have in common."""

    dataset: Dataset
    """Raw dataset."""

    plan: Plan
    """Plan of the dataset."""

    configuration: Configuration
    """Configuration of the plan that is trained."""

    stored: Mapping[str, StoredCase]
    """Preprocessed cases by name."""

    folder: Path
    """Model folder, which holds the folders of the folds."""

    initial_weights: InitialWeights | None = None
    """Weights that every fold starts from; None for random ones."""

    split: tuple[Fold, ...] = ()
    """All folds of the cross-validation, including those that are not trained now."""

    def fold_folder(self, fold: Fold) -> Path:
        """Return the folder of a fold's weights, log and predictions."""
        return folder_to_write(self.folder, fold_folder(self.folder, fold.name).name)

    def cases(self, fold: Fold) -> list[StoredCase]:
        """Return the training cases of a fold."""
        return [self.stored[name] for name in fold.training]

    def held_out(self, fold: Fold) -> list[StoredCase]:
        """Return the held-out cases of a fold."""
        return [self.stored[name] for name in fold.validation]

    def validation_folder(self, fold: Fold) -> Path:
        """Return the folder of a fold's predictions of held-out cases."""
        return validation_folder(self.folder, fold.name)

    def prediction(self, fold: Fold, case: str) -> Path:
        """Return the path of the predicted label map of a held-out case."""
        return path_below(self.validation_folder(fold), f"{case}{self.plan.file_ending}")

    def complete(self, fold: Fold) -> bool:
        """Tell whether a fold is trained and all its held-out cases are predicted."""
        predicted = all(self.prediction(fold, name).is_file() for name in fold.validation)
        return (self.fold_folder(fold) / WEIGHTS).is_file() and predicted
