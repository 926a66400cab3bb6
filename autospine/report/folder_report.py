"""The report of a folder: `report.html` in it, of whatever the folder has."""

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from autospine import __version__
from autospine.cluster.executor import Executor
from autospine.core.errors import WorkspaceError, counted
from autospine.dataset.excluded_cases import read_excluded
from autospine.evaluation.metrics import DEFAULT_METRICS
from autospine.fingerprint.facts import read_fingerprint
from autospine.plan import Plan
from autospine.report.compared_models import with_other_models
from autospine.report.comparison_section import (
    candidate_folder,
    compared_models,
    comparison_facts,
    comparison_section,
    holds_comparison,
    read_comparison,
)
from autospine.report.difference_section import difference_sections
from autospine.report.experiment_section import (
    design_folder,
    designs_of,
    experiment_foot,
    experiment_section,
    experiment_summary,
    holds_experiment,
    read_experiment,
)
from autospine.report.measurement_section import (
    MEASUREMENT_GUIDE,
    add_measurements,
    holds_measurements,
    measured_cases,
    measured_summary,
    measurement_section,
    read_measured,
)
from autospine.report.model_results import find_location, holds_model, read_model_results
from autospine.report.naming_section import naming_section
from autospine.report.origin_facts import (
    dataset_words,
    plan_facts,
    planned_location,
    prediction_facts,
    training_facts,
)
from autospine.report.plan_section import dataset_section, plan_section
from autospine.report.report_content import Fact, ReportCase, ReportContent, ReportSection
from autospine.report.report_page import write_page
from autospine.report.result_folder import ResultFolder, holds_results, number, read_results
from autospine.report.result_report import indices_of, legend_of, metrics_of, result_cases
from autospine.report.result_sections import LEARNT, prediction_section, score_section
from autospine.report.training_section import read_logs, short_training_fact, training_section
from autospine.storage.atomic import check_writable
from autospine.storage.serialization import read_json
from autospine.storage.trained_models import PLAN, fold_names, unfinished_folds
from autospine.storage.workspace import DatasetLocation

REPORT = "report.html"
"""File of the report."""


FINGERPRINT = "fingerprint.json"
"""File of the measurements beside the plan of a dataset."""


DrawnCases = Callable[[ResultFolder], tuple[ReportCase, ...]]
"""Returns the cases of a folder with their pictures."""


def write_report(
    folder: Path,
    output: Path | None = None,
    *,
    most_pictured: int | None = None,
    cluster: Executor | None = None,
) -> Path:
    """Write the report of a folder of predictions or scores, of measurements, of a model or a comparison of
    models, of an experiment, or of a plan.

    Args:
        folder: The folder.
        output: File of the page, or a folder for its `report.html`; by default the folder of the results.
        most_pictured: Most cases whose pictures are drawn, the worst first; None for all.
        cluster: Draws the pictures instead of this process.

    Returns:
        Path of the page.

    Raises:
        WorkspaceError: If the folder has nothing to report on, or the page cannot be written.
        FormatError: If a file in it is damaged or of another version.
    """
    path = output or folder / REPORT
    path = path / REPORT if path.is_dir() else path
    reporter = _reporter(folder)
    draw = partial(result_cases, most_pictured=most_pictured, cluster=cluster)
    check_writable(path.parent)
    write_page(path, reporter(folder, draw))
    return path


def _reporter(folder: Path) -> Callable[[Path, DrawnCases], ReportContent]:
    """Return what makes the report of a folder of this kind."""
    if holds_results(folder):
        return _result_report
    if holds_model(folder):
        return _model_report
    if holds_measurements(folder):
        return _measurement_report
    if holds_comparison(folder):
        return _comparison_report
    if holds_experiment(folder):
        return _experiment_report
    if (folder / PLAN).is_file() or (folder / FINGERPRINT).is_file():
        return _plan_report
    raise WorkspaceError(
        "expected a folder of predictions, scores or measurements, of a model, a comparison, an experiment "
        "or a plan, found none of predictions.json, evaluation.json, CASE_measurements.json, plan.json, "
        f"best.json, experiment.json and fingerprint.json in {folder}; name another folder"
    )


def _result_report(folder: Path, draw: DrawnCases) -> ReportContent:
    results, measured = read_results(folder), read_measured(folder)
    cases = add_measurements(draw(results), folder, measured)
    sections = _there(
        _scores(results, cases),
        *difference_sections(folder),
        naming_section(cases),
        measurement_section(cases, measured),
        prediction_section(results, cases),
    )
    what = "Evaluation" if results.scores else "Predictions"
    foot = (*prediction_facts(results.record), *_evaluation_command(results))
    return _content(what, folder, sections, results=results, cases=cases, foot=foot)


