"""Scores of predictions against their references, over cases, classes, modalities and sites.

Every mean here is the mean over classes of the mean over cases, with undefined values left out (see
`autospine.evaluation.metrics`): each class counts the same, however seldom it occurs.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import stdev

from autospine.core.types import Modality
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
    """How the values of a metric differ from case to case."""

    deviation: float
    """Standard deviation over the cases (n - 1); NaN if the metric is defined in fewer than two."""

    worst: float
    """Worst value: the smallest, or the largest where lower is better; NaN if it is defined in no case."""

    case: str | None
    """Case that has it, the first of several; None if there is none."""


def spread_of(values: Mapping[str, float], metric: Metric) -> Spread:
    """Return the spread of a metric.

    Args:
        values: Value in each case by its name; NaN where it is undefined.
        metric: The metric.
    """
    defined = {case: value for case, value in values.items() if not math.isnan(value)}
    if not defined:
        return Spread(deviation=math.nan, worst=math.nan, case=None)
    case = (min if metric.higher_is_better else max)(defined, key=lambda name: defined[name])
    return Spread(
        deviation=stdev(defined.values()) if len(defined) > 1 else math.nan, worst=defined[case], case=case
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

    learnt: tuple[str, ...] = ()
    """Cases that the model has learnt from, as far as that is known."""

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
        """Return the spread of the cases' means over their classes."""
        return spread_of({name: scores.values[metric.name] for name, scores in self.by_case.items()}, metric)

    def class_spreads(self, metric: Metric) -> dict[str, Spread]:
        """Return the spread of each class by its name."""
        scores = {case.case: case.by_class for case in self.cases}
        return {
            name: spread_of({case: each[name].values[metric.name] for case, each in scores.items()}, metric)
            for name in self.classes
        }

    def foreground_spread(self, metric: Metric) -> Spread:
        """Return the spread of the scores of all classes taken as one."""
        values = {
            case.case: scores.values[metric.name]
            for case in self.cases
            if (scores := case.foreground_scores) is not None
        }
        return spread_of(values, metric)

    @property
    def namings(self) -> tuple[ClassNaming, ...]:
        """What the classes of the references are called, in all cases; none if it was not counted."""
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


def describe_evaluation(evaluation: Evaluation) -> dict[str, object]:
    """Return the evaluation as plain values for JSON, undefined ones as None.

    Keys: `mean_METRIC` of each metric (mean over classes of the mean over cases), `foreground` (of all
    classes taken as one), `spread` (over the cases), `classes`, `modalities` and `sites` (the same with their
    own classes), `cases`, `confusion` and `found` (see `ClassNaming`), `missing`, `extra`, `training_images`
    (cases that the model has learnt from).
    """
    total, namings = evaluation.total, evaluation.namings
    return {
        "format_version": 2,
        **_plain(total.mean, "mean_"),
        "n_cases": total.cases,
        "foreground": None if evaluation.foreground is None else _plain(evaluation.foreground),
        "spread": _describe_spread(evaluation),
        "classes": _plain_classes(total.by_class),
        "modalities": {name: describe_mean(group) for name, group in evaluation.by_modality.items()},
        "sites": {name: describe_mean(group) for name, group in evaluation.by_site.items()},
        "cases": {
            case.case: {
                "modality": case.modality,
                "site": case.site,
                **_plain(case.mean, "mean_"),
                "foreground": None if (scores := case.foreground_scores) is None else _plain(scores),
                "classes": _plain_classes(case.by_class, count=False),
            }
            for case in evaluation.cases
        },
        "confusion": {
            each.name: {other: round(share, 6) for other, share in each.shares.items()} for each in namings
        },
        "found": {
            each.name: {
                "share": round(each.found, 6),
                "called": {other: round(share, 6) for other, share in each.shares_of_found.items()},
            }
            for each in namings
        },
        "missing": list(evaluation.missing),
        "extra": list(evaluation.extra),
        "training_images": list(evaluation.learnt),
    }


def describe_mean(scores: MeanScores) -> dict[str, object]:
    """Return the mean scores of several cases as plain values: means, `n_cases`, and each class."""
    return {
        **_plain(scores.mean, "mean_"),
        "n_cases": scores.cases,
        "classes": _plain_classes(scores.by_class),
    }


def _describe_spread(evaluation: Evaluation) -> dict[str, object]:
    """Return the spread of the cases' means, of the foreground, and of each class and group, by metric.

    It has the names of cases, and so lies apart from the means, which go into models that are shared.
    """
    metrics = evaluation.metrics
    by_metric = {metric.name: evaluation.class_spreads(metric) for metric in metrics}
    return {
        "mean": _by_metric(evaluation.spread, metrics),
        "foreground": None
        if evaluation.foreground is None
        else _by_metric(evaluation.foreground_spread, metrics),
        "classes": {
            name: {metric: _plain_spread(spreads[name]) for metric, spreads in by_metric.items()}
            for name in evaluation.classes
        },
        "modalities": {
            name: _by_metric(part.spread, metrics) for name, part in evaluation.modality_parts.items()
        },
        "sites": {name: _by_metric(part.spread, metrics) for name, part in evaluation.site_parts.items()},
    }


def _by_metric(spread: Callable[[Metric], Spread], metrics: Sequence[Metric]) -> dict[str, object]:
    return {metric.name: _plain_spread(spread(metric)) for metric in metrics}


def _plain_spread(spread: Spread) -> dict[str, object]:
    return {"sd": _rounded(spread.deviation), "worst": _rounded(spread.worst), "case": spread.case}


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _plain_classes(by_class: Mapping[str, Scores], *, count: bool = True) -> dict[str, Mapping[str, object]]:
    return {
        name: {**_plain(scores), **({"n_cases": scores.n} if count else {})}
        for name, scores in by_class.items()
    }


def _plain(scores: Scores, prefix: str = "") -> dict[str, float | None]:
    return {prefix + name: _rounded(value) for name, value in scores.values.items()}


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
