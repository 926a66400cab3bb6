"""`best.json`: the model, or the two models together, that segment a dataset best."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from autospine.core.errors import FormatError, ModelError
from autospine.storage.file_names import path_below
from autospine.storage.serialization import FolderName, read_json, stored_as
from autospine.storage.trained_models import DatasetModels
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
    """Choose the models to predict with if none is named: the best of a comparison, else the last completed.

    Args:
        workspace: Workspace to look in.
        dataset: Dataset whose models are considered; by default that of the model completed last.
        configuration: Configuration to use, whatever a comparison says.

    Raises:
        WorkspaceError: If there is no model.
        ModelError: If a member of the best is gone.
        FormatError: If `best.json` is damaged.
    """
    last = workspace.last_model(dataset, configuration)
    path = last.parent / BEST
    if configuration is not None or not path.is_file():
        return Choice((last,), "the one completed last")
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
