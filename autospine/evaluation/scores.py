"""Scores of predictions against their references, over cases, classes, modalities and sites.

Every mean here is the mean over classes of the mean over cases, with undefined values left out (see
`autospine.evaluation.metrics`): each class counts the same, however seldom it occurs.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import stdev

import numpy as np
from jaxtyping import Float

from autospine.core.types import Modality
from autospine.evaluation.intervals import NO_INTERVAL, Interval, mean_interval
from autospine.evaluation.label_statistics import LabelStatistics
from autospine.evaluation.metrics import DEFAULT_METRICS, Metric
from autospine.evaluation.naming import ClassNaming, namings_of
from autospine.evaluation.overlap import Confusion, Counts


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
class Spread:
    """How the values of a metric differ from case to case, and how sure their mean is."""

    interval: Interval
    """Confidence interval of the mean; NaN if the metric is defined for fewer than two subjects."""

    deviation: float
    """Standard deviation over the cases (n - 1); NaN if the metric is defined in fewer than two."""

    worst: float
    """Worst value: the smallest, or the largest where lower is better; NaN if it is defined in no case."""

    case: str | None
    """Case that has it, the first of several; None if there is none."""


def spread_of(values: Mapping[str, float], metric: Metric, interval: Interval = NO_INTERVAL) -> Spread:
    """Return the spread of a metric.

    Args:
        values: Value in each case by its name; NaN where it is undefined.
        metric: The metric.
        interval: Confidence interval of the mean.
    """
    defined = {case: value for case, value in values.items() if not math.isnan(value)}
    if not defined:
        return Spread(interval=interval, deviation=math.nan, worst=math.nan, case=None)
    case = (min if metric.higher_is_better else max)(defined, key=lambda name: defined[name])
    deviation = stdev(defined.values()) if len(defined) > 1 else math.nan
    return Spread(interval=interval, deviation=deviation, worst=defined[case], case=case)


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseScores:
    """Agreement of one prediction with its reference, class by class."""

    case: str
    """Name of the case."""

    classes: tuple[str, ...]
    """Foreground classes, in the order of the label space."""

    counts: tuple[Counts, ...]
    """Numbers of voxels of each class."""

    foreground: Counts | None = None
    """Numbers of voxels of all classes taken as one; None if they were not counted."""

    confusion: Confusion | None = field(default=None, compare=False, repr=False)
    """Numbers of voxels by class in the reference (rows) and in the prediction (columns), the background
    first; None if they were not counted, and for overlapping regions."""

    measured: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Values of each metric that does not take counts, by name, one for each class; NaN where undefined."""

    measured_foreground: Mapping[str, float] = field(default_factory=dict)
    """Values of such metrics for all classes taken as one, as far as they are computed for them."""

    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    """Metrics of the scores; those that take counts are computed from `counts`."""

    statistics: tuple[LabelStatistics, ...] = ()
    """Numbers about each class in the prediction; none if they were not measured."""

    modality: Modality | None = None
    """Modality of the case, None if it is unknown."""

    site: str | None = None
    """Site of the case, None if it is unknown."""

    subject: str | None = None
    """Subject of the case; None if it is the only one of its subject."""

    @property
    def foreground_scores(self) -> Scores | None:
        """Scores of all classes taken as one; None if they were not counted."""
        counts = self.foreground
        if counts is None:
            return None
        values = {
            metric.name: self.measured_foreground.get(metric.name, math.nan)
            if metric.from_counts is None
            else metric.of_counts(counts)
            for metric in self.metrics
        }
        return Scores(values=values, n=int(counts.occurs))

    @property
    def by_class(self) -> dict[str, Scores]:
        """Scores of each class by name."""
        return {name: self._scores(index) for index, name in enumerate(self.classes)}

    @property
    def mean(self) -> Scores:
        """Means over the classes; `n` is the number of classes that occur."""
        return mean_scores(self.by_class.values(), self.metrics)

    def values(self, metric: Metric) -> tuple[float, ...]:
        """Return the values of one of the metrics, one for each class; NaN where it is undefined."""
        if metric.from_counts is None:
            return self.measured[metric.name]
        return tuple(map(metric.of_counts, self.counts))

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
class ComparedFolders:
    """Folders of the label maps that were compared, by which a report finds them again."""

    predictions: Path
    """Folder of the predictions."""

    references: Path
    """Folder of the references."""

    description: Path
    """The dataset.json that names the labels."""

    resampled: bool = False
    """Whether predictions on other grids were resampled."""


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

    failed: Mapping[str, str] = field(default_factory=dict)
    """Cases that could not be compared, and why; they are in no mean."""

    learnt: tuple[str, ...] = ()
    """Cases that the model has learnt from, as far as that is known."""

    compared: "ComparedFolders | None" = None
    """Folders that were compared; None if the maps do not come from two folders."""

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
        return {name: group.total for name, group in self.modality_parts.items()}

    @property
    def by_site(self) -> dict[str, MeanScores]:
        """Mean scores of each site; empty if no site is known."""
        return {name: group.total for name, group in self.site_parts.items()}

    @property
    def modality_parts(self) -> dict[str, "Evaluation"]:
        """The cases of each modality by its name, in order."""
        return self._parts(lambda case: case.modality)

    @property
    def site_parts(self) -> dict[str, "Evaluation"]:
        """The cases of each site by its name, in order."""
        return self._parts(lambda case: case.site)

    @property
    def by_case(self) -> dict[str, Scores]:
        """Mean of each case over its classes."""
        return {case.case: case.mean for case in self.cases}

    @property
    def foreground(self) -> Scores | None:
        """Mean over the cases of the scores of all classes taken as one; None if they were not counted.

        Metrics that are computed class by class alone are NaN.
        """
        scores = [each for case in self.cases if (each := case.foreground_scores) is not None]
        return mean_scores(scores, self.metrics) if scores else None

    def spread(self, metric: Metric) -> Spread:
        """Return the spread of the cases' means over their classes.

        The interval is that of the mean over classes of the mean over cases.
        """
        values = {case.case: _mean(case.values(metric)) for case in self.cases}
        return spread_of(values, metric, mean_interval(self._values(metric), self._subjects))

    def class_spreads(self, metric: Metric) -> dict[str, Spread]:
        """Return the spread of each class by its name."""
        values, names = self._values(metric), [case.case for case in self.cases]
        return {
            name: spread_of(
                dict(zip(names, column[:, 0].tolist(), strict=True)),
                metric,
                mean_interval(column, self._subjects),
            )
            for name, column in zip(self.classes, np.hsplit(values, len(self.classes)), strict=True)
        }

    def foreground_spread(self, metric: Metric) -> Spread:
        """Return the spread of the scores of all classes taken as one."""
        values = [
            math.nan if (scores := case.foreground_scores) is None else scores.values[metric.name]
            for case in self.cases
        ]
        interval = mean_interval(np.asarray(values).reshape(-1, 1), self._subjects)
        return spread_of({case.case: x for case, x in zip(self.cases, values, strict=True)}, metric, interval)

    @property
    def namings(self) -> tuple[ClassNaming, ...]:
        """Names that the voxels of each class get in all cases; empty if they were not counted."""
        tables = [case.confusion for case in self.cases if case.confusion is not None]
        return namings_of(self.classes, tables)

    @property
    def mean_dice(self) -> float:
        """Mean over classes of the mean over cases of Dice, 0 to 1; NaN if no class occurs."""
        return self.total.mean.dice

    @property
    def mean_iou(self) -> float:
        """Mean over classes of the mean over cases of IoU, 0 to 1; NaN if no class occurs."""
        return self.total.mean.iou

    @property
    def mean_recall(self) -> float:
        """Mean over classes of the mean over cases of recall, the paper's mAcc, 0 to 1; NaN if undefined."""
        return self.total.mean.recall

    @property
    def _subjects(self) -> tuple[str, ...]:
        return tuple(case.subject or case.case for case in self.cases)

    def _values(self, metric: Metric) -> Float[np.ndarray, "cases classes"]:
        """Return the value of a metric in each case and class; NaN where it is undefined."""
        rows = [case.values(metric) for case in self.cases]
        return np.asarray(rows, dtype=np.float64).reshape(-1, len(self.classes))

    def _parts(self, key: Callable[[CaseScores], str | None]) -> dict[str, "Evaluation"]:
        groups: dict[str, list[CaseScores]] = {}
        for case in self.cases:
            name = key(case)
            if name is not None:
                groups.setdefault(name, []).append(case)
        return {name: Evaluation(classes=self.classes, cases=tuple(groups[name])) for name in sorted(groups)}

    def _mean_scores(self, cases: Sequence[CaseScores]) -> MeanScores:
        scores = [case.by_class for case in cases]
        by_class = {
            name: mean_scores((score[name] for score in scores), self.metrics) for name in self.classes
        }
        return MeanScores(
            mean=mean_scores(by_class.values(), self.metrics), by_class=by_class, cases=len(cases)
        )


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
