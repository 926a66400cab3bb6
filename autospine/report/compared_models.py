"""Models that were scored on the same held-out cases: where they differ, case by case."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autospine.report.charts import ChartInterval, ChartPoint, strip_plot
from autospine.report.report_content import Fact, Guide, ReportCase, ReportFigure
from autospine.report.result_folder import number

BETTER_BY = 0.05
"""Least difference in Dice that a case mentions of another model that is better there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOfSeveral:
    """One of several models, with its scores."""

    name: str
    cases: Mapping[str, float]
    """Mean Dice of each held-out case over its classes; NaN where no class occurs. Empty if they are not
    known."""

    mean: ChartInterval
    """Mean Dice over all, with its confidence interval."""


def model_of_scores(name: str, scores: Sequence[Mapping[str, Any]]) -> ModelOfSeveral:
    """Return a model by its scores.

    Args:
        name: Name that it is shown by.
        scores: Contents of its `cross_validation.json`, of each seed one; several are averaged, and then
            there is no interval.
    """
    found: dict[str, list[float]] = {}
    for content in scores:
        for case, values in content.get("cases", {}).items():
            found.setdefault(case, []).append(number(values.get("mean_dice")))
    means = [number(content.get("mean_dice")) for content in scores]
    mean, low, high = sum(means) / len(means) if means else math.nan, math.nan, math.nan
    if len(scores) == 1:
        spread = ((scores[0].get("spread") or {}).get("mean") or {}).get("dice") or {}
        low, high = map(number, spread.get("interval") or (None, None))
    return ModelOfSeveral(
        name=name,
        cases={case: sum(values) / len(values) for case, values in found.items()},
        mean=ChartInterval(mean, low, high),
    )


def with_other_models(
    cases: Sequence[ReportCase], models: Sequence[ModelOfSeveral]
) -> tuple[ReportCase, ...]:
    """Return cases that say what each model's Dice is there, and which one is better than the first.

    Args:
        cases: Cases of the first model.
        models: All models.
    """
    return tuple(_with_others(case, models) for case in cases)


def case_figures(cases: Sequence[ReportCase], models: Sequence[ModelOfSeveral]) -> Iterator[ReportFigure]:
    """Yield the charts whose points open their case: Dice of each model, and differences from the first.

    Args:
        cases: Cases of the report.
        models: Models, the first being what the others are compared with.
    """
    known = [model for model in models if model.cases]
    first, others = models[0], [model for model in known if model is not models[0]]
    if not known:
        return
    places = {case.name: i for i, case in enumerate(cases)}
    yield ReportFigure(
        title="Dice of each case with each model",
        svg=strip_plot(
            {model.name: _points(model.cases, places) for model in known},
            title="Mean Dice of each case over its classes, with each model",
            high=1.0,
        ),
        guide=Guide(
            shown="A point for each held-out case, placed by its mean Dice over the classes; the line is the "
            "median. A point opens its case.",
            good="All points of a model lie far to the right, and none alone at the left.",
            action="Open the points at the left: a case that is bad with every model has odd labels or an "
            "odd image, one that is bad with a single model shows what this model cannot do.",
        ),
    )
    if not first.cases or not others:
        return
    differences = {
        model.name: _points(
            {case: dice - first.cases.get(case, math.nan) for case, dice in model.cases.items()}, places
        )
        for model in others
    }
    yield ReportFigure(
        title=f"Difference from {first.name} in each case",
        svg=strip_plot(differences, title=f"Difference in Dice from {first.name} in each case", low=None),
        guide=Guide(
            shown=f"A point for each held-out case: the Dice of a model less that of {first.name}; the line "
            "is the median. A point opens its case.",
            good="Points left of 0 throughout: the first is then better in every case, and not on average "
            "alone.",
            action="Open points far to the right: there another model is better. Where these cases have a "
            "modality or a site in common, look at the means of that group before you choose.",
        ),
    )


def _with_others(case: ReportCase, models: Sequence[ModelOfSeveral]) -> ReportCase:
    dice = {model.name: model.cases.get(case.name, math.nan) for model in models}
    facts = [
        Fact(name=f"Dice of {name}", value=f"{value:.3f}")
        for name, value in dice.items()
        if math.isfinite(value)
    ]
    own = dice[models[0].name]
    better = {name: value for name, value in dice.items() if value > own + BETTER_BY}
    findings = case.findings
    if better:
        best = max(better, key=lambda name: better[name])
        findings = (
            *findings,
            f"{best} is better here: Dice {better[best]:.3f} instead of {own:.3f} of {models[0].name}",
        )
    return replace(case, facts=(*facts, *case.facts), findings=findings)


def _points(values: Mapping[str, float], places: Mapping[str, int]) -> list[ChartPoint]:
    return [ChartPoint(name=case, x=value, case=places.get(case)) for case, value in values.items()]
