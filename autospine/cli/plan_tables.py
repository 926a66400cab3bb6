"""Tables of plans."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from autospine.cli.screen import console, say, show_table
from autospine.system.hardware import GIB

if TYPE_CHECKING:
    from autospine.pipeline.configuration_cost import ConfigurationCost
    from autospine.plan import Plan

RECOMMENDED = "configuration 0"
"""Name of the planner's decision which configuration is recommended."""

ESTIMATED_HOURS = "estimated hours"
"""Name of the planner's decision that holds the hours of a fold on a GPU, after that of the configuration."""

UNKNOWN = "–"

_KINDS = {"gpu": " of a GPU", "cpu": " of RAM", None: ""}


def show_plan(plan: "Plan", costs: "Mapping[str, ConfigurationCost]") -> None:
    """Print the configurations of a plan, the recommended one first, with what they cost by their names."""
    title = f"Plan of {plan.dataset} for {plan.memory_budget_bytes / GIB:.1f} GiB{_KINDS[plan.device]}"
    show_table(_plan_table([plan], title, costs))
    if costs:
        say(
            "hours: of one fold that has the device to itself; ~ by data sheet, not measured",
            "dim",
        )
        say("Dice: of labels resampled to these voxels and back, the most to be reached", "dim")
    for decision in plan.rationale:
        if decision.name == RECOMMENDED:
            say(f"0 is {plan.configurations[0].name}: {decision.reason}", "dim")


def compare_plans(plans: Sequence["Plan"]) -> None:
    """Print the configurations of several plans side by side, each with its memory budget."""
    ordered = sorted(plans, key=lambda plan: plan.memory_budget_bytes)
    show_table(_plan_table(ordered, f"Plans of {plans[0].dataset}"))


def explain_plan(plan: "Plan", costs: "Mapping[str, ConfigurationCost]") -> None:
    """Print the reason for every decision, configuration by configuration, and what these cost."""
    from rich.text import Text

    groups: dict[str, list[tuple[str, str, str]]] = {}
    for decision in plan.rationale:
        group, _, name = decision.name.rpartition(".")
        groups.setdefault(group, []).append((name, decision.value, decision.reason))
    for name, cost in costs.items():
        groups.setdefault(name, []).extend(_explained(cost))
    say(f"Plan of {plan.dataset}", "bold")
    for group, decisions in groups.items():
        table = Table(title=escape(group), title_justify="left", box=None, pad_edge=False, show_header=False)
        table.add_column(min_width=22, no_wrap=True)
        table.add_column(overflow="fold")
        for name, value, reason in decisions:
            table.add_row(escape(name), Text(value) + Text(f"\n{reason}", style="dim"))
        console().print(table)
        say("")


def _explained(cost: "ConfigurationCost") -> list[tuple[str, str, str]]:
    """Return the names, values and reasons of what was measured of a configuration."""
    found = [
        ("hours a fold", _hours(cost), "a few training steps and tiles, timed on this device"),
        ("Dice of labels", _dice(cost), "labels resampled to these voxels and back, mean over classes"),
    ]
    return [each for each in found if each[1] != UNKNOWN]


def estimated_hours(plan: "Plan", name: str) -> str | None:
    """Return the hours of a fold of a configuration that the planner has estimated; None if it has not."""
    wanted = f"{name}.{ESTIMATED_HOURS}"
    return next((decision.value for decision in plan.rationale if decision.name == wanted), None)


def _hours(cost: "ConfigurationCost | None", estimated: str | None = None) -> str:
    if cost is None or cost.hours is None:
        return UNKNOWN if estimated is None else f"~{estimated}"
    return f"{cost.hours:.2g}"


def _dice(cost: "ConfigurationCost | None") -> str:
    return UNKNOWN if cost is None or cost.labels_dice is None else f"{cost.labels_dice:.3f}"


def _plan_table(
    plans: Sequence["Plan"], title: str, costs: "Mapping[str, ConfigurationCost] | None" = None
) -> Table:
    """Make a row per configuration; those of the same name in several plans stand together."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    columns = ["", "configuration", *(["budget GiB"] if len(plans) > 1 else []), "voxel mm", "patch voxels"]
    # What a configuration is chosen by stands before what a narrow terminal may leave out.
    if costs or any(estimated_hours(plan, each.name) for plan in plans for each in plan.configurations):
        columns.append("hours")
    if costs:
        columns.append("Dice")
    columns += ["batch", "features", "GiB"]
    for column in columns:
        table.add_column(column, justify="left" if column in ("", "configuration") else "right")
    names = list(dict.fromkeys(chosen.name for plan in plans for chosen in plan.configurations))
    for name in names:
        for plan in plans:
            for index, chosen in enumerate(plan.configurations):
                if chosen.name == name:
                    row, cost = _plan_row(plan, index), (costs or {}).get(name)
                    row["hours"] = _hours(cost, estimated_hours(plan, name))
                    row["Dice"] = _dice(cost)
                    table.add_row(*(row[column] for column in columns))
    return table


def _plan_row(plan: "Plan", index: int) -> dict[str, str]:
    """Return what a plan says of a configuration, by column."""
    chosen = plan.configurations[index]
    width: Any = getattr(chosen.network, "feature_size", None) or getattr(chosen.network, "features", "")
    return {
        "": str(index),
        "configuration": escape(chosen.name),
        "budget GiB": f"{plan.memory_budget_bytes / GIB:.1f}",
        "voxel mm": " ".join(f"{d:g}" for d in chosen.spacing_mm),
        "patch voxels": " ".join(str(n) for n in chosen.patch_size),
        "batch": str(chosen.training.batch_size),
        "features": str(width if isinstance(width, int | str) else width[0]),
        "GiB": f"{chosen.memory_bytes / GIB:.2f}",
    }
