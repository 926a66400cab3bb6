"""Comparison of label maps with their references: two arrays, or two folders of files."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import SimpleITK as sitk

from autospine.cluster.executor import Executor, Lost, Task
from autospine.cluster.this_machine import WorkerProcesses
from autospine.core.errors import (
    AutospineError,
    DatasetError,
    EvaluationError,
    FormatError,
    listed,
    listed_faults,
)
from autospine.core.geometry import Grid, difference
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray, Modality, Vector3
from autospine.dataset.description import load_labels
from autospine.dataset.raw import Case, known_cases
from autospine.evaluation.class_pair import CasePair
from autospine.evaluation.label_statistics import LabelledIntensities, intensities_at, measure_labels
from autospine.evaluation.metrics import DEFAULT_METRICS, Metric
from autospine.evaluation.overlap import class_counts, confusion_table, foreground_counts, in_class_order
from autospine.evaluation.scores import CaseScores, ComparedFolders, Evaluation
from autospine.evaluation.statistics_files import read_statistics
from autospine.io.formats import ENDINGS, file_ending
from autospine.io.images import Volume, pack, read_labels, read_volume
from autospine.storage.atomic import visible
from autospine.storage.file_names import same_name
from autospine.system.log import get_logger, progress

logger = get_logger(__name__)


def evaluate_predictions(
    predictions: Path,
    references: Path,
    description: Path | None = None,
    metrics: Sequence[Metric] = DEFAULT_METRICS,
    *,
    resample: bool = False,
    leave_out_faults: bool = False,
    cluster: Executor | None = None,
) -> Evaluation:
    """Compare two folders of label maps.

    Args:
        predictions: Folder of predicted label maps.
        references: Folder of reference label maps.
        description: The dataset.json that names the labels; by default the one beside the references.
        metrics: Metrics to compute, as `find_metrics` finds them by name.
        resample: Whether predictions on other grids are resampled to those of their references.
        leave_out_faults: Whether cases that cannot be compared are left out and listed instead of refused.
        cluster: Compares the cases instead of this process.

    Raises:
        DatasetError: If there is no description.
        EvaluationError: If the folders do not match, or a metric fails.
    """
    if not references.is_dir():
        raise EvaluationError(f"expected a folder of references, found none at {references}; name another")
    path = description or references.resolve().parent / "dataset.json"
    if not path.is_file():
        swapped = (predictions.resolve().parent / path.name).is_file()
        remedy = "name predictions first and references second, or " * swapped
        raise DatasetError(
            f"expected the dataset.json that names the labels at {path}, found none; {remedy}give it with "
            "--labels"
        )
    labels = load_labels(path)
    _warn_of_other_meanings(predictions, labels)
    evaluation = evaluate_folder(
        predictions,
        references,
        labels,
        known_cases(path.parent),
        metrics,
        with_statistics=True,
        resample=resample,
        leave_out_faults=leave_out_faults,
        cluster=cluster,
    )
    compared = ComparedFolders(
        predictions=predictions, references=references, description=path, resampled=resample
    )
    return replace(evaluation, compared=compared)


def _warn_of_other_meanings(predictions: Path, labels: LabelSpace) -> None:
    """Warn where the model that predicted calls label values by other names than the references."""
    try:
        known = read_statistics(predictions)
    except FormatError:  # who made the label maps has left no names
        return
    theirs = {each.integer: each.label for each in next(iter(known.values()), ())}
    ours = dict(zip(labels.painted, labels.names, strict=True))
    other = [
        f"{integer} is {name} there and {ours[integer]} here"
        for integer, name in sorted(theirs.items())
        if integer in ours and ours[integer].casefold() != name.casefold()
    ]
    if other:
        logger.warning(
            "labels of the predictions mean something else than those of the references: %s; `autospine "
            "convert labels` gives them the same values",
            listed(other),
        )


def evaluate_folder(
    predictions: Path,
    references: Path,
    labels: LabelSpace,
    cases: Iterable[Case] = (),
    metrics: Sequence[Metric] = DEFAULT_METRICS,
    *,
    with_statistics: bool = False,
    resample: bool = False,
    leave_out_faults: bool = False,
    cluster: Executor | None = None,
) -> Evaluation:
    """Compare the label maps of two folders, matched by file name without its ending.

    Args:
        predictions: Folder of predicted label maps that hold the dataset's label values.
        references: Folder of reference label maps.
        labels: The dataset's label space.
        cases: Cases whose modality and site are known; those that are in neither folder are passed over.
        metrics: Metrics to compute.
        with_statistics: Whether the classes of each prediction are measured too, with the intensities of
            the case's image if that is known and lies on the same grid.
        resample: Whether predictions on other grids are resampled to those of their references, by nearest
            neighbours.
        leave_out_faults: Whether cases that cannot be compared are left out and listed instead of refused.
        cluster: Compares the cases instead of this process.

    Returns:
        The scores of every case in both folders; those in one alone are listed.

    Raises:
        EvaluationError: If a folder is absent, no names match, files cannot be read or hold unknown
            labels, predictions and references lie on different grids, or a metric fails; names every case.
            Where faults are left out, only if no case can be compared.
    """
    predicted, true = label_files(predictions, "predictions"), label_files(references, "references")
    both = sorted(predicted.keys() & true.keys())
    if not both:
        raise EvaluationError(
            f"expected predictions named as the references in {references} ({listed(list(true))}), "
            f"found {listed(list(predicted))} in {predictions}; give the matching folders or rename the files"
        )
    known = {same_name(case.name): case for case in cases}
    tasks = [
        Task(name=name, argument=_MapPair(name, predicted[name], true[name], known.get(name)))
        for name in both
    ]
    compare = partial(
        _compared, labels=labels, metrics=metrics, with_statistics=with_statistics, resample=resample
    )
    scores: dict[str, CaseScores] = {}
    faults: dict[str, EvaluationError] = {}
    with progress("evaluating", len(tasks)) as meter:
        for task, outcome in (cluster or WorkerProcesses(1)).run(compare, tasks):
            if isinstance(outcome, CaseScores):
                scores[task.name] = replace(outcome, metrics=tuple(metrics))
            else:
                fault = EvaluationError(f"case {outcome}") if isinstance(outcome, Lost) else outcome
                faults[task.name] = fault
                if leave_out_faults:
                    logger.error("%s", fault)
            meter.advance()
    if faults and leave_out_faults and not scores:
        raise EvaluationError(f"expected label maps that can be compared, found none among {len(both)} pairs")
    if faults and not leave_out_faults:
        _refuse([faults[name] for name in both if name in faults], len(both))
    return Evaluation(
        classes=labels.names,
        cases=tuple(scores[name] for name in both if name in scores),
        missing=tuple(sorted(true.keys() - predicted.keys())),
        extra=tuple(sorted(predicted.keys() - true.keys())),
        failed={name: str(faults[name]) for name in both if name in faults},
    )


@dataclass(frozen=True, slots=True)
class _MapPair:
    """The two label maps of a case."""

    name: str
    prediction: Path
    reference: Path

    case: Case | None
    """The case in its dataset; None if it is not known."""


def _compared(
    pair: _MapPair,
    *,
    labels: LabelSpace,
    metrics: Sequence[Metric],
    with_statistics: bool,
    resample: bool,
) -> CaseScores | EvaluationError:
    """Read and compare the maps of a case; return why they cannot be compared if so.

    The scores come without the metrics, which hold functions: these do not go from process to process.
    """
    case = pair.case
    try:
        prediction, reference, grid = read_pair(pair.name, pair.prediction, pair.reference, labels, resample)
        score = evaluate_case(
            prediction,
            reference,
            labels,
            case=pair.name,
            modality=case.modality if case else None,
            site=case.site if case else None,
            subject=case.subject if case else None,
            metrics=metrics,
            spacing_mm=grid.spacing_mm,
        )
    except EvaluationError as error:
        return error
    if with_statistics:
        image = None if case is None else _intensities(case, prediction, grid)
        score = replace(score, statistics=measure_labels(prediction, labels, grid, image))
    return replace(score, metrics=())


def _refuse(faults: Sequence[EvaluationError], pairs: int) -> NoReturn:
    """Name every pair that cannot be compared: a mean over the others would be taken for that of all."""
    if len(faults) == 1:
        raise faults[0]
    raise EvaluationError(
        f"expected {pairs} pairs of label maps that can be compared, found {len(faults)} that cannot: "
        + listed_faults([str(fault) for fault in faults])
    )


def evaluate_case(
    prediction: LabelArray,
    reference: LabelArray,
    labels: LabelSpace,
    *,
    case: str,
    modality: Modality | None = None,
    site: str | None = None,
    subject: str | None = None,
    metrics: Sequence[Metric] = DEFAULT_METRICS,
    spacing_mm: Vector3 | None = None,
) -> CaseScores:
    """Compare one prediction with its reference.

    Args:
        prediction: (S, P, L) stored indices, as `LabelSpace.encode` returns them.
        reference: (S, P, L) stored indices; voxels that are `IGNORE_INDEX` are left out.
        labels: The label space that the indices belong to.
        case: Name of the case.
        modality: Modality of the case, if known.
        site: Site of the case, if known.
        subject: Subject of the case, if known; by default it is the only case of its subject.
        metrics: Metrics to compute.
        spacing_mm: Voxel spacing along S, P and L; metrics that do not take counts need it.

    Raises:
        EvaluationError: If the shapes differ, an index is not one of the label space, the spacing is missing,
            or a metric fails; the message names the case.
    """
    try:
        confusion = confusion_table(prediction, reference, labels)
        measured, of_foreground = _measured(prediction, reference, labels, metrics, spacing_mm)
    except EvaluationError as error:
        raise EvaluationError(f"case {case}: {error}") from None
    return CaseScores(
        case=case,
        classes=labels.names,
        counts=class_counts(confusion, labels),
        foreground=foreground_counts(confusion),
        confusion=in_class_order(confusion, labels),
        measured=measured,
        measured_foreground=of_foreground,
        metrics=tuple(metrics),
        modality=modality,
        site=site,
        subject=subject,
    )


def _measured(
    prediction: LabelArray,
    reference: LabelArray,
    labels: LabelSpace,
    metrics: Sequence[Metric],
    spacing_mm: Vector3 | None,
) -> tuple[dict[str, tuple[float, ...]], dict[str, float]]:
    """Compute the metrics that do not take counts: one value for each class, and that of the foreground."""
    wanted = [metric for metric in metrics if metric.from_counts is None]
    if not wanted:
        return {}, {}
    if spacing_mm is None:
        raise EvaluationError(f"the metric {wanted[0].name} needs the voxel spacing; give spacing_mm")
    case = CasePair(prediction, reference, labels, spacing_mm)
    values: dict[str, list[float]] = {metric.name: [] for metric in wanted}
    for pair in case.classes:
        for metric in wanted:
            values[metric.name].append(metric.of_pair(pair))
    foreground = case.foreground
    return (
        {name: tuple(each) for name, each in values.items()},
        {metric.name: metric.of_pair(foreground) for metric in wanted if metric.of_foreground},
    )


def label_files(folder: Path, what: str) -> dict[str, Path]:
    """Return the label files of a folder by the name of their case.

    Args:
        folder: The folder.
        what: What the files are, for messages.

    Raises:
        EvaluationError: If there is no such folder, it holds no label maps, or two of one case.
    """
    if not folder.is_dir():
        raise EvaluationError(f"expected a folder of {what} at {folder}, found none; give an existing folder")
    files: dict[str, Path] = {}
    for path in visible(folder):
        ending = file_ending(path)
        if ending is None or not path.is_file():
            continue
        name = same_name(path.name[: -len(ending)])
        if name in files:
            raise EvaluationError(
                f"expected one file for case {name} in {folder}, found {files[name].name} and {path.name}; "
                "remove one"
            )
        files[name] = path
    if not files:
        raise EvaluationError(
            f"expected label maps ({', '.join(ENDINGS)}) in the folder of {what} {folder}, found none"
        )
    return files


def read_pair(
    case: str, prediction: Path, reference: Path, labels: LabelSpace, resample: bool
) -> tuple[LabelArray, LabelArray, Grid]:
    """Return the stored indices of prediction and reference and their grid, checked to be the same.

    Args:
        case: Name of the case, for messages.
        prediction: Predicted label map.
        reference: Label map of the reference.
        labels: The label space of both.
        resample: Whether a prediction on another grid is resampled to that of its reference.

    Raises:
        EvaluationError: If one cannot be read, holds unknown labels, or the grids differ.
    """
    predicted, true = _read(case, prediction, labels), _read(case, reference, labels)
    if not (differs := difference(predicted.grid, true.grid)):
        found = predicted.turned_to(true.grid)[0]
    elif resample:
        logger.info("%s is resampled to the grid of its reference: %s", prediction, differs)
        found = _resampled(predicted, true.grid)
    else:
        raise EvaluationError(
            f"expected prediction {prediction} of case {case} on the grid of its reference {reference}, "
            f"found {differs}; predict on the image that the reference belongs to, or give --resample"
        )
    return (
        _encoded(case, prediction, labels, found),
        _encoded(case, reference, labels, true.array[0]),
        true.grid,
    )


def _resampled(labels: Volume, grid: Grid) -> LabelArray:
    """Return a label map on another grid, by nearest neighbours, with background outside of it."""
    target = sitk.Image(grid.shape[::-1], sitk.sitkUInt8)
    target.SetSpacing(grid.spacing_mm[::-1])
    target.SetOrigin(grid.origin_mm)
    target.SetDirection(grid.direction)
    moved = sitk.Resample(
        pack(labels.array[0], labels.grid), target, sitk.Transform(), sitk.sitkNearestNeighbor
    )
    found: LabelArray = sitk.GetArrayFromImage(moved)
    return found


def _intensities(case: Case, indices: LabelArray, grid: Grid) -> LabelledIntensities | None:
    """Return the intensities of a case's image at the labels of a map; None if it cannot be had."""
    try:
        image = read_volume(case.images)
    except (AutospineError, OSError) as error:
        logger.debug("%s has no intensities: %s", case.name, error)
        return None
    if difference(image.grid, grid):
        return None
    return intensities_at(indices, image.turned_to(grid)[0])


def _read(case: str, path: Path, labels: LabelSpace) -> Volume:
    with _about(case, path):
        return read_labels(path, labels)


def _encoded(case: str, path: Path, labels: LabelSpace, values: LabelArray) -> LabelArray:
    with _about(case, path):
        return labels.encode(values)


@contextmanager
def _about(case: str, path: Path) -> Iterator[None]:
    """Say in errors which map of which case they are of, and what to do about labels of something else."""
    try:
        yield
    except DatasetError as error:
        raise EvaluationError(
            f"case {case}, file {path}: {error}; name the dataset.json of these labels with --labels, or "
            "bring both maps to the same labels by `autospine convert labels`"
        ) from None
    except AutospineError as error:
        raise EvaluationError(f"case {case}, file {path}: {error}") from None
