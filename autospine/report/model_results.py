"""A model folder: its held-out cases with their cross-validated scores, and where their files lie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autospine.core.errors import AutospineError
from autospine.core.labels import LabelSpace
from autospine.dataset.description import load_labels
from autospine.dataset.raw import Case, known_cases
from autospine.evaluation.held_out import VALIDATION
from autospine.evaluation.stored_scores import CROSS_VALIDATION, FORMAT_VERSION, read_cross_validation
from autospine.report.result_folder import ResultFolder
from autospine.report.stored_shapes import StoredScores
from autospine.storage.file_names import same_name
from autospine.storage.serialization import read_json
from autospine.storage.trained_models import PLAN, fold_folder
from autospine.storage.workspace import DESCRIPTION, DatasetLocation, Workspace
from autospine.system.log import get_logger

logger = get_logger(__name__)


def holds_model(folder: Path) -> bool:
    """Return whether a folder is that of a model, of which folds may be unfinished."""
    return (folder / PLAN).is_file() and any(folder.glob("fold_*"))


def read_model_results(model: Path) -> ResultFolder:
    """Read the cross-validated scores of a model folder, and find the files of its held-out cases.

    A model that is not validated has no cases, and one whose dataset is gone has cases without references.
    """
    scores = read_model_scores(model)
    cases = _dataset_cases(model)
    predictions = {
        same_name(name): path
        for fold, content in scores.get("folds", {}).items()
        for name in content["cases"]
        if (path := _prediction(fold_folder(model, fold) / VALIDATION, name)) is not None
    }
    return ResultFolder(
        folder=model,
        scores=scores,
        record={},
        labels=_labels(model),
        predictions=predictions,
        references={same_name(case.name): case.labels for case in cases if case.labels is not None},
        images={same_name(case.name): case.images for case in cases},
        statistics={},
    )


def read_model_scores(model: Path) -> Mapping[str, Any]:
    """Return the content of `cross_validation.json`; nothing if it is absent, damaged or an earlier one."""
    try:
        read_cross_validation(model)
        content = read_json(model / CROSS_VALIDATION, StoredScores)
    except AutospineError as error:
        logger.debug("no scores: %s", error)
        return {}
    return content if content.get("format_version") == FORMAT_VERSION else {}


def _labels(model: Path) -> LabelSpace | None:
    """Return the labels of a model, or those of its dataset where it has no description of its own."""
    for folder in filter(None, (model, _dataset(model))):
        try:
            return load_labels(folder / DESCRIPTION)
        except AutospineError as error:
            logger.debug("no labels: %s", error)
    return None


def _dataset_cases(model: Path) -> tuple[Case, ...]:
    """Return the cases of the dataset that a model of a workspace was trained on; none if it is gone."""
    folder = _dataset(model)
    try:
        return () if folder is None else known_cases(folder)
    except AutospineError as error:
        logger.debug("no references: %s", error)
        return ()


def _dataset(model: Path) -> Path | None:
    location = find_location(model)
    return None if location is None else location.raw


def find_location(place: Path) -> DatasetLocation | None:
    """Return the dataset of a folder in a workspace: of its images or labels, or of a model or an experiment.

    Returns:
        Its folders; None if the folder lies elsewhere, or the dataset has gone.
    """
    place = place.resolve()
    for folder in place.parents:
        workspace = Workspace(root=folder)
        for datasets in (workspace.results, workspace.raw):
            if datasets not in place.parents:
                continue
            try:
                return workspace.find_dataset(place.relative_to(datasets).parts[0])
            except AutospineError as error:
                logger.debug("no dataset: %s", error)
                return None
    return None


def _prediction(folder: Path, case: str) -> Path | None:
    return next((path for path in folder.glob(f"{_literal(case)}.*") if path.is_file()), None)


def _literal(name: str) -> str:
    """Return a name as a pattern that matches it alone."""
    return "".join(f"[{mark}]" if mark in "*?[" else mark for mark in name)
