"""The parts of a report that are about an experiment: its verdict, its designs, and where they differ."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autospine.core.errors import FormatError, counted
from autospine.evaluation.metrics import find_metrics
from autospine.report.charts import ChartInterval, ChartPoint, difference_plot, line_chart, strip_plot
from autospine.report.compared_models import ModelOfSeveral, case_figures, model_of_scores
from autospine.report.model_results import read_model_scores
from autospine.report.report_content import Fact, Guide, ReportCase, ReportFigure, ReportSection, ReportTable
from autospine.report.result_folder import number
from autospine.report.result_sections import UNKNOWN
from autospine.report.stored_shapes import StoredExperiment
from autospine.report.training_section import LEARNING_GUIDES, line_of, read_logs
from autospine.storage.file_names import path_below
from autospine.storage.serialization import read_json

EXPERIMENT = "experiment.json"
"""File of a finished experiment."""

READABLE_EXPERIMENT = 1
"""Version of it that can be read."""


def holds_experiment(folder: Path) -> bool:
    """Return whether a folder has a finished experiment."""
    return (folder / EXPERIMENT).is_file()


def read_experiment(folder: Path) -> StoredExperiment:
    """Read a finished experiment.

    Raises:
        FormatError: If it is damaged or of another version.
    """
    path = folder / EXPERIMENT
    content = read_json(path, StoredExperiment)
    again = "run the same `autospine experiment` again: it keeps what is trained and writes its files"
    if content.get("format_version") != READABLE_EXPERIMENT:
        raise FormatError(
            f"expected an experiment of format_version {READABLE_EXPERIMENT} in {path}, found "
            f"{content.get('format_version')}; {again}"
        )
    if not content["designs"]:
        raise FormatError(f"expected designs in {path}, found none; {again}")
    return content


def design_folder(folder: Path, experiment: StoredExperiment, design: str) -> Path:
    """Return the model folder of a design, that of its first seed."""
    seeds = experiment["protocol"].get("seeds") or [0]
    return path_below(folder, design) / f"seed_{seeds[0]}"


def designs_of(folder: Path, experiment: StoredExperiment) -> tuple[ModelOfSeveral, ...]:
    """Return the designs with the stored scores of all their seeds, the first being the baseline."""
    seeds = experiment["protocol"].get("seeds") or [0]
    models = []
    for name in experiment["designs"]:
        scores = [read_model_scores(path_below(folder, name) / f"seed_{seed}") for seed in seeds]
        models.append(model_of_scores(name, [content for content in scores if content]))
    return tuple(models)


def experiment_section(
    folder: Path, experiment: StoredExperiment, models: Sequence[ModelOfSeveral], cases: Sequence[ReportCase]
) -> ReportSection:
    """Return verdict, table and charts of an experiment.

    Args:
        folder: Its folder.
        experiment: Content of its file.
        models: Its designs.
        cases: Held-out cases of the first design.
    """
    designs: Mapping[str, Mapping[str, Any]] = experiment["designs"]
    figures = [_by_class(designs), *_losses(folder, experiment)]
    if len(models) > 1:
        figures = [_differences(designs), *_by_group(designs), *figures, *case_figures(cases, models)]
    return ReportSection(
        key="experiment",
        title="Experiment",
        notes=tuple(map(str, experiment["verdict"])),
        figures=tuple(figures),
        tables=(_table(designs),),
    )


def experiment_summary(experiment: StoredExperiment) -> Iterator[Fact]:
    """Yield what an experiment asks, and how it was trained."""
    protocol = experiment["protocol"]
    yield Fact(name="question", value=experiment["question"])
    yield Fact(
        name="dataset", value=f"{protocol.get('dataset')}, configuration {protocol.get('configuration')}"
    )
    steps, minutes = protocol.get("steps"), protocol.get("minutes")
    limit = f"{steps} steps each" if steps else f"{minutes} minutes for each design and seed"
    seeds, folds = protocol.get("seeds") or [], protocol.get("folds") or []
    trained = counted(len(experiment["designs"]), "design")
    yield Fact(
        name="trained",
        value=f"{trained}, {counted(len(seeds), 'seed')}, {counted(len(folds), 'fold')}, {limit}",
    )


def experiment_foot(experiment: StoredExperiment, dataset: Sequence[str]) -> Iterator[Fact]:
    """Yield the command that goes on with an experiment, and what it was made with.

    Args:
        experiment: Content of its file.
        dataset: Words of the command that name the dataset.
    """
    protocol, made = experiment["protocol"], experiment["made"]
    folds = list(map(str, protocol.get("folds") or ["all"]))
    words = ["autospine", "experiment", protocol.get("experiment"), *dataset]
    words += ["-c", protocol.get("configuration"), "--seeds", len(protocol.get("seeds") or [0])]
    words += ["--fold", folds[0] if len(folds) == 1 else "all"]
    limit = "steps" if protocol.get("steps") else "minutes"
    words += [f"--{limit}", protocol.get(limit)]
    yield Fact(name="experiment again", value=shlex.join(map(str, words)))
    yield Fact(name="made with", value=", ".join(f"{name} {value}" for name, value in made.items()))


def _table(designs: Mapping[str, Mapping[str, Any]]) -> ReportTable:
    metrics = find_metrics(list(next(iter(designs.values()))["scores"]))
    titles = [metric.title for metric in metrics]
    columns = (
        "design",
        "change",
        *titles,
        "difference in Dice",
        "95 % CI",
        "p",
        "s per step",
        "GB",
        "M weights",
    )
    rows = []
    for name, design in designs.items():
        found = _mean_difference(design)
        low, high = number(found.get("low")), number(found.get("high"))
        rows.append(
            (
                name,
                str(design.get("change", "")),
                *(_text(design["scores"].get(metric.name)) for metric in metrics),
                _text(found.get("difference"), "+.3f"),
                UNKNOWN if math.isnan(low) else f"{low:+.3f} to {high:+.3f}",
                _text(found.get("p_corrected")),
                _text(design.get("seconds_per_step"), ".3g"),
                _text(number(design.get("memory_bytes")) / 1e9, ".2f"),
                _text(number(design.get("parameters")) / 1e6, ".2f"),
            )
        )
    return ReportTable(
        title="Designs, the first being what the others are compared with",
        columns=columns,
        rows=tuple(rows),
        numeric=tuple(range(2, len(columns))),
        guide=Guide(
            shown="Mean scores of the held-out cases, the difference in Dice from the first design with its "
            "confidence interval of 95 % and the p value of Wilcoxon's signed-rank test, and what a step "
            "costs: its time, and its memory by estimate.",
            good="Differences whose interval does not contain 0: these are shown, the others may be chance.",
            action="Where every interval contains 0, train for longer, with more --seeds and on all folds, "
            "before you decide by such a table.",
        ),
    )


def _differences(designs: Mapping[str, Mapping[str, Any]]) -> ReportFigure:
    rows = {}
    for name, design in list(designs.items())[1:]:
        found = _mean_difference(design)
        rows[name] = ChartInterval(*(number(found.get(key)) for key in ("difference", "low", "high")))
    first = next(iter(designs))
    return ReportFigure(
        title=f"Difference in Dice from {first}",
        svg=difference_plot(rows, title=f"Difference in mean Dice from {first}, with the interval of 95 %"),
        guide=Guide(
            shown=f"The mean Dice of each design less that of {first}, and the confidence interval of 95 % "
            "over subjects.",
            good="An interval that lies on one side of 0: the design is then shown to be better (right) or "
            "worse (left).",
            action="Read the verdict: it says what each of them means for the mechanism that was changed.",
        ),
    )


def _by_group(designs: Mapping[str, Mapping[str, Any]]) -> Iterator[ReportFigure]:
    """Yield the chart of the differences in each group of cases, such as a modality, where they are known."""
    first, *others = designs
    rows = {
        f"{name}, {group}": ChartInterval(*(number(found.get(key)) for key in ("difference", "low", "high")))
        for name in others
        for group, found in (designs[name].get("differences_by_group") or {}).items()
    }
    if rows:
        yield ReportFigure(
            title=f"Difference in Dice from {first} in each group of cases",
            svg=difference_plot(rows, title=f"Difference in mean Dice from {first} by group of cases"),
            guide=Guide(
                shown=f"The mean Dice of each design less that of {first}, in the cases of each group, and "
                "the confidence interval of 95 % over their subjects.",
                good="The groups of a design lie alike: what is shown of all cases holds in each.",
                action="Where groups lie on different sides of 0, decide for each of them.",
            ),
        )


def _by_class(designs: Mapping[str, Mapping[str, Any]]) -> ReportFigure:
    strips = {
        name: [
            ChartPoint(name=label, x=number(value))
            for label, value in (design.get("dice_by_class") or {}).items()
        ]
        for name, design in designs.items()
    }
    return ReportFigure(
        title="Dice of each class with each design",
        svg=strip_plot(strips, title="Mean Dice of each class with each design", high=1.0),
        guide=Guide(
            shown="A point for each class, placed by its mean Dice over the held-out cases; the line is the "
            "median of the classes.",
            good="All classes of a design lie together, far to the right.",
            action="A class at 0 has collapsed: read its name at the point, and train longer or weigh the "
            "loss differently.",
        ),
    )


def _losses(folder: Path, experiment: StoredExperiment) -> Iterator[ReportFigure]:
    """Yield the loss of the first fold and seed of each design, where logs are there."""
    lines = {}
    for name in experiment["designs"]:
        if logs := read_logs(design_folder(folder, experiment, name)):
            lines[name] = line_of(next(iter(logs.values())), lambda row: row.get("loss"))
    if lines:
        svg = line_chart(lines, title="Training loss of each design", x_title="epoch", y_title="", low=0.0)
        guide = LEARNING_GUIDES["loss"]
        yield ReportFigure(
            title="Loss of each design",
            svg=svg,
            guide=Guide(
                shown="The loss of each design after every epoch, in the first fold and with the first seed.",
                good="All designs fall, fast at first, and level off.",
                action=guide.action,
            ),
        )


def _mean_difference(design: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the difference of a design in mean Dice; nothing for the first design."""
    for each in design.get("differences") or ():
        if each.get("metric") == "dice" and each.get("class") is None:
            found: Mapping[str, Any] = each
            return found
    return {}


def _text(value: object, form: str = ".3f") -> str:
    found = number(value)
    return UNKNOWN if math.isnan(found) else f"{found:{form}}"
