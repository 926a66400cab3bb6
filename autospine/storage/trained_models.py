"""The trained models of a dataset on disk, found by their files alone: nothing of a network is read.

A model is a folder with a plan and one folder per fold, `fold_NAME/model.safetensors`; the weights are
written when the training of a fold is complete. This is the only module that looks for them, and it imports
no PyTorch, so that a wrong name is answered at once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from autospine.core.errors import ModelError
from autospine.storage.atomic import VISIBLE, visible
from autospine.storage.file_names import path_below

WEIGHTS = "model.safetensors"
"""Final weights of a fold, in the fold's folder."""

CHECKPOINTS = "checkpoint*.safetensors"
"""Checkpoints of a fold in training, in the fold's folder; they are removed once its weights are written."""

ENSEMBLES = "ensembles"
"""Folder beside models that holds the scores of two of them together, in a folder for each pair."""

FOLDS = 5
"""Folds of a cross-validation, unless the user gives others."""

FULL = "full"
"""Name of the fold that trains on every case and holds none out."""

PLAN = "plan.json"
"""Plan of a model, in its folder, and of a dataset, in `preprocessed/DATASET`."""


STARTER = "starter"
"""Name by which commands and `load_model` take the model that comes with AutoSpine."""

STARTER_FILE = Path(__file__).parents[1] / "models" / "starter.autospine"
"""Archive of the model that comes with AutoSpine, trained on synthetic spines alone."""

STARTER_CLASSES = ("vertebra", "disc", "canal", "sacrum")
"""Classes of the starter, by the names of `core.colours.NAMED`."""

STARTER_MM = 3.0
"""Edge of the starter's voxels, mm."""

STARTER_LIMITS = (
    "the starter has learnt from synthetic spines alone: it tells vertebra, disc, canal and sacrum apart but "
    "not one level from another, misses thin arches and the sides of the sacrum, and errs more than a model "
    "of your own cases; look at every label map"
)
"""Limits of the starter, for everyone who predicts with it."""


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


def unfinished_folds(model: Path) -> tuple[str, ...]:
    """Return the names of a model's folds whose training has begun and has not come to its end.

    They have files and no weights, or a checkpoint beside the weights of a training that is extended.
    """
    return tuple(
        folder.name.removeprefix("fold_")
        for folder in sorted(model.glob("fold_*"))
        if next(folder.glob(CHECKPOINTS), None) is not None
        or (not (folder / WEIGHTS).is_file() and bool(visible(folder)))
    )


def describe_unfinished(
    model: str, unfinished: Sequence[str], complete: Sequence[str], training: Collection[str] = ()
) -> str:
    """Say that a model is not what it is going to be, in one line.

    Args:
        model: Name of the model.
        unfinished: Names of the folds that are not trained to the end, at least one.
        complete: Names of the folds that have weights.
        training: Names of the folds that a process trains now.
    """
    further = [fold for fold in unfinished if fold in complete]
    parts = [f"{_folds(complete)} complete"] if complete else []
    new = [fold for fold in unfinished if fold not in complete]
    if now := [fold for fold in new if fold in training]:
        parts.append(f"{_folds(now)} in training")
    if begun := [fold for fold in new if fold not in training]:
        parts.append(f"{_folds(begun)} not trained to the end")
    if further:
        parts.append(f"{_folds(further)} trained further, with the weights from before")
    return f"{model} is incomplete: {', '.join(parts)}"


def _folds(names: Sequence[str]) -> str:
    return f"fold{'s' if len(names) > 1 else ''} {', '.join(names)} {'are' if len(names) > 1 else 'is'}"


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


def starter() -> Path:
    """Return the archive of the starter.

    Raises:
        ModelError: If this installation lacks it.
    """
    if not STARTER_FILE.is_file():
        raise ModelError(
            f"expected the model that comes with AutoSpine at {STARTER_FILE}, found none; install AutoSpine "
            "again, or name another model"
        )
    return STARTER_FILE


def named_model(given: Path) -> Path:
    """Return the path of a model that may be the starter by its name; a folder of that name comes first.

    Raises:
        ModelError: If it is the starter, and this installation lacks it.
    """
    return starter() if given == Path(STARTER) and not given.exists() else given


def portable_model(path: Path) -> Path:
    """Return what `named_model` makes the path of a model of, in another installation of AutoSpine too.

    Args:
        path: Absolute path of a model, which is on a shared disk unless it is the starter's.
    """
    return Path(STARTER) if path == STARTER_FILE else path
