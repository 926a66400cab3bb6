"""What an experiment found: the scores of each design over all seeds and folds, and the differences."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any, Literal

import numpy as np

from autospine.evaluation.boundary_errors import EDGES_MM, BoundaryErrors
from autospine.evaluation.intervals import Interval, mean_interval
from autospine.evaluation.metrics import Metric, find_metrics
from autospine.evaluation.paired_comparison import PairedDifference, ScoreMatrix, paired_differences
from autospine.evaluation.scores import Evaluation, mean_scores
from autospine.pipeline.experiments.variants import ComparedDesign

METRICS = find_metrics(["dice", "recall", "boundary_dice_2mm"])
"""Metrics of every experiment; verdicts are given by the first, and say the last beside it."""

DICE, RECALL, BOUNDARY = METRICS

Grouping = Literal["modality", "site"]
"""Fact by which cases are parted into groups."""

COLLAPSED_RECALL = 0.01
"""Recall below which a class that occurs has not been learnt in any held-out case."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantResult:
    """The trained models of one design."""

    variant: ComparedDesign
    evaluations: tuple[Evaluation, ...]
    """Scores over the held-out cases of all folds, one for each seed."""

    parameters: int
    """Number of weights."""

    seconds_per_step: float
    """Median over the epochs of all trainings, with the making of patches; a pause of the machine does not
    count."""

    memory_bytes: int
    """Estimated peak memory of a training step."""

    loss: float
    """Training loss of the last epoch, mean over all trainings."""

    readings: Mapping[str, Any]
    """Readings of the mechanisms in the last epochs: `gamma` of each stage and `fusion_weights`, means over
    all trainings; a network without a mechanism lacks the key."""

    boundaries: tuple[tuple[str, BoundaryErrors], ...] = ()
    """Subject, and errors by distance and contrast, of each case of each seed; empty if not counted."""

    @property
    def scores(self) -> dict[str, float]:
        """Mean of each metric over the seeds: the mean over classes of the mean over cases."""
        each = [evaluation.total.mean.values for evaluation in self.evaluations]
        return {metric.name: mean(values[metric.name] for values in each) for metric in METRICS}

    @property
    def class_dice(self) -> dict[str, float]:
        """Mean Dice of each class over cases and seeds; NaN if it occurs nowhere."""
        by_class = [evaluation.total.by_class for evaluation in self.evaluations]
        names = self.evaluations[0].classes
        return {name: mean_scores([each[name] for each in by_class], METRICS).dice for name in names}

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Classes that occur and were found in no held-out case of a seed."""
        return tuple(
            name
            for name in self.evaluations[0].classes
            if any(self._is_lost(evaluation, name) for evaluation in self.evaluations)
        )

    def matrix(self, metric: Metric) -> ScoreMatrix:
        """Return the value of a metric in each case, the cases of all seeds one below the other."""
        rows = [case.values(metric) for evaluation in self.evaluations for case in evaluation.cases]
        return np.asarray(rows, dtype=np.float64)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subject of each row of `matrix`."""
        return tuple(
            case.subject or case.case for evaluation in self.evaluations for case in evaluation.cases
        )

    def within(self, grouping: Grouping, group: str) -> "VariantResult":
        """Return the results on the cases of one modality or site alone."""
        kept = tuple(
            replace(each, cases=tuple(case for case in each.cases if getattr(case, grouping) == group))
            for each in self.evaluations
        )
        return replace(self, evaluations=kept)

    @staticmethod
    def _is_lost(evaluation: Evaluation, name: str) -> bool:
        recall = [case.by_class[name].recall for case in evaluation.cases]
        known = [value for value in recall if not math.isnan(value)]
        return bool(known) and max(known) < COLLAPSED_RECALL


def differences_from(
    baseline: VariantResult, results: Sequence[VariantResult]
) -> dict[str, tuple[PairedDifference, ...]]:
    """Return how each other design differs from the first one, metric by metric, classes before the mean.

    Cases are paired by case and seed. Those of one subject count as one, whatever their seeds, so that the
    interval is that of other subjects.
    """
    return {
        result.variant.name: tuple(
            difference
            for metric in METRICS
            for difference in paired_differences(
                baseline.evaluations[0].classes,
                metric,
                result.matrix(metric),
                baseline.matrix(metric),
                baseline.subjects,
            )
        )
        for result in results
        if result is not baseline
    }


def of_means(differences: Sequence[PairedDifference], metric: Metric) -> PairedDifference:
    """Return the difference of the mean over the classes in one metric."""
    (found,) = (each for each in differences if each.metric == metric.name and each.of == "mean")
    return found


def group_differences(
    results: Sequence[VariantResult], grouping: Grouping
) -> dict[str, dict[str, PairedDifference]]:
    """Return how the mean Dice of each other design differs from the first one's in each group of cases."""
    cases = results[0].evaluations[0].cases
    names = sorted({name for case in cases if (name := getattr(case, grouping)) is not None})
    found = {}
    for name in names:
        parts = [result.within(grouping, name) for result in results]
        differences = differences_from(parts[0], parts)
        found[name] = {design: of_means(differences[design], DICE) for design in differences}
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundaryFinding:
    """Errors of one design at true boundaries: means over cases and seeds, as shares of the voxels there."""

    rates: tuple[float, ...]
    """Share of wrong voxels in each band of `EDGES_MM`; NaN where no case has such voxels."""

    blurred: float
    """Near the quarter of each case's boundary with the least contrast."""

    sharp: float
    """Near the rest of it."""

    blurred_difference: float
    """Errors that the first design has less near blurred boundaries; above zero, the first one is better."""

    blurred_interval: Interval
    """Confidence interval of that difference."""


def boundary_findings(results: Sequence[VariantResult]) -> dict[str, BoundaryFinding]:
    """Return the errors of each design at boundaries, and how they differ from those of the first."""
    baseline = np.asarray([[errors.blurred_rate] for _, errors in results[0].boundaries])
    subjects = [subject for subject, _ in results[0].boundaries]
    found = {}
    for result in results:
        errors = [each for _, each in result.boundaries]
        blurred = np.asarray([[each.blurred_rate] for each in errors])
        found[result.variant.name] = BoundaryFinding(
            rates=tuple(_mean(each.rates[band] for each in errors) for band in range(len(EDGES_MM))),
            blurred=_mean(blurred[:, 0].tolist()),
            sharp=_mean(each.sharp_rate for each in errors),
            blurred_difference=_mean((blurred - baseline)[:, 0].tolist()),
            blurred_interval=mean_interval(blurred - baseline, subjects),
        )
    return found


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return mean(known) if known else math.nan
