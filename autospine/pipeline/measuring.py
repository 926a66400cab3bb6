"""Measuring: from raw files to a fingerprint and folds."""

import os
from collections.abc import Sequence
from pathlib import Path

from autospine.cluster.executor import Executor
from autospine.core.errors import FormatError, WorkspaceError
from autospine.core.types import Modality
from autospine.dataset.checks import Report, per_cause, verify_folder
from autospine.dataset.raw import Dataset, load_dataset
from autospine.dataset.splits import (
    Fold,
    FoldCase,
    classes_missing,
    fold_cases,
    make_folds,
    read_folds,
    separated,
    write_folds,
)
from autospine.fingerprint import Fingerprint, dataset_key, find_warnings, measure, read_fingerprint
from autospine.phantom import Region, Scheme, write_dataset
from autospine.pipeline.planned_dataset import FOLDS_FILE
from autospine.storage.atomic import keep_former
from autospine.storage.serialization import write_json
from autospine.storage.workspace import DatasetLocation
from autospine.system.log import get_logger, progress

logger = get_logger(__name__)

FINGERPRINT = "fingerprint.json"


def check(location: DatasetLocation, cluster: Executor | None = None) -> Report:
    """Verify the names and contents of a dataset's files, and log repairs, decisions and oddities."""
    report = verify_folder(location.raw, cluster)
    for note in per_cause(report.notes):
        logger.info("%s", note)
    return report


def fingerprint(
    location: DatasetLocation, workers: int | None = None, cluster: Executor | None = None
) -> tuple[Dataset, Fingerprint]:
    """Verify and measure a dataset; write `fingerprint.json` unless the existing one is of the same files.

    Args:
        location: Folders of the dataset.
        workers: Number of cases that are measured at the same time.
        cluster: Reads the cases instead of this machine's threads.

    Raises:
        DatasetError: If a case is faulty; the message lists every fault of every case.
    """
    report = check(location, cluster)
    report.raise_if_bad()
    try:
        measured = fresh_fingerprint(location, report.dataset)
    except (WorkspaceError, FormatError):
        measured = measure(report.dataset, workers, cluster)
        write_json(location.preprocessed / FINGERPRINT, measured)
    for warning in find_warnings(measured):
        logger.warning("%s", warning)
    return report.dataset, measured


def find_facts(location: DatasetLocation) -> tuple[Dataset, Fingerprint]:
    """Return the dataset and its fingerprint, which is measured if there is none of the present files."""
    try:
        dataset = load_dataset(location.raw)
        return dataset, fresh_fingerprint(location, dataset)
    except (WorkspaceError, FormatError):
        return fingerprint(location)


def fresh_fingerprint(location: DatasetLocation, dataset: Dataset) -> Fingerprint:
    """Read the fingerprint of the dataset as it is now.

    Raises:
        WorkspaceError: If there is none, or it was measured on other files or labels.
    """
    path = location.preprocessed / FINGERPRINT
    measured = read_fingerprint(path) if path.is_file() else None
    if measured is None or measured.key != dataset_key(dataset):
        raise WorkspaceError(
            f"expected a fingerprint of {location.name} as it is now in {path}, found "
            f"{'none' if measured is None else 'one of other files or labels'}; "
            f"run `autospine plan-and-preprocess -d {location.name}` again"
        )
    return measured


def facts_for_folds(
    dataset: Dataset, measured: Fingerprint, together: Sequence[Sequence[str]] = ()
) -> list[FoldCase]:
    """Return the facts that decide the dataset's split, from its fingerprint.

    Args:
        dataset: The dataset.
        measured: Its fingerprint.
        together: Groups of cases that belong to one fold, beside those of one subject or image.
    """
    return fold_cases(
        dataset,
        {case.name: case.modality for case in measured.cases},
        {
            case.name: frozenset(index for index, voxels in enumerate(case.class_voxels) if voxels)
            for case in measured.cases
        },
        (*measured.duplicates, *together),
    )


def write_split(
    location: DatasetLocation, dataset: Dataset, measured: Fingerprint, given: tuple[Fold, ...] | None = None
) -> None:
    """Write `folds.json` unless the existing one fits the dataset.

    Args:
        location: Folders of the dataset.
        dataset: The dataset that is split.
        measured: Its fingerprint.
        given: Folds of the user's, which replace the existing ones; None to keep or make them.

    Raises:
        DatasetError: If there are fewer subjects than folds.
    """
    path = location.preprocessed / FOLDS_FILE
    cases = facts_for_folds(dataset, measured)
    if given is None and os.path.lexists(path):
        try:
            _warn_of_separated(path, read_folds(path, dataset), measured)
            return
        except FormatError as error:
            logger.warning(
                "folds.json does not fit the dataset any more and is made anew (it is kept as %s): %s",
                *(keep_former(path).name, error),
            )
    folds = given or make_folds(cases)
    if given and path.is_file() and not _are(folds, path, dataset):
        logger.info("the former folds are kept as %s", keep_former(path))
    write_folds(path, dataset.name, folds)
    _warn_of_separated(path, folds, measured)
    for name, missing in classes_missing(folds, cases).items():
        names = ", ".join(dataset.labels.names[index] for index in sorted(missing))
        logger.warning("fold %s trains without %s: too few subjects have it", name, names)


def _are(folds: Sequence[Fold], path: Path, dataset: Dataset) -> bool:
    """Return whether `folds.json` has these folds already."""
    try:
        return read_folds(path, dataset) == tuple(folds)
    except FormatError:
        return False


def _warn_of_separated(path: Path, folds: Sequence[Fold], measured: Fingerprint) -> None:
    for group in separated(folds, measured.duplicates):
        logger.warning(
            "%s does not hold %s out together, although they show the same image; "
            "mend the file, or delete it and plan again",
            *(path, ", ".join(group)),
        )


def make_phantoms(
    folder: Path,
    *,
    cases: int,
    test_cases: int,
    region: Region,
    scheme: Scheme,
    modalities: Sequence[Modality],
    seed: int,
    overwrite: bool,
    workers: int,
    tissues: bool = False,
    shifts: bool = False,
) -> None:
    """Write a dataset of phantoms, with progress; see `autospine.phantom.write_dataset`."""
    with progress("phantoms", cases + test_cases) as meter:
        write_dataset(
            folder,
            cases=cases,
            test_cases=test_cases,
            region=region,
            modalities=modalities,
            scheme=scheme,
            seed=seed,
            workers=workers,
            tissues=tissues,
            shifts=shifts,
            overwrite=overwrite,
            on_progress=lambda _done, _total: meter.advance(),
        )
