"""The trained models of a dataset on disk, found by their files alone: nothing of a network is read.

A model is a folder with a plan and one folder per fold, `fold_NAME/model.safetensors`; the weights are
written when the training of a fold is complete. This is the only module that looks for them, and it imports
no PyTorch, so that a wrong name is answered at once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from autospine.core.errors import ModelError
from autospine.storage.atomic import VISIBLE
from autospine.storage.file_names import path_below

WEIGHTS = "model.safetensors"
"""Final weights of a fold, in the fold's folder."""

FOLDS = 5
"""Folds of a cross-validation, unless the user gives others."""

FULL = "full"
"""Name of the fold that trains on every case and holds none out."""

PLAN = "plan.json"
"""Plan of a model, in its folder, and of a dataset, in `preprocessed/DATASET`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetModels:
    """The trained models of one dataset, one folder per configuration."""

    folder: Path
    """`results/DATASET`; it need not exist."""

    @property
    def weights(self) -> tuple[Path, ...]:
        """Weights of every complete fold of every model, by model and fold."""
        return tuple(sorted(self.folder.glob(f"{VISIBLE}/fold_*/{WEIGHTS}")))

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of the models that have a complete fold, by name."""
        return tuple(sorted({path.parents[1] for path in self.weights}))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models, which are those of their configurations."""
        return tuple(folder.name for folder in self.folders)


def fold_folder(model: Path, fold: str) -> Path:
    """Return the folder of a fold (`0` ... `4`, or `full`) in a model folder; it need not exist."""
    return path_below(model, f"fold_{fold}")


def fold_weights(model: Path) -> tuple[Path, ...]:
    """Weights of the complete folds in a model folder, by fold."""
    return tuple(sorted(model.glob(f"fold_*/{WEIGHTS}")))


def fold_names(model: Path) -> tuple[str, ...]:
    """Names of the complete folds in a model folder: `0` ... `4`, or `full`."""
    return tuple(path.parent.name.removeprefix("fold_") for path in fold_weights(model))


def find_folds(model: Path) -> tuple[str, ...]:
    """Return the names of a model's complete folds.

    Raises:
        ModelError: If it is no model folder, or no fold is complete.
    """
    if not (model / PLAN).is_file():
        if (model / WEIGHTS).is_file() and (model.parent / PLAN).is_file():
            fold = model.name.removeprefix("fold_")
            raise ModelError(
                f"expected a model folder, found fold {fold} of one; name {model.parent} instead"
            )
        found = "a folder without it" if model.is_dir() else "nothing at all"
        raise ModelError(
            f"expected a model folder with plan.json, or an .autospine file, at {model}, found {found}; "
            "name another, or train first"
        )
    folds = fold_names(model)
    if not folds:
        raise ModelError(
            f"expected at least one trained fold in {model}, found none; "
            f"run `autospine train {model.resolve().name} --fold all` first"
        )
    return folds


def check_folds(model: Path, complete: Sequence[str], wanted: Collection[str]) -> None:
    """Refuse folds that a model lacks.

    Args:
        model: Folder of the model, for the message.
        complete: Names of its complete folds.
        wanted: Names of the folds that are asked for.

    Raises:
        ModelError: If a fold is missing.
    """
    if missing := sorted(set(wanted) - set(complete)):
        raise ModelError(
            f"expected folds among {', '.join(complete)}, the complete ones in {model}, "
            f"found {', '.join(missing)}; leave out what is not there, or run `autospine train` for it"
        )