def _model_report(folder: Path, draw: DrawnCases) -> ReportContent:
    results, logs = read_model_results(folder), read_logs(folder)
    cases = draw(results)
    training = training_section(logs) if logs else None
    sections = _there(_scores(results, cases), training, _planned(folder))
    summary = [Fact(name="complete folds", value=_folds(fold_names(folder)))]
    if begun := unfinished_folds(folder):
        summary.append(Fact(name="unfinished folds", value=_folds(begun)))
    complete = {name: rows for name, rows in logs.items() if name in fold_names(folder)}
    if short := short_training_fact(complete, read_json(folder / PLAN, Plan).configurations[0].training):
        summary.append(short)
    foot = tuple(training_facts(folder, results.scores, logs))
    return _content("Model", folder, sections, results=results, cases=cases, summary=summary, foot=foot)


def _comparison_report(folder: Path, draw: DrawnCases) -> ReportContent:
    """Report on a comparison, with the held-out cases of the best model."""
    best = read_comparison(folder)
    models = compared_models(folder, best)
    results = read_model_results(candidate_folder(folder, best.candidates[0]))
    cases = with_other_models(draw(results), models)
    sections = _there(comparison_section(best, models, cases), _scores(results, cases))
    summary = comparison_facts(best)
    again = shlex.join(("autospine", "compare", *_dataset_words(folder, best.dataset)))
    foot = (Fact(name="comparison again", value=again),)
    return _content(
        "Comparison", folder, sections, results=results, cases=cases, summary=tuple(summary), foot=foot
    )


def _experiment_report(folder: Path, draw: DrawnCases) -> ReportContent:
    """Report on an experiment, with the held-out cases of its first design."""
    experiment = read_experiment(folder)
    models = designs_of(folder, experiment)
    results = read_model_results(design_folder(folder, experiment, models[0].name))
    cases = with_other_models(draw(results), models)
    sections = _there(experiment_section(folder, experiment, models, cases), _scores(results, cases))
    dataset = _dataset_words(folder, str(experiment["protocol"].get("dataset")))
    summary, foot = tuple(experiment_summary(experiment)), tuple(experiment_foot(experiment, dataset))
    return _content("Experiment", folder, sections, results=results, cases=cases, summary=summary, foot=foot)


def _dataset_words(folder: Path, name: str) -> tuple[str, ...]:
    """Return the words of a command that name the dataset of a folder, if that is known from anywhere."""
    location = find_location(folder)
    return ("-d", name) if location is None else dataset_words(location)


def _measurement_report(folder: Path, draw: DrawnCases) -> ReportContent:
    """Report on measured spines, whatever their number: their figures are there already."""
    measured = read_measured(folder)
    cases = measured_cases(folder, measured)
    sections = _there(measurement_section(cases, measured), naming_section(cases))
    content = _content("Measurements", folder, sections, cases=cases, summary=measured_summary(cases))
    return replace(content, case_guide=MEASUREMENT_GUIDE)


def _plan_report(folder: Path, draw: DrawnCases) -> ReportContent:
    path, location = folder / FINGERPRINT, planned_location(folder)
    excluded = {} if location is None else read_excluded(location.raw)
    measured = dataset_section(read_fingerprint(path), excluded) if path.is_file() else None
    sections, foot = _there(measured, _planned(folder)), tuple(plan_facts(location))
    return _content("Plan", folder, sections, summary=tuple(_recommended(folder, location)), foot=foot)


def _recommended(folder: Path, location: DatasetLocation | None) -> Iterator[Fact]:
    """Yield which configuration a plan recommends and why, and the command that goes on."""
    dataset = ("-d", "DATASET") if location is None else dataset_words(location)
    if not (folder / PLAN).is_file():
        yield Fact(name="plan", value="none yet")
        yield Fact(name="next", value=shlex.join(("autospine", "plan-and-preprocess", *dataset)))
        return
    plan = read_json(folder / PLAN, Plan)
    why = next((each.reason for each in plan.rationale if each.name == "configuration 0"), "")
    yield Fact(name="recommended", value=plan.configurations[0].name, reason=why)
    yield Fact(name="next", value=shlex.join(("autospine", "train", "0", *dataset, "--fold", "all")))


def _planned(folder: Path) -> ReportSection | None:
    path = folder / PLAN
    return plan_section(read_json(path, Plan)) if path.is_file() else None


def _scores(results: ResultFolder, cases: Sequence[ReportCase]) -> ReportSection | None:
    metrics = metrics_of(results.scores)
    return score_section(results.scores, cases, metrics) if metrics else None


def _there(*sections: ReportSection | None) -> list[ReportSection]:
    """Return the sections that have something to show."""
    return [section for section in sections if section is not None]


