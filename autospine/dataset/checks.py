"""The check of a raw dataset: every fault of every case, in one pass."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from autospine.cluster.executor import Executor, Lost
from autospine.cluster.this_machine import WorkerThreads
from autospine.core.errors import FAULTS_MENTIONED, AutospineError, DatasetError, counted, listed
from autospine.core.geometry import difference, spacing_fault
from autospine.core.labels import LabelSpace
from autospine.core.modality import check_values, few_values, guess_modality, same_everywhere
from autospine.dataset.case_sizes import case_tasks
from autospine.dataset.map_values import read_tissue_map, unnamed_values
from autospine.dataset.raw import SEGMENTATION, Case, Dataset, case_modality, inspect_dataset
from autospine.io.images import Volume, read_labels, read_volume
from autospine.storage.atomic import visible
from autospine.storage.digest import digest_of_voxels
from autospine.system.log import progress

WORKERS = 2
"""Number of cases read at the same time."""

EMPTY = "labels are empty: all voxels are background"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The result of a check."""

    dataset: Dataset
    """The dataset with its complete cases."""

    faults: tuple[str, ...]
    """Faults that must be mended, each with the name of its case."""

    notes: tuple[str, ...]
    """Notes on what was repaired, guessed or is unusual."""

    def raise_if_bad(self) -> None:
        """Stop if there are faults.

        Raises:
            DatasetError: If there are faults; the message has one line for each.
        """
        if self.faults:
            listed = "\n".join(f"  {fault}" for fault in per_cause(self.faults, len(self.faults)))
            raise DatasetError(
                f"expected a sound dataset in {self.dataset.folder}, found "
                f"{counted(len(self.faults), 'fault')}:\n{listed}"
            )


def per_cause(statements: Sequence[str], most: int = FAULTS_MENTIONED) -> list[str]:
    """Join what is said of several cases in the same words, in the order in which it is said first.

    Args:
        statements: Faults or notes, most of them as `CASE: what is the matter`.
        most: Most cases that are named after the first of those that something is said of.
    """
    said: dict[str, list[str]] = {}
    for statement in statements:
        name, colon, text = statement.partition(": ")
        words = re.sub(rf"(?<=/){re.escape(name)}(?=[._])", "CASE", text) if colon else statement
        said.setdefault(words, []).append(statement)
    joined = []
    for first, *others in said.values():
        names = listed([other.partition(": ")[0] for other in others], most)
        joined.append(f"{first} (the same in {names})" if others else first)
    return joined


def verify(dataset: Dataset, cluster: Executor | None = None) -> Report:
    """Read every case with its labels and check it, on a cluster or in threads of this process.

    Raises:
        ClusterError: If the cluster is gone.
    """
    faults: list[str] = []
    notes: list[str] = [*dataset.notes]
    notes += [f"{name}: ignored, not {dataset.file_ending}" for name in ignored_files(dataset)]
    cases, trained = [*dataset.cases, *dataset.test_cases], dict[str, str]()
    seen: set[int] = set()
    checked_cases: dict[int, _Checked] = {}
    check = partial(_check, dataset=replace(dataset, cases=(), test_cases=()))  # it goes with each task
    tasks = case_tasks(cases, elsewhere=cluster is not None)
    places = {id(task): number for number, task in enumerate(tasks)}
    with progress("verify", len(tasks)) as meter:
        for task, outcome in (cluster or WorkerThreads(WORKERS)).run(check, tasks):
            lost = isinstance(outcome, Lost)
            checked_cases[places[id(task)]] = _unchecked(outcome.reason) if lost else outcome
            meter.advance()
    for number, case in enumerate(cases):
        checked = checked_cases[number]
        faults += [f"{case.name}: {text}" for text in checked.faults]
        notes += [f"{case.name}: {text}" for text in checked.notes]
        if number < len(dataset.cases):
            trained.setdefault(checked.image, case.name)
            seen |= checked.values
        elif checked.image and checked.image in trained:
            notes.append(
                f"{case.name}: its image in imagesTs is that of {trained[checked.image]} in imagesTr, so "
                "that its scores will not tell how well new images are segmented; remove one of them"
            )
    empty = sum(note.endswith(f": {EMPTY}") for note in notes)
    if empty and empty == len(dataset.cases):
        faults.append(
            f"expected something labelled in at least one case, found background alone in all {empty}; "
            "label them"
        )
    elif dataset.cases and not faults and (nowhere := _nowhere(dataset.labels, seen)):
        notes.append(
            f"labelled in no case: {listed(nowhere)}; a model will not learn to find what it has never seen"
        )
    return Report(dataset=dataset, faults=tuple(faults), notes=tuple(notes))


