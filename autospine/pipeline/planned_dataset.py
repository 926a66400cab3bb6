"""A planned dataset: the plan, the configuration and the folds that a command works on, read once.

PyTorch is not imported here, so that a wrong configuration or fold is answered at once.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autospine.core.errors import FormatError, WorkspaceError
from autospine.dataset.splits import ALL, FoldsFile, read_folds, read_folds_file
from autospine.plan import Configuration, Plan
from autospine.storage.serialization import read_json
from autospine.storage.trained_models import FULL, PLAN
from autospine.storage.workspace import DatasetLocation, Workspace

if TYPE_CHECKING:  # it reads images, which takes long to import
    from autospine.dataset.raw import Dataset

FOLDS_FILE = "folds.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedDataset:
    """A dataset with its plan and the configuration that is trained."""

    location: DatasetLocation
    plan: Plan
    configuration: Configuration
    """One of the plan's."""

    folds_file: FoldsFile | None
    """Content of `folds.json`, None if there is no such file yet."""

    @property
    def fold_names(self) -> tuple[str, ...] | None:
        """Names of the folds, None if there are none yet."""
        return None if self.folds_file is None else self.folds_file.names


def open_planned(location: DatasetLocation, configuration: str) -> PlannedDataset:
    """Read the plan and the folds of a dataset.

    Args:
        location: Folders of the dataset.
        configuration: Index or name of a configuration.

    Raises:
        WorkspaceError: If the dataset has not been planned.
        PlanError: If the plan has no such configuration.
        FormatError: If a file is damaged.
    """
    plan = read_plan(location)
    path = location.preprocessed / FOLDS_FILE
    return PlannedDataset(
        location=location,
        plan=plan,
        configuration=plan.configuration(configuration),
        folds_file=read_folds_file(path) if os.path.lexists(path) else None,
    )


def read_plan(location: DatasetLocation) -> Plan:
    """Read the plan of a dataset.

    Raises:
        WorkspaceError: If it has not been planned.
    """
    path = location.preprocessed / PLAN
    if not os.path.lexists(path):
        raise WorkspaceError(
            f"expected a plan of {location.name} at {path}, found none; "
            f"run `autospine plan-and-preprocess -d {location.name}` first"
        )
    return read_json(path, Plan)


def held_out_cases(location: DatasetLocation, dataset: "Dataset") -> set[str]:
    """Return the cases that are validated once all folds are trained: those of a single fold, else all."""
    cases = {case.name for case in dataset.cases}
    try:
        folds = read_folds(location.preprocessed / FOLDS_FILE, dataset)
    except FormatError:  # absent or damaged, which `train` says
        return cases
    return cases & {name for fold in folds for name in fold.validation}


def missing_folds(model: Path, complete: Collection[str]) -> tuple[str, ...]:
    """Return the folds of a model's dataset that the model lacks; none where that is not known.

    Args:
        model: A model folder, `results/DATASET/CONFIGURATION` of a workspace, or any other file or folder.
        complete: Names of its complete folds; a model of `full` alone lacks none.
    """
    place = model.resolve()
    if len(place.parents) < 3 or not set(complete) - {FULL}:
        return ()
    path = Workspace(root=place.parents[2]).preprocessed / place.parent.name / FOLDS_FILE
    try:
        names = read_folds_file(path).names if path.is_file() else ()
    except FormatError:  # `train` says it
        return ()
    return tuple(name for name in names if name not in complete)


def check_fold(fold: str, known: Sequence[str] | None) -> None:
    """Refuse a fold that does not exist.

    Args:
        fold: `all`, `full` or the name of a fold.
        known: Names of the folds; None if the dataset is not split yet.

    Raises:
        WorkspaceError: If there is no such fold.
    """
    if fold in (ALL, FULL):
        return
    if not fold.isdigit():
        raise WorkspaceError(f"expected --fold all, full or the number of a fold, found {fold!r}")
    if known is not None and fold not in known:
        raise WorkspaceError(f"expected --fold all, full or one of {', '.join(known)}, found {fold!r}")
