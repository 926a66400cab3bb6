"""Tables of a fingerprint."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from autospine.cli.screen import AXES, SIZES, say, show_table, table_of

if TYPE_CHECKING:
    from autospine.fingerprint import Fingerprint, GroupStatistics


def show_fingerprint(fingerprint: "Fingerprint") -> None:
    """Print the measurements by case, by modality and site, and by class."""
    from autospine.fingerprint import group_statistics

    say(f"Fingerprint of {fingerprint.dataset}", "italic")
    groups = group_statistics(fingerprint)
    left_out: list[str] = []
    for table in (
        _cases_table(fingerprint),
        _groups_table(groups),
        _intensities_table(groups),
        _classes_table(fingerprint),
    ):
        left_out += show_table(table)
    if SIZES not in left_out:
        say(AXES, "dim")
    for left, right in fingerprint.side_pairs:
        say(f"left and right: {left}, {right}")
    for names in fingerprint.duplicates:
        say(f"the same image, or nearly so: {', '.join(names)}")


def _cases_table(fingerprint: "Fingerprint") -> Table:
    table = table_of("case", "modality", "site", SIZES, "spacing mm", "spine mm")
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
    """Make the table of medians over the cases of each modality and site."""
    table = table_of("median of", "cases", "spacing mm", "size mm", "anisotropy")
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
    table = table_of("foreground of", "mean", "std", "0.5 %", "25 %", "50 %", "75 %", "99.5 %")
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
    """Make the table of medians over the cases in which a class occurs."""
    table = table_of("class", "cases", "volume ml", "thickness mm")
    for facts in fingerprint.classes:
        table.add_row(
            escape(facts.name),
            str(facts.cases),
            f"{facts.volume_ml:.1f}",
            "" if facts.thickness_mm is None else f"{facts.thickness_mm:.1f}",
        )
    return table