def verify_folder(folder: Path, cluster: Executor | None = None) -> Report:
    """Check a raw dataset's names, and then the content of its complete cases.

    Args:
        folder: The dataset's folder.
        cluster: Reads the cases instead of this process.

    Raises:
        DatasetError: If dataset.json or cases.csv cannot be understood.
    """
    dataset, faults = inspect_dataset(folder)
    report = verify(dataset, cluster)
    return replace(report, faults=(*faults, *report.faults))


def ignored_files(dataset: Dataset) -> tuple[str, ...]:
    """Return the files among images and labels without the dataset's ending, as `imagesTr/NAME`."""
    folders = [dataset.folder / f"{kind}{part}" for part in ("Tr", "Ts") for kind in ("images", "labels")]
    return tuple(
        f"{folder.name}/{file.name}"
        for folder in folders
        for file in visible(folder)
        if not file.name.lower().endswith(dataset.file_ending)
        and not (folder.name.startswith("labels") and file.name.lower().endswith(SEGMENTATION))
    )


class _Checked(NamedTuple):
    """Faults, notes and content of one case."""

    faults: list[str]
    notes: list[str]
    image: str
    """Digest of the voxels of its first channel; empty if it cannot be read."""

    values: frozenset[int]
    """Label values that occur; none if they cannot be read."""


def _unchecked(reason: str) -> _Checked:
    return _Checked(faults=[reason], notes=[], image="", values=frozenset())


def _check(case: Case, dataset: Dataset) -> _Checked:
    """Check one case: its image, its labels, and whether they lie on one grid."""
    faults: list[str] = []
    notes: list[str] = []
    image = labels = None
    voxels: dict[int, int] = {}
    try:
        image = read_volume(case.images)
        notes += [f"image: {note}" for note in image.notes]
        if fault := spacing_fault(image.grid.spacing_mm):
            faults.append(f"{fault}; mend the header")
        if _is_label_map(image, dataset):
            faults.append(
                "expected an image, found only the label values of dataset.json in it; put the image there"
            )
        if same := same_everywhere(image.array):
            faults.append(f"the image {same}")
        notes += _modality_notes(case, image)
    except AutospineError as error:
        faults.append(str(error))
    try:
        labels = read_labels(case.labels, dataset.labels) if case.labels else None
    except AutospineError as error:
        faults.append(str(error))
    if labels is not None:
        notes += [f"labels: {note}" for note in labels.notes]
        values, counts = np.unique(labels.array, return_counts=True)
        voxels = dict(zip(values.tolist(), counts.tolist(), strict=True))
        if unknown := unnamed_values("expected the labels", voxels, dataset.labels.known):
            faults.append(unknown)
        if not labels.array.any():
            notes.append(EMPTY)
    if image is not None and labels is not None and (apart := difference(image.grid, labels.grid)):
        faults.append(
            f"expected image and labels on one grid, found {apart}; resample the labels to the image, "
            "or mend the header that is wrong"
        )
    if image is not None and case.tissues is not None:
        try:
            read_tissue_map(case.tissues, image.grid, dataset.tissues)
        except AutospineError as error:
            faults.append(str(error))
    digest = "" if image is None else digest_of_voxels(image.array[0])
    return _Checked(faults=faults, notes=notes, image=digest, values=frozenset(voxels))


def _nowhere(labels: LabelSpace, seen: Collection[int]) -> list[str]:
    """Return the names of the classes none of whose label values occurs."""
    return [
        name for name, values in zip(labels.names, labels.members, strict=True) if not set(values) & set(seen)
    ]


def _modality_notes(case: Case, image: Volume) -> Iterator[str]:
    modality = case_modality(case, image)
    if case.modality is None:
        yield f"taken for {modality} by its intensities; state it in cases.csv if that is wrong"
    elif modality == "MR" and guess_modality(image.array[0]) == "CT":
        yield "stated as MR, but has the intensities of CT; state CT in cases.csv if that is right"
    if not same_everywhere(image.array):  # which is a fault
        yield from check_values(image.array, modality)


def _is_label_map(image: Volume, dataset: Dataset) -> bool:
    """Return whether an image has no value but those of labels; no scanner makes so few."""
    return any(
        (few_values(channel) or 0) > 1 and set(np.unique(channel).tolist()) <= set(dataset.labels.known)
        for channel in image.array
    )
