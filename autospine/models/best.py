"""`best.json`: the model, or the two models together, that segment a dataset best."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from autospine.core.errors import AutospineError, FormatError, ModelError, counted
from autospine.evaluation.stored_scores import read_cross_validation
from autospine.storage.file_names import path_below
from autospine.storage.serialization import FolderName, read_json, stored_as
from autospine.storage.trained_models import DatasetModels, fold_names, starter
from autospine.storage.workspace import Workspace

BEST = "best.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A model or an ensemble of two models, with its scores and costs."""

    members: tuple[FolderName, ...]
    """Names of the model folders."""

    dice: float | None
    """Dice of the held-out cases: mean over classes of the mean over cases."""

    cleaned_dice: float | None
    """The same after the post-processing that the other folds have chosen."""

    modality_dice: dict[str, float | None]
    """Dice of each modality's cases."""

    minutes: float
    """Training time of all folds together."""

    parameters: int
    """Number of parameters of one fold's networks."""

    memory_bytes: int
    """Estimated peak of a training step, of the larger model."""

    p_value: float | None = None
    """p value of Wilcoxon's signed-rank test of the subjects' Dice against the best candidate's, after Holm's
    correction for the number of candidates; None for the best itself, and where it was not computed."""

    @property
    def name(self) -> str:
        """Names of the members, joined by a plus."""
        return " + ".join(self.members)


@stored_as("the result of a comparison")
@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """`best.json`: models and ensembles that were compared on the same held-out cases."""

    format_version: int
    dataset: str
    n_cases: int
    """Number of held-out cases, the same for all."""

    members: tuple[FolderName, ...]
    """Model folders beside this file that predict together best."""

    command: str
    """Command that predicts with them, from the folder of the comparison."""

    candidates: tuple[Candidate, ...]
    """Best first."""

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise FormatError(
                f"expected {BEST} of format_version {FORMAT_VERSION}, found {self.format_version}; "
                f"run `autospine compare -d {self.dataset}` again"
            )


class Choice(NamedTuple):
    """Models to predict with, and why these were chosen."""

    folders: tuple[Path, ...]
    reason: str


def choose_models(workspace: Workspace, dataset: str | None, configuration: str | None) -> Choice:
    """Choose the models to predict with if none is named: the best of a comparison, else one model.

    Where nothing is trained and nothing in particular is asked for, the starter is chosen.

    Args:
        workspace: Workspace to look in.
        dataset: Dataset whose models are considered; by default that of the model completed last.
        configuration: Configuration to use, whatever a comparison says.

    Raises:
        WorkspaceError: If there is no model.
        ModelError: If a member of the best is gone, or the starter is.
        FormatError: If `best.json` is damaged.
    """
    if dataset is None and configuration is None and not workspace.weights:
        return Choice(
            (starter(),),
            f"no model is trained in {workspace.root}; name yours with -m, or its workspace with -w",
        )
    last, *_ = workspace.last_models(dataset, configuration)
    path = last.parent / BEST
    if configuration is not None or not path.is_file():
        folder, reason = choose_model(workspace, dataset, configuration)
        return Choice((folder,), reason)
    folders = tuple(path_below(last.parent, name) for name in read_json(path, Best).members)
    if gone := [str(folder) for folder in folders if not folder.is_dir()]:
        raise ModelError(
            f"expected the models that {path} names, found none at {', '.join(gone)}; "
            f"run `autospine compare -d {last.parent.name}` again, or name a model with -m"
        )
    written = path.stat().st_mtime
    if any(weights.stat().st_mtime > written for weights in DatasetModels(folder=last.parent).weights):
        again = f"run `autospine compare -d {last.parent.name}` again"
        return Choice(folders, f"the best in {path}; models were trained since, {again}")
    return Choice(folders, f"the best in {path}")


def choose_model(
    workspace: Workspace, dataset: str | None = None, configuration: str | None = None
) -> tuple[Path, str]:
    """Choose one model of a dataset where none is named, and say why.

    Models that were hardly trained come last. Of the others the one validated on most held-out cases
    counts; then the one with the highest Dice on them, with most complete folds, and completed last.

    Args:
        workspace: Workspace to look in.
        dataset: Dataset whose models are considered; by default that of the model completed last.
        configuration: Name of the configuration; any if None.

    Returns:
        The folder of the model, and the reason for it in words.

    Raises:
        WorkspaceError: If there is no model.
    """
    folders = workspace.last_models(dataset, configuration)
    if len(folders) == 1:
        which = f"the only model of {folders[0].parent.name}" if configuration is None else "as asked for"
        return folders[0], which
    ranked = sorted(map(_standing, folders), key=lambda each: each.rank, reverse=True)  # of equals the first
    return ranked[0].folder, _reason(*ranked[:2])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Standing:
    """Key by which a model is chosen."""

    folder: Path
    trained: bool
    """Whether it was trained for more than a few of its plan's steps."""

    n_cases: int
    """Held-out cases that its complete folds were validated on."""

    dice: float
    """Mean Dice on them, in [0, 1]; 0 if it is not known."""

    n_folds: int
    """Number of complete folds."""

    @property
    def rank(self) -> tuple[bool, int, float, int]:
        """Return what models are sorted by, the best one last."""
        return self.trained, self.n_cases, self.dice, self.n_folds


def _standing(folder: Path) -> _Standing:
    complete = fold_names(folder)
    try:
        scores = read_cross_validation(folder)
        n_cases = sum(len(cases) for fold, cases in scores.folds.items() if fold in complete)
        dice = scores.dice or 0.0
    except FormatError:  # absent or damaged
        n_cases, dice = 0, 0.0
    return _Standing(
        folder=folder, trained=_is_trained(folder), n_cases=n_cases, dice=dice, n_folds=len(complete)
    )


def _is_trained(folder: Path) -> bool:
    """Tell whether a model was trained for more than a few steps, or cannot be opened, which others say."""
    from autospine.models.manifest import short_training  # they import PyTorch
    from autospine.models.model_folder import open_model

    try:
        model = open_model(folder)
        return short_training(model.weights(), model.configuration.training) is None
    except AutospineError:
        return True


def _reason(chosen: _Standing, next_best: _Standing) -> str:
    """Say by what a model was chosen before the next best one."""
    other = next_best.folder.name
    if chosen.trained != next_best.trained:
        return f"{other} was hardly trained"
    scored = f"cross-validated Dice {chosen.dice:.3f} over {counted(chosen.n_cases, 'case')}"
    if next_best.n_cases == 0 < chosen.n_cases:
        return f"{scored}; {other} has no cross-validation"
    if chosen.n_cases > next_best.n_cases:
        return f"{scored}; {other} has {next_best.dice:.3f} over {next_best.n_cases} alone"
    if chosen.dice > next_best.dice:
        return f"{scored}; {other} has {next_best.dice:.3f}"
    if chosen.n_folds > next_best.n_folds:
        return f"{counted(chosen.n_folds, 'complete fold')}; {other} has {next_best.n_folds}"
    return f"completed last; {other} is its equal otherwise"
