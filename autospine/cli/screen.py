"""What the commands show: results on standard output, as tables where they are tables."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from autospine.evaluation.scores import Evaluation
    from autospine.fingerprint import Fingerprint, GroupStatistics
    from autospine.models.best import Best
    from autospine.models.manifest import ClassScores, Manifest, ModelScores, Training
    from autospine.models.model_folder import ModelFolder
    from autospine.plan import Plan
    from autospine.prediction.case_log import PredictedCase


GIB = 1024**3

RECOMMENDED = "configuration 0"
"""The planner's decision which one that is."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves the cursor, colours, or turns the order of what is read; lines and tabs stay."""


def printable(text: str) -> str:
    """A text without what would steer the terminal: it may come from a file of somebody else's."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(text: str, style: str | None = None) -> None:
    """A line of result, as it is: names and paths may hold what rich would take for markup."""
    _console().print(printable(text), style=style, markup=False, soft_wrap=True, highlight=False)


def show_plan(plan: "Plan") -> None:
    """The configurations, the recommended one first."""
    title = f"Plan of {plan.dataset} for {plan.memory_budget_bytes / GIB:.1f} GiB"
    _console().print(_plan_table([plan], title))
    for decision in plan.rationale:
        if decision.name == RECOMMENDED:
            say(f"0 is {decision.value}: {decision.reason}", "dim")


def compare_plans(plans: Sequence["Plan"]) -> None:
    """The configurations of several plans side by side, each with its budget."""
    ordered = sorted(plans, key=lambda plan: plan.memory_budget_bytes)
    _console().print(_plan_table(ordered, f"Plans of {plans[0].dataset}"))


def _plan_table(plans: Sequence["Plan"], title: str) -> Table:
    """A row per configuration; of several plans, those of the same name together."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    columns = ["", "configuration", "spacing mm", "patch", "batch", "features", "GiB"]
    if len(plans) > 1:
        columns.insert(2, "budget")
    for column in columns:
        table.add_column(column, justify="left" if column in ("", "configuration") else "right")
    names = list(dict.fromkeys(one.name for plan in plans for one in plan.configurations))
    for name in names:
        for plan in plans:
            for index, one in enumerate(plan.configurations):
                if one.name == name:
                    table.add_row(*_plan_row(plan, index, budget=len(plans) > 1))
    return table


def _plan_row(plan: "Plan", index: int, *, budget: bool) -> list[str]:
    one = plan.configurations[index]
    width: Any = getattr(one.network, "feature_size", None) or getattr(one.network, "features", "")
    row = [
        str(index),
        escape(one.name),
        " ".join(f"{d:g}" for d in one.spacing_mm),
        " ".join(str(n) for n in one.patch_size),
        str(one.training.batch_size),
        str(width if isinstance(width, int | str) else width[0]),
        f"{one.memory_bytes / GIB:.2f}",
    ]
    if budget:
        row.insert(2, f"{plan.memory_budget_bytes / GIB:.1f}")
    return row


def explain_plan(plan: "Plan") -> None:
    """Every decision with the rule and the facts behind it, configuration by configuration."""
    from rich.text import Text

    groups: dict[str, list[tuple[str, str, str]]] = {}
    for decision in plan.rationale:
        group, _, name = decision.name.rpartition(".")
        groups.setdefault(group, []).append((name, decision.value, decision.reason))
    say(f"Plan of {plan.dataset}", "bold")
    for group, decisions in groups.items():
        table = Table(title=escape(group), title_justify="left", box=None, pad_edge=False, show_header=False)
        table.add_column(min_width=22, no_wrap=True)
        table.add_column(overflow="fold")
        for name, value, reason in decisions:
            table.add_row(escape(name), Text(value) + Text(f"\n{reason}", style="dim"))
        _console().print(table)
        say("")


