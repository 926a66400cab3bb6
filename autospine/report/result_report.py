"""The report of a folder of predictions, scores, or both."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from autospine.cluster.executor import Executor, Lost, Task
from autospine.cluster.this_machine import WorkerProcesses
from autospine.core.colours import class_colours
from autospine.core.errors import EvaluationError, counted
from autospine.core.types import Modality
from autospine.evaluation.metrics import Metric, find_metrics
from autospine.evaluation.postprocessing import in_ml
from autospine.prediction.case_log import PredictedCase
from autospine.report.case_findings import describe_worst_place, find_faults
from autospine.report.case_views import CaseMaps, close_ups, middle_views
from autospine.report.case_volumes import reduce_volumes, volume_budget
from autospine.report.picture_layers import PictureLayers, colour_code, draw_layers
from autospine.report.report_content import Fact, ReportCase
from autospine.report.result_folder import ResultFolder, number
from autospine.report.vertebra_names import name_findings, named_vertebrae, names_table
from autospine.report.views import index_names, stored_behind
from autospine.report.worst_place import WorstPlace, find_worst_place
from autospine.storage.file_names import same_name
from autospine.system.log import progress

MEAN = "mean_"
"""Beginning of the keys of means over the classes."""


def metrics_of(scores: Mapping[str, Any]) -> tuple[Metric, ...]:
    """Return the metrics of stored scores that are known here, in their order."""
    return tuple(
        metric for key in scores if key.startswith(MEAN) for metric in _found(key.removeprefix(MEAN))
    )


def result_cases(
    results: ResultFolder, most_pictured: int | None = None, cluster: Executor | None = None
) -> tuple[ReportCase, ...]:
    """Return the cases of a folder with their pictures, the worst first.

    Cases that have failed or have no prediction come first, those without a score last.

    Args:
        results: What the folder has of its cases.
        most_pictured: Most cases whose pictures are drawn, the worst first; None for all.
        cluster: Draws the pictures instead of this process.
    """
    metrics = metrics_of(results.scores)
    better = metrics[0].higher_is_better if metrics else True
    known = [_case(name, results, metrics) for name in results.case_names]

    def badness(case: ReportCase) -> tuple[int, float, str]:
        """Return the key by which cases are sorted, the worst first: their group, score and name."""
        if case.status in ("failed", "no prediction"):
            return 0, 0.0, case.name
        if case.score is None:
            return 2, 0.0, case.name
        return 1, case.score if better else -case.score, case.name

    known.sort(key=badness)
    most = len(known) if most_pictured is None else most_pictured
    budget = volume_budget(min(most, len(known)))
    drawn = _with_pictures(known[:most], results, budget, cluster or WorkerProcesses(1))
    note = f"not drawn, as pictures are of the worst {most} cases: `autospine report` draws all"
    return (*drawn, *(replace(case, findings=(*case.findings, note)) for case in known[most:]))


def _with_pictures(
    cases: Sequence[ReportCase], results: ResultFolder, budget: int, executor: Executor
) -> list[ReportCase]:
    """Return cases with their pictures; one whose process was killed says so instead."""
    drawn: dict[str, ReportCase] = {}
    tasks = [Task(name=case.name, argument=(case, results.of_case(case.name))) for case in cases]
    with progress("drawing the report", len(tasks)) as meter:
        for task, outcome in executor.run(partial(_pictured, budget=budget), tasks):
            if isinstance(outcome, Lost):
                why, (case, _) = f"its pictures could not be drawn: {outcome.reason}", task.argument
                outcome = replace(case, findings=(why, *case.findings))
            drawn[task.name] = outcome
            meter.advance()
    return [drawn[case.name] for case in cases]


def legend_of(results: ResultFolder) -> tuple[tuple[str, str], ...]:
    """Return the name and the colour of each class, as `#rrggbb`."""
    if results.labels is None:
        return ()
    names = index_names(results.labels)
    colours = class_colours(list(dict.fromkeys(names)))
    return tuple((name, colour_code(colour)) for name, colour in colours.items())


def indices_of(results: ResultFolder) -> tuple[tuple[str, str], ...]:
    """Return the name and the colour of each stored index from 1 on."""
    if results.labels is None:
        return ()
    colours = dict(legend_of(results))
    return tuple((name, colours[name]) for name in index_names(results.labels))


def _found(name: str) -> Iterator[Metric]:
    try:
        yield from find_metrics([name])
    except EvaluationError:  # a metric of a distribution that is not installed any more
        return


def _case(name: str, results: ResultFolder, metrics: Sequence[Metric]) -> ReportCase:
    """Return a case without pictures."""
    scored: Mapping[str, Any] = results.scores.get("cases", {}).get(name, {})
    entry = results.record.get(name)
    missing = name in results.scores.get("missing", ())
    incomparable = results.scores.get("failed", {}).get(name)
    status = "evaluated" if scored else "no prediction" if missing else "predicted"
    findings: list[str] = []
    if entry is not None and entry.status == "failed":
        status = "failed"
        earlier = "; its score is that of an earlier label map" if scored else ""
        findings.append(f"the prediction has failed: {entry.error}{earlier}")
    elif incomparable is not None:
        status = "failed"
        findings.append(f"prediction and reference cannot be compared: {incomparable}")
    elif missing:
        findings.append("there is a reference and no prediction; the case is in no mean")
    if entry is not None:
        if entry.naming_error is not None:
            findings.append(f"its vertebrae could not be named: {entry.naming_error}")
        findings += entry.warnings
    return ReportCase(
        name=name,
        modality=scored.get("modality") or (entry.modality if entry else None) or "",
        site=scored.get("site") or "",
        status=status,
        score=_finite(scored.get(f"{MEAN}{metrics[0].name}")) if metrics else None,
        scores={
            each: {metric.title: _finite(values.get(metric.name)) for metric in metrics}
            for each, values in scored.get("classes", {}).items()
        },
        findings=tuple(findings),
        facts=() if entry is None else tuple(_facts(entry)),
    )


def _pictured(argument: tuple[ReportCase, ResultFolder], *, budget: int) -> ReportCase:
    """Return a case with its pictures, and with what they show in words, as far as its files are there.

    Args:
        argument: Case without pictures, and what the folder has of it.
        budget: Most bytes of its volumes.
    """
    case, results = argument
    if case.status not in ("evaluated", "predicted"):
        return case
    maps, lacking = results.read_maps(case.name)
    if maps is None:
        return replace(case, findings=(lacking, *case.findings))
    modality: Modality | None = "CT" if case.modality == "CT" else "MR" if case.modality else None
    place = None
    if maps.reference is not None:
        place = find_worst_place(maps.prediction, maps.reference, maps.spacing_mm)
    found = [*_described(maps, results, place), *filter(None, [lacking])]
    entry, names = results.record.get(case.name), results.names.get(same_name(case.name))
    vertebrae = () if names is None else named_vertebrae(names, maps, results.labels)
    if names is not None:
        found += name_findings(vertebrae, () if entry is None else entry.renamed, names.notes)
    return replace(
        case,
        findings=(*found, *case.findings),
        tables=(names_table(vertebrae),) if vertebrae else (),
        vertebrae=vertebrae,
        pictures=_drawn(maps, results, modality, place),
        volumes=reduce_volumes(maps, modality, budget, None if place is None else place.index),
    )


def _described(maps: CaseMaps, results: ResultFolder, place: WorstPlace | None) -> Iterator[str]:
    """Yield sentences about what is wrong with a prediction."""
    assert results.labels is not None  # else the maps could not be read
    names = index_names(results.labels)
    if maps.reference is not None:
        yield describe_worst_place(place, names)
        yield from find_faults(maps.prediction, maps.reference, names)
    elif not maps.prediction.any():
        yield "nothing is labelled"


def _drawn(
    maps: CaseMaps, results: ResultFolder, modality: Modality | None, place: WorstPlace | None
) -> tuple[PictureLayers, ...]:
    """Return the pictures of a case: through its worst place, and along the middle of the spine."""
    assert results.labels is not None
    names = index_names(results.labels)
    by_name = class_colours(list(dict.fromkeys(names)))
    views = [] if place is None else [*close_ups(maps, place.index)]
    views += middle_views(maps, stored_behind(names))
    return tuple(draw_layers(view, [by_name[name] for name in names], modality) for view in views)


def _facts(entry: PredictedCase) -> Iterator[Fact]:
    """Yield what the record says of a case."""
    if entry.shape is not None and entry.spacing_mm is not None:
        yield Fact(name="voxels S P L", value=" × ".join(map(str, entry.shape)))
        yield Fact(name="spacing S P L", value=" × ".join(f"{mm:.3g}" for mm in entry.spacing_mm) + " mm")
    if entry.seconds is not None:
        yield Fact(name="time", value=f"{entry.seconds:.1f} s")
    if entry.peak_gb is not None:
        yield Fact(name="memory until then", value=f"{entry.peak_gb:.2f} GB")
    if entry.gpu_peak_gb is not None:
        yield Fact(name="memory of the GPU", value=f"{entry.gpu_peak_gb:.2f} GB")
    if entry.tiles is not None:
        yield Fact(name="tiles that were run", value=f"{entry.tiles_run} of {entry.tiles}")
    if entry.changes:
        ml = sum(change.ml for change in entry.changes)
        yield Fact(name="post-processing", value=f"{counted(len(entry.changes), 'change')}, {in_ml(ml)}")
    if entry.training_case is not None:
        yield Fact(name="training case", value=f"the model has learnt from it as {entry.training_case}")


def _finite(value: object) -> float | None:
    found = number(value)
    return None if math.isnan(found) else found
