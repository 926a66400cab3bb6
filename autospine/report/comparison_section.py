"""The part of a report that is about a comparison of a dataset's models: `best.json` and its candidates."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from autospine.core.errors import counted
from autospine.evaluation.paired_tests import FEWEST, SIGNIFICANT
from autospine.models.best import BEST, Best, Candidate
from autospine.report.charts import interval_plot
from autospine.report.compared_models import ModelOfSeveral, case_figures, model_of_scores
from autospine.report.model_results import read_model_scores
from autospine.report.report_content import Fact, Guide, ReportCase, ReportFigure, ReportSection, ReportTable
from autospine.report.result_sections import UNKNOWN
from autospine.storage.file_names import path_below
from autospine.storage.serialization import read_json
from autospine.storage.trained_models import ENSEMBLES
from autospine.system.hardware import GIB

CHANGED = 1e-4
"""Least difference between the Dice of a comparison and that of a model's scores that is mentioned."""


def holds_comparison(folder: Path) -> bool:
    """Return whether a folder has the result of a comparison of models."""
    return (folder / BEST).is_file()


def read_comparison(folder: Path) -> Best:
    """Read the result of a comparison.

    Raises:
        FormatError: If it is damaged or of another version.
    """
    return read_json(folder / BEST, Best)


def candidate_folder(results: Path, candidate: Candidate) -> Path:
    """Return the folder of a candidate's scores and held-out predictions: a model's, or an ensemble's."""
    if len(candidate.members) == 1:
        return path_below(results, candidate.members[0])
    return path_below(results / ENSEMBLES, "+".join(sorted(candidate.members)))


def compared_models(results: Path, best: Best) -> tuple[ModelOfSeveral, ...]:
    """Return the candidates with their scores, the best first; those that have gone have a mean alone."""
    models = []
    for candidate in best.candidates:
        scores = read_model_scores(candidate_folder(results, candidate))
        model = model_of_scores(candidate.name, [scores] if scores else [])
        if candidate.dice is not None and abs(model.mean.value - candidate.dice) < CHANGED:
            models.append(model)
        else:  # it was trained or scored again since, so that its cases are not those of the comparison
            mean = model.mean._replace(value=candidate.dice or math.nan, low=math.nan, high=math.nan)
            models.append(ModelOfSeveral(name=candidate.name, cases={}, mean=mean))
    return tuple(models)


def comparison_section(
    best: Best, models: Sequence[ModelOfSeveral], cases: Sequence[ReportCase]
) -> ReportSection:
    """Return the models that were compared, with their intervals and tests, and where they differ.

    Args:
        best: Result of the comparison.
        models: Its candidates, the best first.
        cases: Cases of the report.
    """
    return ReportSection(
        key="comparison",
        title="Comparison",
        notes=tuple(_sentences(best, models)),
        figures=(_means(models), *case_figures(cases, models)),
        tables=(_table(best, models),),
    )


def comparison_facts(best: Best) -> Iterator[Fact]:
    """Yield what a comparison says, for the summary of the page."""
    first = best.candidates[0]
    dice = "no Dice" if first.dice is None else f"mean Dice {first.dice:.3f}"
    yield Fact(
        name="best",
        value=first.name,
        reason=f"{dice} over {counted(best.n_cases, 'held-out case')}, of {len(best.candidates)} compared",
    )
    yield Fact(name="predict with it", value=best.command)


def _sentences(best: Best, models: Sequence[ModelOfSeveral]) -> Iterator[str]:
    """Yield what the tests show, and what the numbers are not enough for."""
    first, *others = best.candidates
    tested = [each for each in others if each.p_value is not None]
    shown = [each.name for each in tested if (each.p_value or 0.0) < SIGNIFICANT]
    open_still = [f"{each.name} (p = {each.p_value:.2g})" for each in tested if each.name not in shown]
    if shown:
        yield f"{first.name} is shown to be better than {' and '.join(shown)}."
    if open_still:
        yield f"{first.name} is not shown to be better than {' and '.join(open_still)}: it may be chance."
    if tested and best.n_cases < FEWEST:
        yield (
            f"{best.n_cases} cases are too few for any difference to be shown: it takes {FEWEST} subjects at "
            "the least."
        )
    if gone := [model.name for model in models if not model.cases]:
        yield (
            f"The scores of {' and '.join(gone)} are not those of the comparison any more: run "
            f"`autospine compare -d {best.dataset}` again."
        )


def _means(models: Sequence[ModelOfSeveral]) -> ReportFigure:
    return ReportFigure(
        title="Mean Dice with its confidence interval",
        svg=interval_plot(
            {model.name: model.mean for model in models},
            title="Mean Dice of each model with the confidence interval of 95 %",
        ),
        guide=Guide(
            shown="The mean Dice of each model over the held-out cases, and the confidence interval of 95 %, "
            "over resampled subjects.",
            good="A short interval, and one at the top that lies right of the others.",
            action="Intervals that overlap decide nothing by themselves, since all models are bad at the "
            "same hard cases: the p value, which compares case by case, does. Of models that are alike "
            "take the faster one.",
        ),
    )


def _table(best: Best, models: Sequence[ModelOfSeveral]) -> ReportTable:
    modalities = sorted({name for candidate in best.candidates for name in candidate.modality_dice})
    modalities = modalities if len(modalities) > 1 else []  # a single one would repeat the total
    columns = ("model", "Dice", "95 % CI", "p", "post-processed", *modalities, "minutes", "M weights", "GiB")
    rows = []
    for candidate, model in zip(best.candidates, models, strict=True):
        low, high = model.mean.low, model.mean.high
        rows.append(
            (
                candidate.name,
                _text(candidate.dice),
                UNKNOWN if math.isnan(low) else f"{low:.3f} to {high:.3f}",
                _text(candidate.p_value),
                _text(candidate.cleaned_dice),
                *(_text(candidate.modality_dice.get(name)) for name in modalities),
                f"{candidate.minutes:.1f}",
                f"{candidate.parameters / 1e6:.2f}",
                f"{candidate.memory_bytes / GIB:.2f}",
            )
        )
    return ReportTable(
        title="Models, the best first",
        columns=columns,
        rows=tuple(rows),
        numeric=tuple(range(1, len(columns))),
        guide=Guide(
            shown="Each model, and each two together: mean Dice, its confidence interval, the p value of "
            "Wilcoxon's signed-rank test against the first (after Holm's correction), Dice after the "
            "post-processing that the other folds choose, minutes of training, millions of weights, and "
            "memory of a training step.",
            good=f"A first model whose others all have a p below {SIGNIFICANT}.",
            action="Where p is larger, take the model that costs least, or evaluate more cases. "
            "`autospine predict` takes the first one by itself.",
        ),
    )


def _text(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"