def show_fingerprint(fingerprint: "Fingerprint") -> None:
    """What was measured: case by case, by modality and site, and class by class."""
    from autospine.fingerprint import group_statistics

    say(f"Fingerprint of {fingerprint.dataset}", "italic")
    groups = group_statistics(fingerprint)
    for table in (
        _cases_table(fingerprint),
        _groups_table(groups),
        _intensities_table(groups),
        _classes_table(fingerprint),
    ):
        _console().print(table)
    for left, right in fingerprint.side_pairs:
        say(f"left and right: {left}, {right}")
    for names in fingerprint.duplicates:
        say(f"the same image, or nearly so: {', '.join(names)}")


def _cases_table(fingerprint: "Fingerprint") -> Table:
    table = _table("case", "modality", "site", "voxels S P L", "spacing mm", "spine mm")
    for case in fingerprint.cases:
        table.add_row(
            escape(case.name),
            case.modality,
            escape(case.site or ""),
            " ".join(str(n) for n in case.shape),
            " ".join(f"{d:.2f}" for d in case.spacing_mm),
            f"{case.spine_mm:.0f}",
        )
    return table


def _groups_table(groups: Sequence["GroupStatistics"]) -> Table:
    """Medians over the cases of each modality and site."""
    table = _table("median of", "cases", "spacing mm", "size mm", "anisotropy")
    for group in groups:
        table.add_row(
            _group_name(group),
            str(group.cases),
            " ".join(f"{d:.2f}" for d in group.spacing_mm),
            " ".join(f"{n:.0f}" for n in group.size_mm),
            f"{group.anisotropy:.1f}",
        )
    return table


def _intensities_table(groups: Sequence["GroupStatistics"]) -> Table:
    table = _table("foreground of", "mean", "std", "0.5 %", "25 %", "50 %", "75 %", "99.5 %")
    for group in groups:
        if (facts := group.intensities) is not None:
            values = (
                *(facts.mean, facts.std, facts.percentile_00_5, facts.percentile_25),
                *(facts.median, facts.percentile_75, facts.percentile_99_5),
            )
            table.add_row(_group_name(group), *(f"{value:.0f}" for value in values))
    return table


def _group_name(group: "GroupStatistics") -> str:
    return group.modality if group.site is None else escape(f"{group.modality} {group.site}")


def _classes_table(fingerprint: "Fingerprint") -> Table:
    """Medians over the cases in which a class occurs."""
    table = _table("class", "cases", "volume ml", "thickness mm")
    for facts in fingerprint.classes:
        table.add_row(
            escape(facts.name),
            str(facts.cases),
            f"{facts.volume_ml:.1f}",
            "" if facts.thickness_mm is None else f"{facts.thickness_mm:.1f}",
        )
    return table