def _content(
    what: str,
    folder: Path,
    sections: Sequence[ReportSection],
    *,
    results: ResultFolder | None = None,
    cases: Sequence[ReportCase] = (),
    summary: Sequence[Fact] = (),
    foot: Sequence[Fact] = (),
) -> ReportContent:
    """Return the page of a folder.

    Args:
        what: What the folder holds.
        folder: The folder.
        sections: Parts of the page below the cases.
        results: Scores and files of the cases; None for a folder without cases.
        cases: Cases, the worst first.
        summary: First lines of the summary.
        foot: First lines of the foot.
    """
    place = folder.resolve()
    metrics = () if results is None else metrics_of(results.scores)
    return ReportContent(
        title=f"{what}: {place.parent.name + ', ' if what == 'Model' else ''}{place.name}",
        folder=str(place),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        cases=tuple(cases),
        metric=metrics[0].title if metrics else "",
        higher_is_better=not metrics or metrics[0].higher_is_better,
        legend=() if results is None else legend_of(results),
        indices=() if results is None else indices_of(results),
        exclusion="" if results is None else _exclusion(place, results),
        repetition="" if results is None or results.scores.get("folds") else _repetition(results),
        summary=(*summary, *(() if results is None else _summary(results, cases))),
        sections=tuple(sections),
        foot=(
            *foot,
            Fact(name="this page again", value=shlex.join(("autospine", "report", str(place)))),
            Fact(name="written by", value=f"AutoSpine {__version__}"),
        ),
    )


def _exclusion(folder: Path, results: ResultFolder) -> str:
    """Return the command that leaves marked cases out of the training of a folder or its images."""
    labelled = dict.fromkeys(path.parent for path in results.references.values())
    places = dict.fromkeys((folder, *labelled, *_image_folders(results)))
    location = next(filter(None, map(find_location, places)), None)
    which = ["-d", "DATASET"]
    if location is not None:
        which = ["-d", location.name, "-w", str(location.workspace.root)]
    return shlex.join(("autospine", "dataset", "exclude", *which, "--marks", "marks.json"))


def _repetition(results: ResultFolder) -> str:
    """Return the command that predicts failed cases again, from the folder of their images if it is one."""
    folders = _image_folders(results)
    images = str(folders[0]) if len(folders) == 1 else "IMAGES"
    words = ("-i", images, "-o", "OTHER_FOLDER", "-m", "OTHER_MODEL", "--only-failed", "marks.json")
    return shlex.join(("autospine", "predict", *words))


def _image_folders(results: ResultFolder) -> tuple[Path, ...]:
    """Return the folders that the images lie in."""
    return tuple(dict.fromkeys(path.parent for files in results.images.values() for path in files))


def _folds(names: Sequence[str]) -> str:
    """Return how many folds these are, and which."""
    return f"{len(names)}: {'fold' if len(names) == 1 else 'folds'} {', '.join(names)}" if names else "none"


def _summary(results: ResultFolder, cases: Sequence[ReportCase]) -> Iterator[Fact]:
    if not cases:
        yield Fact(name="cases", value="none", reason="no case is predicted or scored yet")
        return
    counts = Counter(case.status for case in cases)
    yield Fact(name="cases", value=", ".join(f"{n} {status}" for status, n in counts.items()))
    metrics = metrics_of(results.scores)
    spread = (results.scores.get("spread") or {}).get("mean") or {}
    for metric in metrics:
        value = number(results.scores.get(f"mean_{metric.name}"))
        interval = (spread.get(metric.name) or {}).get("interval")
        if math.isfinite(value):
            sure = f"95 % confidence interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
            unit = f" {metric.unit}" if metric.unit else ""
            yield Fact(name=f"mean {metric.title}", value=f"{value:.3f}{unit}", reason=sure)
    if learnt := results.scores.get("training_images"):
        these = f"{len(learnt)} of these cases"
        yield Fact(name="the model has learnt from", value=these, reason=LEARNT)
    worst = next((case for case in cases if case.score is not None), None)
    if worst is not None and metrics:
        why = worst.findings[0] if worst.findings else ""
        yield Fact(name="worst case", value=f"{worst.name}, {metrics[0].title} {worst.score:.3f}", reason=why)
    if unnamed := sum(entry.naming_error is not None for entry in results.record.values()):
        yield Fact(name="names", value=f"the vertebrae of {counted(unnamed, 'case')} could not be named")
    if warned := sum(bool(entry.warnings) for entry in results.record.values()):
        yield Fact(name="warnings", value=f"{counted(warned, 'case')} with warnings")
    if results.outdated:
        yield Fact(
            name="not up to date",
            value="label maps were predicted after they were scored: run `autospine evaluate` again",
        )
    for each in results.unread:
        yield Fact(name="not read", value=each)


def _evaluation_command(results: ResultFolder) -> Iterator[Fact]:
    if compared := results.scores.get("compared"):
        words = ["autospine", "evaluate", compared["predictions"], compared["references"]]
        metrics = metrics_of(results.scores)
        if metrics != DEFAULT_METRICS:
            words += [word for metric in metrics for word in ("--metric", metric.name)]
        words += ["--resample"] if compared.get("resampled") else []
        if results.folder.resolve() != Path(compared["predictions"]).resolve():
            words += ["-o", str(results.folder.resolve())]
        yield Fact(name="scores again", value=shlex.join(words))
