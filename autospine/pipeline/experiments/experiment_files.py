"""The files of a finished experiment: `experiment.csv`, `experiment.json`, `experiment.png`, `verdict.md`."""

import math
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

import autospine
from autospine.evaluation.boundary_errors import EDGES_MM
from autospine.evaluation.paired_comparison import PairedDifference
from autospine.pipeline.experiments.experiment_run import FinishedExperiment
from autospine.pipeline.experiments.results import (
    DICE,
    METRICS,
    VariantResult,
    boundary_findings,
    differences_from,
    group_differences,
    of_means,
)
from autospine.report.efficiency_figure import write_efficiency_figure
from autospine.report.experiment_figure import DesignPoint, write_experiment_figure
from autospine.storage.atomic import write_text
from autospine.storage.serialization import write_json
from autospine.storage.spreadsheet import write_table
from autospine.system.devices import describe

FORMAT_VERSION = 1

CSV, JSON, FIGURE, VERDICT = "experiment.csv", "experiment.json", "experiment.png", "verdict.md"

COLUMNS = (
    *("design", "metric", "class", "value", "difference", "low", "high", "p", "p_corrected", "subjects"),
    *("seconds_per_step", "memory_bytes", "parameters"),
)


def write_experiment(finished: FinishedExperiment, verdict: Sequence[str], device: torch.device) -> None:
    """Write the files of an experiment into its folder, each as a whole.

    Args:
        finished: The experiment.
        verdict: Its verdict, in sentences.
        device: Device that it ran on.
    """
    results, folder = finished.results, finished.folder
    differences = differences_from(results[0], results)
    write_table(folder / CSV, COLUMNS, _rows(results, differences))
    write_json(folder / JSON, _described(finished, differences, verdict, device))
    points = [_point(result, differences) for result in results]
    title = f"{finished.experiment.name}: {finished.protocol.dataset}, {finished.protocol.limit}"
    draw = write_efficiency_figure if finished.experiment.by_cost else write_experiment_figure
    draw(folder / FIGURE, points, title=title)
    write_text(folder / VERDICT, _page(finished, differences, verdict, device))


def _rows(
    results: Sequence[VariantResult], differences: dict[str, tuple[PairedDifference, ...]]
) -> list[list[object]]:
    rows: list[list[object]] = []
    for result in results:
        cost = [round(result.seconds_per_step, 4), result.memory_bytes, result.parameters]
        name = result.variant.name
        if name not in differences:  # the first design, which has no difference
            dice = [(DICE.name, label, value) for label, value in result.class_dice.items()]
            values = [*dice, *((metric, None, value) for metric, value in result.scores.items())]
            rows += [
                [name, metric, label, _known(value), *[None] * 6, *cost] for metric, label, value in values
            ]
            continue
        rows += [
            [
                *(name, each.metric, each.class_name, _known(each.value), _known(each.difference)),
                *map(_known, (each.low, each.high, each.p, each.p_corrected)),
                each.n_subjects,
                *cost,
            ]
            for each in differences[name]
        ]
    return rows


def _described(
    finished: FinishedExperiment,
    differences: dict[str, tuple[PairedDifference, ...]],
    verdict: Sequence[str],
    device: torch.device,
) -> dict[str, object]:
    findings = boundary_findings(finished.results) if finished.experiment.at_boundaries else {}
    groups = _grouped(finished)
    return {
        "format_version": FORMAT_VERSION,
        "question": finished.experiment.question,
        "verdict": list(verdict),
        "protocol": finished.protocol,
        "made": _made(device),
        "designs": {
            result.variant.name: {
                "change": result.variant.change,
                "scores": {name: _known(value) for name, value in result.scores.items()},
                "dice_by_class": {name: _known(value) for name, value in result.class_dice.items()},
                "collapsed": list(result.collapsed),
                "training_loss": _known(result.loss),
                "seconds_per_step": round(result.seconds_per_step, 4),
                "memory_bytes": result.memory_bytes,
                "parameters": result.parameters,
                **result.readings,
                **(
                    {
                        "wrong_by_distance": {
                            f"from_{edge:g}_mm": _known(rate)
                            for edge, rate in zip(EDGES_MM, found.rates, strict=True)
                        },
                        "wrong_near_blurred": _known(found.blurred),
                        "wrong_near_sharp": _known(found.sharp),
                    }
                    if (found := findings.get(result.variant.name))
                    else {}
                ),
                **(
                    {
                        "differences_by_group": {
                            group: {
                                "difference": _known(found[result.variant.name].difference),
                                "low": _known(found[result.variant.name].low),
                                "high": _known(found[result.variant.name].high),
                                "subjects": found[result.variant.name].n_subjects,
                            }
                            for group, found in groups.items()
                        }
                    }
                    if groups and result is not finished.results[0]
                    else {}
                ),
                "differences": [
                    {
                        "metric": each.metric,
                        "class": each.class_name,
                        "difference": _known(each.difference),
                        "low": _known(each.low),
                        "high": _known(each.high),
                        "p_corrected": _known(each.p_corrected),
                        "subjects": each.n_subjects,
                    }
                    for each in differences.get(result.variant.name, ())
                ],
            }
            for result in finished.results
        },
    }


