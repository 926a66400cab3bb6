"""Scores as plain values for JSON, as in `evaluation.json` and `cross_validation.json`."""

import math
from collections.abc import Callable, Mapping, Sequence

from autospine.evaluation.metrics import Metric
from autospine.evaluation.scores import Evaluation, MeanScores, Scores, Spread
from autospine.storage.file_names import escape_non_utf8


def describe_evaluation(evaluation: Evaluation) -> dict[str, object]:
    """Return the evaluation as plain values for JSON, undefined ones as None.

    Keys: `mean_METRIC` of each metric (mean over classes of the mean over cases), `foreground` (of all
    classes taken as one), `spread` (over the cases, with confidence intervals), `classes`, `modalities` and
    `sites` (the same with their own classes), `cases`, `confusion` and `found` (see `ClassNaming`),
    `missing`, `extra`, `failed`, `training_images` (cases that the model has learnt from).
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
        "failed": {case: escape_non_utf8(reason) for case, reason in evaluation.failed.items()},
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
    low, high = spread.interval
    return {
        "interval": None if math.isnan(low) else [_rounded(low), _rounded(high)],
        "sd": _rounded(spread.deviation),
        "worst": _rounded(spread.worst),
        "case": spread.case,
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _plain_classes(by_class: Mapping[str, Scores], *, count: bool = True) -> dict[str, Mapping[str, object]]:
    return {
        name: {**_plain(scores), **({"n_cases": scores.n} if count else {})}
        for name, scores in by_class.items()
    }


def _plain(scores: Scores, prefix: str = "") -> dict[str, float | None]:
    return {prefix + name: _rounded(value) for name, value in scores.values.items()}