def _table(*columns: str) -> Table:
    """A plain table: words to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        long = name in ("case", "site", "median of", "foreground of")
        words = long or name in ("status", "modality", "class")
        table.add_column(name, justify="left" if words else "right", no_wrap=not long, overflow="fold")
    return table


def show_comparison(best: "Best") -> None:
    """Models and ensembles, the best first, with what they cost."""
    modalities = sorted({name for one in best.candidates for name in one.modality_dice})
    # With one modality its column would repeat the total.
    modalities = modalities if len(modalities) > 1 else []
    title = f"{best.dataset}, Dice of {best.n_cases} held-out cases"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    for column in ("Dice", "cleaned", *modalities, "minutes", "M weights", "GiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in best.candidates:
        dice = (one.dice, one.cleaned_dice, *(one.modality_dice.get(name) for name in modalities))
        table.add_row(
            escape(one.name),
            *("–" if value is None else f"{value:.3f}" for value in dice),
            f"{one.minutes:.1f}",
            f"{one.parameters / 1e6:.2f}",
            f"{one.memory_bytes / GIB:.2f}",
        )
    _console().print(table)


def show_predictions(cases: Sequence["PredictedCase"], kept: Collection[str] = ()) -> None:
    """What became of each case; of those that were kept not what they took when they were made."""
    table = _table("case", "status", "modality", "voxels S P L", "tiles", "seconds", "peak GB")
    for case in cases:
        if case.case in kept:
            case = replace(case, status="kept", tiles=None, seconds=None, peak_gb=None)
        table.add_row(
            escape(case.case),
            case.status,
            case.modality or "",
            "" if case.shape is None else " ".join(str(n) for n in case.shape),
            "" if case.tiles is None else f"{case.tiles_run} of {case.tiles}",
            "" if case.seconds is None else f"{case.seconds:.1f}",
            "" if case.peak_gb is None else f"{case.peak_gb:.2f}",
        )
    _console().print(table)
    for case in cases:
        if case.error is not None:
            say(f"{case.case}: {case.error}")


def show_model(model: "ModelFolder", facts: "Manifest") -> None:
    """What a model segments, how, what it was trained on, its scores and what it is meant for."""
    plan, chosen = model.plan, model.configuration
    rows = [
        ("dataset", facts.dataset),
        ("configuration", f"{facts.configuration}, {chosen.network.name}"),
        ("channels", ", ".join(plan.channels)),
        ("voxels", f"{' x '.join(f'{d:g}' for d in chosen.spacing_mm)} mm"),
        ("tiles", " x ".join(map(str, chosen.patch_size))),
        ("spine found by", facts.finder or ""),
        ("trained", "; ".join(_trained(fold, of) for fold, of in facts.training.items())),
        ("trained by", "; ".join(dict.fromkeys(filter(None, map(_trainer, facts.training.values()))))),
        ("cross-validated", _scored(facts.scores)),
        ("intended use", facts.intended_use),
        ("licence", facts.licence),
        ("exported", f"{_moment(facts.created)}, AutoSpine {facts.autospine}" if facts.created else "no"),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:  # models of earlier versions do not say who trained them
            table.add_row(name, _cell(value))
    _console().print(table)
    _console().print()
    of_class = {} if facts.scores is None else facts.scores.classes
    classes = _table("class", "integer", *(("Dice", "cases") if of_class else ()))
    for name, integer in zip(plan.labels.names, plan.labels.painted, strict=True):
        classes.add_row(_cell(name), str(integer), *(_class_scores(of_class.get(name)) if of_class else ()))
    _console().print(classes)


def _cell(text: str) -> str:
    """A text of somebody else's as it is shown in a table."""
    return escape(printable(text))


def _trained(fold: str, facts: "Training") -> str:
    """How long a fold was trained, in words."""
    parts = [f"fold {fold}", f"{'?' if facts.steps is None else facts.steps} steps"]
    parts += [] if facts.minutes is None else [f"{facts.minutes:g} minutes"]
    parts += [] if facts.seed is None else [f"seed {facts.seed}"]
    return ", ".join(parts)


def _trainer(facts: "Training") -> str:
    """By what a fold was trained, nothing where it is not known."""
    if None in (facts.autospine, facts.torch, facts.device):
        return ""
    return f"AutoSpine {facts.autospine}, PyTorch {facts.torch}, {facts.device}"


def _moment(created: str) -> str:
    """A bundle's date and time as people write them; as it is where it is none."""
    try:
        return f"{datetime.fromisoformat(created).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return created


def _scored(scores: "ModelScores | None") -> str:
    """Mean Dice in total and by modality, in words."""
    if scores is None or scores.mean_dice is None:
        return "no"
    parts = [f"Dice {scores.mean_dice:.3f} over {scores.n_cases} held-out cases"]
    parts += [
        f"{name} {of.mean_dice:.3f} ({of.n_cases})"
        for name, of in scores.modalities.items()
        if of.mean_dice is not None
    ]
    return ", ".join(parts)


def _class_scores(scores: "ClassScores | None") -> tuple[str, str]:
    """Dice and number of cases of a class, empty where they are not known."""
    if scores is None:
        return "", ""
    dice, cases = scores.dice, scores.n_cases
    return "" if dice is None else f"{dice:.3f}", "" if cases is None else str(cases)


def show_evaluation(evaluation: "Evaluation", title: str) -> None:
    """Scores per class, modality and case."""
    from autospine.evaluation.tables import evaluation_table

    _console().print(evaluation_table(evaluation, title=title))


def _console() -> Console:
    # Made anew each time: standard output may have been replaced, by tests for instance.
    return Console()