def _grouped(finished: FinishedExperiment) -> dict[str, dict[str, PairedDifference]]:
    """Return the differences in mean Dice by group and design; none if the cases are not parted."""
    grouping = finished.experiment.grouped_by
    return {} if grouping is None else group_differences(finished.results, grouping)


def _page(
    finished: FinishedExperiment,
    differences: dict[str, tuple[PairedDifference, ...]],
    verdict: Sequence[str],
    device: torch.device,
) -> str:
    protocol, made = finished.protocol, _made(device)
    lines = [
        f"# {finished.experiment.name}: {finished.experiment.question}",
        "",
        *(f"- {sentence}" for sentence in verdict),
        "",
        f"| design | {' | '.join(metric.title for metric in METRICS)} | difference in Dice (95 % interval) "
        "| s per step | GB | weights |",
        f"|---|{'--:|' * (len(METRICS) + 4)}",
    ]
    for result in finished.results:
        found = differences.get(result.variant.name)
        scores = " | ".join(_shown(result.scores[metric.name]) for metric in METRICS)
        difference = "" if found is None else _interval(of_means(found, DICE))
        lines.append(
            f"| {result.variant.name} | {scores} | {difference} | {result.seconds_per_step:.3g} "
            f"| {result.memory_bytes / 1e9:.2f} | {result.parameters:,} |"
        )
    if groups := _grouped(finished):
        lines += ["", f"| difference in Dice | {' | '.join(groups)} |", f"|---|{'--:|' * len(groups)}"]
        for result in finished.results[1:]:
            shown = [_interval(each[result.variant.name]) for each in groups.values()]
            lines.append(f"| {result.variant.name} | {' | '.join(shown)} |")
    lines += [
        "",
        f"{protocol.dataset}, configuration {protocol.configuration}; {protocol.limit}; seeds "
        f"{', '.join(map(str, protocol.seeds))}; folds {', '.join(protocol.folds)}. The same cases are held "
        "out of every design, and scores are compared case by case; GB is the estimated memory of a step. "
        "Pictures of the held-out cases, the worst first, are `validation.png` in each folder "
        "`DESIGN/seed_N/fold_N`.",
        "",
        f"{made['date']}, {made['device']}, AutoSpine {made['autospine']}, PyTorch {made['torch']}, Python "
        f"{made['python']}.",
        "",
    ]
    return "\n".join(lines)


def _made(device: torch.device) -> dict[str, str]:
    """Return what the results were made with."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": describe(device),
        "autospine": autospine.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _point(result: VariantResult, differences: dict[str, tuple[PairedDifference, ...]]) -> DesignPoint:
    found = differences.get(result.variant.name)
    mean = None if found is None else of_means(found, DICE)
    return DesignPoint(
        name=result.variant.name,
        dice=result.scores[DICE.name],
        by_class=result.class_dice,
        difference=None if mean is None else (mean.difference, mean.low, mean.high),
        seconds_per_step=result.seconds_per_step,
        memory_bytes=result.memory_bytes,
    )


def _interval(found: PairedDifference) -> str:
    if math.isnan(found.difference):
        return "–"
    ends = "" if math.isnan(found.low) else f" ({found.low:+.3f} to {found.high:+.3f})"
    return f"{found.difference:+.3f}{ends}"


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def experiment_files(folder: Path) -> tuple[Path, ...]:
    """Return the paths of an experiment's files."""
    return tuple(folder / name for name in (VERDICT, CSV, JSON, FIGURE))
