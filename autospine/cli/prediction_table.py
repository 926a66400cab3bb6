"""The table of predicted cases."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.markup import escape

from autospine.cli.screen import AXES, SIZES, say, show_table, table_of

if TYPE_CHECKING:
    from autospine.prediction.case_log import PredictedCase


def show_predictions(cases: Sequence["PredictedCase"], kept: Collection[str] = ()) -> None:
    """Print the status of each case; timings are hidden for label maps kept from an earlier run.

    Why a case failed has been logged when it did.
    """
    table = table_of("case", "status", "modality", SIZES, "tiles", "seconds", "peak GB")
    for case in cases:
        if case.case in kept:
            case = replace(case, status="kept", tiles=None, seconds=None, peak_gb=None)
        table.add_row(
            escape(case.case),
            case.status if case.naming_error is None else f"{case.status}, not named",
            case.modality or "",
            "" if case.shape is None else " ".join(str(n) for n in case.shape),
            "" if case.tiles is None else f"{case.tiles_run} of {case.tiles}",
            "" if case.seconds is None else f"{case.seconds:.1f}",
            "" if case.peak_gb is None else f"{case.peak_gb:.2f}",
        )
    if SIZES not in show_table(table) and any(case.shape is not None for case in cases):
        say(AXES, "dim")
