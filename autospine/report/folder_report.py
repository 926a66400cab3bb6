"""The report of a folder: `report.html` in it, of whatever the folder has."""

import shlex
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from autospine import __version__
from autospine.core.errors import WorkspaceError, counted
from autospine.report.report_content import Fact, ReportCase, ReportContent
from autospine.report.report_page import write_page
from autospine.report.result_folder import ResultFolder, holds_results, read_results
from autospine.report.result_report import legend_of, metrics_of, result_cases
from autospine.report.result_sections import prediction_section, record_facts, score_section

REPORT = "report.html"
"""File of the report."""


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the report of a folder that `autospine predict` or `autospine evaluate` has written to.

    Args:
        folder: The folder.
        output: File of the page; by default `report.html` in the folder.

    Returns:
        Path of the page.

    Raises:
        WorkspaceError: If the folder has nothing to report on.
        FormatError: If a file in it is damaged or of another version.
    """
    if not holds_results(folder):
        raise WorkspaceError(
            "expected a folder that `autospine predict` or `autospine evaluate` has written to, found "
            f"neither predictions.json nor evaluation.json in {folder}; name another folder"
        )
    path = output or folder / REPORT
    write_page(path, _result_report(read_results(folder)))
    return path


def _result_report(results: ResultFolder) -> ReportContent:
    metrics, cases = metrics_of(results.scores), result_cases(results)
    sections = [score_section(results.scores, cases, metrics)] if metrics else []
    if (predicted := prediction_section(results, cases)) is not None:
        sections.append(predicted)
    what = "Evaluation" if results.scores else "Predictions"
    return ReportContent(
        title=f"{what}: {results.folder.resolve().name}",
        folder=str(results.folder.resolve()),
        written=_now(),
        cases=cases,
        metric=metrics[0].title if metrics else "",
        higher_is_better=not metrics or metrics[0].higher_is_better,
        legend=legend_of(results),
        summary=tuple(_summary(results, cases)),
        sections=tuple(sections),
        foot=(*record_facts(results.record), *_commands(results)),
    )


def _summary(results: ResultFolder, cases: tuple[ReportCase, ...]) -> Iterator[Fact]:
    yield Fact(name="cases", value=_by_status(cases))
    metrics = metrics_of(results.scores)
    spread = (results.scores.get("spread") or {}).get("mean") or {}
    for metric in metrics:
        value = results.scores.get(f"mean_{metric.name}")
        interval = (spread.get(metric.name) or {}).get("interval")
        if value is not None:
            sure = f"95 % confidence interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
            unit = f" {metric.unit}" if metric.unit else ""
            yield Fact(name=f"mean {metric.title}", value=f"{value:.3f}{unit}", reason=sure)
    worst = next((case for case in cases if case.score is not None), None)
    if worst is not None and metrics:
        yield Fact(
            name="worst case",
            value=f"{worst.name}, {metrics[0].title} {worst.score:.3f}",
            reason=worst.findings[0] if worst.findings else "",
        )
    warned = sum(bool(entry.warnings) for entry in results.record.values())
    if warned:
        yield Fact(name="warnings", value=f"{counted(warned, 'case')} with warnings")


def _by_status(cases: tuple[ReportCase, ...]) -> str:
    counts = {
        status: sum(case.status == status for case in cases)
        for status in dict.fromkeys(c.status for c in cases)
    }
    return ", ".join(f"{n} {status}" for status, n in counts.items()) or "none"


def _commands(results: ResultFolder) -> Iterator[Fact]:
    compared = results.scores.get("compared")
    if compared:
        words = ("autospine", "evaluate", compared["predictions"], compared["references"])
        yield Fact(name="scores again", value=shlex.join(words))
    yield Fact(
        name="this page again", value=shlex.join(("autospine", "report", str(results.folder.resolve())))
    )
    yield Fact(name="written by", value=f"AutoSpine {__version__}")


def _now() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
