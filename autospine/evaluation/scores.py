"""Scores of predictions against their references, over cases, classes, modalities and sites.

Every mean here is the mean over classes of the mean over cases, with undefined values left out (see
`autospine.evaluation.metrics`): each class counts the same, however seldom it occurs.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autospine.core.errors import AutospineError, DatasetError, EvaluationError
from autospine.core.geometry import Grid, difference
from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.types import LabelArray, Modality, Vector3
from autospine.dataset.raw import Case, known_cases, load_labels
from autospine.evaluation.metrics import DEFAULT_METRICS, Metric
from autospine.evaluation.overlap import Counts, class_mask, count_overlap
from autospine.io.formats import ENDINGS, file_ending
from autospine.io.images import read_labels
from autospine.system.log import track

GRID_TOLERANCE_MM = 1e-2
"""Distance by which corresponding voxels of two grids may differ: rounding of headers, not a shift."""

KEYS = {"recall": "acc"}
"""Keys of metrics in JSON that are not the metrics' names. "mAcc" is the paper's word for the mean recall."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Values of the metrics for one class of one case, or their means over several."""

    values: Mapping[str, float]
    """Value of each metric by name, in the order of the tables; NaN where it is undefined."""

    n: int
    """Number of cases, or of classes, in which the class occurs in the prediction or the reference."""

    @property
    def dice(self) -> float:
        """Dice, 0 to 1; NaN where it is undefined or was not asked for."""
        return self.values.get("dice", math.nan)

    @property
    def iou(self) -> float:
        """Intersection over union, 0 to 1; NaN where it is undefined or was not asked for."""
        return self.values.get("iou", math.nan)

    @property
    def recall(self) -> float:
        """TP / (TP + FN), 0 to 1; NaN where it is undefined or was not asked for."""
        return self.values.get("recall", math.nan)


