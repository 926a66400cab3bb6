"""Tables of agreement between predictions and references, over cases, classes, modalities and sites.

Every mean here is the mean over classes of the mean over cases, values that are undefined (see
`autospine.evaluation.overlap`) left out: each class counts the same, however seldom it is seen.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autospine.core.errors import AutospineError, DatasetError, EvaluationError
from autospine.core.geometry import Grid, difference
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray, Modality
from autospine.dataset.raw import Case, known_cases, load_labels
from autospine.evaluation.overlap import Counts, Scores, count_overlap, mean_scores
from autospine.io.images import ENDINGS, file_ending, read_labels
from autospine.system.log import track

GRID_TOLERANCE_MM = 1e-2
"""Distance that a voxel of two grids may differ by: rounding of headers, not a shift."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseScores:
    """Agreement of one case, class by class."""

    case: str
    """Name of the case."""

    classes: tuple[str, ...]
    """Foreground classes, as in the label space."""

    counts: tuple[Counts, ...]
    """Voxels of each class."""

    modality: Modality | None = None
    """None where it is not known."""

    site: str | None = None
    """None where it is not known."""

    @property
    def by_class(self) -> dict[str, Scores]:
        """Scores of each class; NaN where undefined."""
        return {name: counts.scores for name, counts in zip(self.classes, self.counts, strict=True)}

    @property
    def mean(self) -> Scores:
        """Mean over the classes where defined; `n` is the number of classes."""
        return mean_scores(self.by_class.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Scores of several cases together."""

    mean: Scores
    """Mean over classes of the mean over cases; `n` is the number of classes that occur."""

    by_class: Mapping[str, Scores]
    """Mean over the cases where defined; `n` is the number of cases in which the class occurs."""

    cases: int
    """Number of cases."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Agreement of a set of predictions with their references."""

    classes: tuple[str, ...]
    """Foreground classes, as in the label space."""

    cases: tuple[CaseScores, ...]
    """Compared cases, by name."""

    missing: tuple[str, ...] = ()
    """References without a prediction; they are in no mean."""

    extra: tuple[str, ...] = ()
    """Predictions without a reference."""

    @property
    def total(self) -> Summary:
        """All cases."""
        return self._summary(self.cases)

    @property
    def by_modality(self) -> dict[str, Summary]:
        """The cases of each modality; empty where no modality is known."""
        return self._grouped(lambda case: case.modality)

    @property
    def by_site(self) -> dict[str, Summary]:
        """The cases of each site; empty where no site is known."""
        return self._grouped(lambda case: case.site)

    @property
    def by_case(self) -> dict[str, Scores]:
        """Of each case the mean over its classes where defined."""
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
        """Mean over classes of the mean over cases of TP / (TP + FN), 0 to 1; NaN if no class occurs."""
        return self.total.mean.accuracy

    def _grouped(self, key: Callable[[CaseScores], str | None]) -> dict[str, Summary]:
        groups: dict[str, list[CaseScores]] = {}
        for case in self.cases:
            name = key(case)
            if name is not None:
                groups.setdefault(name, []).append(case)
        return {name: self._summary(groups[name]) for name in sorted(groups)}

    def _summary(self, cases: Sequence[CaseScores]) -> Summary:
        scores = [case.by_class for case in cases]
        by_class = {name: mean_scores(score[name] for score in scores) for name in self.classes}
        return Summary(mean=mean_scores(by_class.values()), by_class=by_class, cases=len(cases))


def evaluate_case(
    prediction: LabelArray,
    reference: LabelArray,
    labels: LabelSpace,
    *,
    case: str,
    modality: Modality | None = None,
    site: str | None = None,
) -> CaseScores:
    """Compare one prediction with its reference.

    Args:
        prediction: (S, P, L) stored indices, as of `LabelSpace.encode`.
        reference: (S, P, L) stored indices; voxels that are `IGNORE_INDEX` are left out.
        labels: what the indices mean.
        case: name of the case.
        modality: of the case, where known.
        site: of the case, where known.

    Raises:
        EvaluationError: if the shapes differ or an index is not one of the label space.
    """
    try:
        counts = count_overlap(prediction, reference, labels)
    except EvaluationError as error:
        raise EvaluationError(f"case {case}: {error}") from None
    return CaseScores(case=case, classes=labels.names, counts=counts, modality=modality, site=site)


def evaluate_predictions(predictions: Path, references: Path, description: Path | None = None) -> Evaluation:
    """Compare two folders of label maps.

    Args:
        predictions: predicted label maps.
        references: true ones.
        description: the dataset.json that names the labels; by default the one beside the references.

    Raises:
        DatasetError: if there is no description.
        EvaluationError: if the folders do not match.
    """
    if not references.is_dir():
        raise EvaluationError(f"expected a folder of references, found none at {references}; name another")
    path = description or references.resolve().parent / "dataset.json"
    if not path.is_file():
        raise DatasetError(
            f"expected the dataset.json that names the labels at {path}, found none; give it with --labels"
        )
    return evaluate_folder(predictions, references, load_labels(path), known_cases(path.parent))


def evaluate_folder(
    predictions: Path, references: Path, labels: LabelSpace, cases: Iterable[Case] = ()
) -> Evaluation:
    """Compare the label maps of two folders, matched by file name without its ending.

    Args:
        predictions: folder of predicted label maps, with the integers of the dataset.
        references: folder of true label maps.
        labels: what the integers mean.
        cases: what is known of modality and site; cases that are in neither folder are passed over.

    Returns:
        The scores of every case in both folders; those in one alone are listed.

    Raises:
        EvaluationError: if a folder is absent, no names match, a file cannot be read or holds unknown
            labels, or prediction and reference lie on different grids.
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
        scores.append(
            evaluate_case(
                *_read_pair(name, predicted[name], true[name], labels),
                labels,
                case=name,
                modality=about.modality if about else None,
                site=about.site if about else None,
            )
        )
    return Evaluation(
        classes=labels.names,
        cases=tuple(scores),
        missing=tuple(sorted(true.keys() - predicted.keys())),
        extra=tuple(sorted(predicted.keys() - true.keys())),
    )


def describe(evaluation: Evaluation) -> dict[str, object]:
    """The evaluation as plain values for JSON, undefined ones as None.

    Keys: `mean_dice`, `mean_iou`, `mean_acc` (mean over classes of the mean over cases), `classes`,
    `modalities` and `sites` (the same with their own classes), `cases`, `missing`, `extra`.
    """
    total = evaluation.total
    return {
        "format_version": 1,
        **_plain(total.mean, "mean_"),
        "n_cases": total.cases,
        "classes": _plain_classes(total.by_class),
        "modalities": {name: describe_summary(group) for name, group in evaluation.by_modality.items()},
        "sites": {name: describe_summary(group) for name, group in evaluation.by_site.items()},
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


def describe_summary(summary: Summary) -> dict[str, object]:
    """Scores of several cases as plain values: means, `n_cases`, and `classes` with theirs."""
    return {
        **_plain(summary.mean, "mean_"),
        "n_cases": summary.cases,
        "classes": _plain_classes(summary.by_class),
    }


def _plain_classes(by_class: Mapping[str, Scores], *, count: bool = True) -> dict[str, object]:
    return {
        name: {**_plain(scores), **({"n_cases": scores.n} if count else {})}
        for name, scores in by_class.items()
    }


def _plain(scores: Scores, prefix: str = "") -> dict[str, float | None]:
    values = {"dice": scores.dice, "iou": scores.iou, "acc": scores.accuracy}
    return {prefix + name: None if math.isnan(value) else round(value, 6) for name, value in values.items()}


def _label_files(folder: Path, what: str) -> dict[str, Path]:
    """Label files of a folder by case name."""
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
) -> tuple[np.ndarray, np.ndarray]:
    """Stored indices of prediction and reference, checked to lie on one grid."""
    predicted, predicted_grid = _read(case, prediction, labels)
    true, true_grid = _read(case, reference, labels)
    differs = difference(predicted_grid, true_grid, GRID_TOLERANCE_MM)
    if differs:
        raise EvaluationError(
            f"expected prediction {prediction} of case {case} on the grid of its reference {reference}, "
            f"found {differs}; predict on the image that the reference belongs to"
        )
    return predicted, true


def _read(case: str, path: Path, labels: LabelSpace) -> tuple[np.ndarray, Grid]:
    try:
        volume = read_labels(path)
        return labels.encode(volume.array[0]), volume.grid
    except AutospineError as error:
        raise EvaluationError(f"case {case}, file {path}: {error}") from None


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
