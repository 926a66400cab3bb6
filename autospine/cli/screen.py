"""What the commands show: results on standard output, as tables where they are tables."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from autospine.evaluation import Evaluation
    from autospine.fingerprint import Fingerprint
    from autospine.plan import Plan


def say(text: str, style: str | None = None) -> None:
    """A line of result, as it is: names and paths may hold what rich would take for markup."""
    _console().print(text, style=style, markup=False, soft_wrap=True, highlight=False)


def show_plan(plan: "Plan") -> None:
    """The decisions with their reasons, configuration by configuration."""
    say(f"Plan of {plan.dataset}", "bold")
    part: list[str] | None = None
    for decision in plan.rationale:
        *group, name = decision.name.split(".")
        if group and group != part:
            say(f"\n{group[0]}", "bold")
        elif part and not group:
            say("")
        part = group
        say(f"  {name:<16} {decision.value}")
        say(f"  {'':<16} {decision.reason}", "dim")


def show_fingerprint(fingerprint: "Fingerprint") -> None:
    """What was measured, case by case and class by class."""
    table = Table(
        title=f"Fingerprint of {fingerprint.dataset}", title_justify="left", box=None, pad_edge=False
    )
    for name in ("case", "modality", "site", "voxels S P L", "spacing mm", "foreground"):
        table.add_column(name, no_wrap=name != "site", overflow="fold")
    for case in fingerprint.cases:
        voxels = case.shape[0] * case.shape[1] * case.shape[2]
        table.add_row(
            escape(case.name),
            case.modality,
            escape(case.site or ""),
            " ".join(str(n) for n in case.shape),
            " ".join(f"{d:.2f}" for d in case.spacing_mm),
            f"{100 * sum(case.class_voxels) / voxels:.1f} %",
        )
    _console().print(table)
    classes = Table(box=None, pad_edge=False)
    for name in ("class", "cases", "volume ml", "thickness mm"):
        classes.add_column(name, justify="left" if name == "class" else "right")
    for facts in fingerprint.classes:
        thickness = "" if facts.thickness_mm is None else f"{facts.thickness_mm:.1f}"
        classes.add_row(escape(facts.name), str(facts.cases), f"{facts.volume_ml:.1f}", thickness)
    _console().print(classes)


def show_evaluation(evaluation: "Evaluation", title: str) -> None:
    """Scores per class, modality and case."""
    from autospine.report.tables import evaluation_table

    _console().print(evaluation_table(evaluation, title=title))


def _console() -> Console:
    # Made anew each time: standard output may have been replaced, by tests for instance.
    return Console()