def mean_scores(scores: Iterable[Scores], metrics: Sequence[Metric] = DEFAULT_METRICS) -> Scores:
    """Average each metric over those of `scores` where it is defined; NaN where it is defined nowhere."""
    scores = tuple(scores)
    return Scores(
        values={metric.name: _mean(score.values[metric.name] for score in scores) for metric in metrics},
        n=sum(score.n > 0 for score in scores),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseScores:
    """Agreement of one prediction with its reference, class by class."""

    case: str
    """Name of the case."""

    classes: tuple[str, ...]
    """Foreground classes, in the order of the label space."""

    counts: tuple[Counts, ...]
    """Numbers of voxels of each class."""

    measured: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Values of each metric that takes masks, by name, one for each class; NaN where undefined."""

    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    """Metrics of the scores; those that take counts are computed from `counts`."""

    modality: Modality | None = None
    """Modality of the case, None if it is unknown."""

    site: str | None = None
    """Site of the case, None if it is unknown."""

    @property
    def by_class(self) -> dict[str, Scores]:
        """Scores of each class by name."""
        return {name: self._scores(index) for index, name in enumerate(self.classes)}

    @property
    def mean(self) -> Scores:
        """Means over the classes; `n` is the number of classes that occur."""
        return mean_scores(self.by_class.values(), self.metrics)

    def _scores(self, index: int) -> Scores:
        counts = self.counts[index]
        return Scores(
            values={
                metric.name: self.measured[metric.name][index]
                if metric.from_counts is None
                else metric.of_counts(counts)
                for metric in self.metrics
            },
            n=int(counts.occurs),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanScores:
    """Mean scores of several cases."""

    mean: Scores
    """Mean over classes of the mean over cases; `n` is the number of classes that occur."""

    by_class: Mapping[str, Scores]
    """Mean of each class over the cases; `n` is the number of cases in which the class occurs."""

    cases: int
    """Number of cases."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Agreement of a set of predictions with their references."""

    classes: tuple[str, ...]
    """Foreground classes, in the order of the label space."""

    cases: tuple[CaseScores, ...]
    """Scores of each compared case, in the order of the cases' names."""

    missing: tuple[str, ...] = ()
    """Cases with a reference and no prediction; they are in no mean."""

    extra: tuple[str, ...] = ()
    """Cases with a prediction and no reference."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics of all cases."""
        return self.cases[0].metrics if self.cases else DEFAULT_METRICS

    @property
    def total(self) -> MeanScores:
        """Mean scores of all cases."""
        return self._mean_scores(self.cases)

    @property
    def by_modality(self) -> dict[str, MeanScores]:
        """Mean scores of each modality; empty if no modality is known."""
        return self._grouped(lambda case: case.modality)

    @property
    def by_site(self) -> dict[str, MeanScores]:
        """Mean scores of each site; empty if no site is known."""
        return self._grouped(lambda case: case.site)

    @property
    def by_case(self) -> dict[str, Scores]:
        """Mean of each case over its classes."""
        return {case.case: case.mean for case in self.cases}

    @property
    def mean_dice(self) -> float:
        """Mean over classes of the mean over cases of Dice, 0 to 1; NaN if no class occurs."""
        return self.total.mean.dice

    @property
    def mean_iou(self) -> float:
        """Mean over classes of the mean over cases of IoU, 0 to 1; NaN if no class occurs."""
        return self.total.mean.iou

    @property
    def mean_acc(self) -> float:
        """Mean over classes of the mean over cases of recall, the paper's mAcc, 0 to 1; NaN if undefined."""
        return self.total.mean.recall

    def _grouped(self, key: Callable[[CaseScores], str | None]) -> dict[str, MeanScores]:
        groups: dict[str, list[CaseScores]] = {}
        for case in self.cases:
            name = key(case)
            if name is not None:
                groups.setdefault(name, []).append(case)
        return {name: self._mean_scores(groups[name]) for name in sorted(groups)}

    def _mean_scores(self, cases: Sequence[CaseScores]) -> MeanScores:
        scores = [case.by_class for case in cases]
        by_class = {
            name: mean_scores((score[name] for score in scores), self.metrics) for name in self.classes
        }
        return MeanScores(
            mean=mean_scores(by_class.values(), self.metrics), by_class=by_class, cases=len(cases)
        )


def evaluate_case(
    prediction: LabelArray,
    reference: LabelArray,
    labels: LabelSpace,
    *,
    case: str,
    modality: Modality | None = None,
    site: str | None = None,
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
        metrics: Metrics to compute.
        spacing_mm: Voxel spacing along S, P and L; metrics that take masks need it.

    Raises:
        EvaluationError: If the shapes differ, an index is not one of the label space, the spacing is missing,
            or a metric fails; the message names the case.
    """
    try:
        counts = count_overlap(prediction, reference, labels)
        measured = _measured(prediction, reference, labels, metrics, spacing_mm)
    except EvaluationError as error:
        raise EvaluationError(f"case {case}: {error}") from None
    return CaseScores(
        case=case,
        classes=labels.names,
        counts=counts,
        measured=measured,
        metrics=tuple(metrics),
        modality=modality,
        site=site,
    )


def evaluate_predictions(
    predictions: Path,
    references: Path,
    description: Path | None = None,
    metrics: Sequence[Metric] = DEFAULT_METRICS,
) -> Evaluation:
    """Compare two folders of label maps.

    Args:
        predictions: Folder of predicted label maps.
        references: Folder of reference label maps.
        description: The dataset.json that names the labels; by default the one beside the references.
        metrics: Metrics to compute, as `find_metrics` finds them by name.

    Raises:
        DatasetError: If there is no description.
        EvaluationError: If the folders do not match, or a metric fails.
    """
    if not references.is_dir():
        raise EvaluationError(f"expected a folder of references, found none at {references}; name another")
    path = description or references.resolve().parent / "dataset.json"
    if not path.is_file():
        raise DatasetError(
            f"expected the dataset.json that names the labels at {path}, found none; give it with --labels"
        )
    return evaluate_folder(predictions, references, load_labels(path), known_cases(path.parent), metrics)


def evaluate_folder(
    predictions: Path,
    references: Path,
    labels: LabelSpace,
    cases: Iterable[Case] = (),
    metrics: Sequence[Metric] = DEFAULT_METRICS,
) -> Evaluation:
    """Compare the label maps of two folders, matched by file name without its ending.

    Args:
        predictions: Folder of predicted label maps that hold the dataset's label values.
        references: Folder of reference label maps.
        labels: The dataset's label space.
        cases: Cases whose modality and site are known; those that are in neither folder are passed over.
        metrics: Metrics to compute.

    Returns:
        The scores of every case in both folders; those in one alone are listed.

    Raises:
        EvaluationError: If a folder is absent, no names match, a file cannot be read or holds unknown
            labels, prediction and reference lie on different grids, or a metric fails.
    """
    predicted, true = _label_files(predictions, "predictions"), _label_files(references, "references")
    both = sorted(predicted.keys() & true.keys())
    if not both:
        raise EvaluationError(
            f"expected predictions named as the references in {references} ({_some(true)}), "
            f"found {_some(predicted)} in {predictions}; give the matching folders or rename the files"
        )
    known = {case.name: case for case in cases}
    scores = []
    for name in track(both, "evaluating"):
        about = known.get(name)
        prediction, reference, spacing_mm = _read_pair(name, predicted[name], true[name], labels)
        scores.append(
            evaluate_case(
                prediction,
                reference,
                labels,
                case=name,
                modality=about.modality if about else None,
                site=about.site if about else None,
                metrics=metrics,
                spacing_mm=spacing_mm,
            )
        )
    return Evaluation(
        classes=labels.names,
        cases=tuple(scores),
        missing=tuple(sorted(true.keys() - predicted.keys())),
        extra=tuple(sorted(predicted.keys() - true.keys())),
    )


def describe_evaluation(evaluation: Evaluation) -> dict[str, object]:
    """Return the evaluation as plain values for JSON, undefined ones as None.

    Keys: `mean_KEY` of each metric (mean over classes of the mean over cases), `classes`, `modalities` and
    `sites` (the same with their own classes), `cases`, `missing`, `extra`. The key of a metric is its name,
    but for those in `KEYS`.
    """
    total = evaluation.total
    return {
        "format_version": 1,
        **_plain(total.mean, "mean_"),
        "n_cases": total.cases,
        "classes": _plain_classes(total.by_class),
        "modalities": {name: describe_mean(group) for name, group in evaluation.by_modality.items()},
        "sites": {name: describe_mean(group) for name, group in evaluation.by_site.items()},
        "cases": {
            case.case: {
                "modality": case.modality,
                "site": case.site,
                **_plain(case.mean, "mean_"),
                "classes": _plain_classes(case.by_class, count=False),
            }
            for case in evaluation.cases
        },
        "missing": list(evaluation.missing),
        "extra": list(evaluation.extra),
    }


def describe_mean(scores: MeanScores) -> dict[str, object]:
    """Return the mean scores of several cases as plain values: means, `n_cases`, and each class."""
    return {
        **_plain(scores.mean, "mean_"),
        "n_cases": scores.cases,
        "classes": _plain_classes(scores.by_class),
    }


def _measured(
    prediction: LabelArray,
    reference: LabelArray,
    labels: LabelSpace,
    metrics: Sequence[Metric],
    spacing_mm: Vector3 | None,
) -> dict[str, tuple[float, ...]]:
    """Compute the metrics that take masks: one value for each class."""
    wanted = [metric for metric in metrics if metric.from_masks is not None]
    if not wanted:
        return {}
    if spacing_mm is None:
        raise EvaluationError(f"the metric {wanted[0].name} needs the voxel spacing; give spacing_mm")
    values: dict[str, list[float]] = {metric.name: [] for metric in wanted}
    stated = reference != IGNORE_INDEX
    for position in range(len(labels.names)):
        predicted = class_mask(prediction, labels, position) & stated
        true = class_mask(reference, labels, position)
        for metric in wanted:
            values[metric.name].append(metric.of_masks(predicted, true, spacing_mm))
    return {name: tuple(each) for name, each in values.items()}


def _plain_classes(by_class: Mapping[str, Scores], *, count: bool = True) -> dict[str, object]:
    return {
        name: {**_plain(scores), **({"n_cases": scores.n} if count else {})}
        for name, scores in by_class.items()
    }


def _plain(scores: Scores, prefix: str = "") -> dict[str, float | None]:
    return {
        prefix + KEYS.get(name, name): None if math.isnan(value) else round(value, 6)
        for name, value in scores.values.items()
    }


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _label_files(folder: Path, what: str) -> dict[str, Path]:
    """Return the label files of a folder by the name of their case."""
    if not folder.is_dir():
        raise EvaluationError(f"expected a folder of {what} at {folder}, found none; give an existing folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = file_ending(path)
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        name = path.name[: -len(ending)]
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


def _read_pair(
    case: str, prediction: Path, reference: Path, labels: LabelSpace
) -> tuple[LabelArray, LabelArray, Vector3]:
    """Return the stored indices of prediction and reference and their spacing, checked to lie on one grid."""
    predicted, predicted_grid = _read(case, prediction, labels)
    true, true_grid = _read(case, reference, labels)
    differs = difference(predicted_grid, true_grid, GRID_TOLERANCE_MM)
    if differs:
        raise EvaluationError(
            f"expected prediction {prediction} of case {case} on the grid of its reference {reference}, "
            f"found {differs}; predict on the image that the reference belongs to"
        )
    return predicted, true, true_grid.spacing_mm


def _read(case: str, path: Path, labels: LabelSpace) -> tuple[LabelArray, Grid]:
    try:
        volume = read_labels(path)
        return labels.encode(volume.array[0]), volume.grid
    except AutospineError as error:
        raise EvaluationError(f"case {case}, file {path}: {error}") from None


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
