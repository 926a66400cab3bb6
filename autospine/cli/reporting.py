"""`autospine report`, and the reports that other commands write by themselves."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.cluster_options import Scheduler, Slurm, cluster_for
from autospine.cli.screen import say
from autospine.core.errors import first_line
from autospine.system.log import get_logger

if TYPE_CHECKING:
    from autospine.cluster.executor import Executor

logger = get_logger(__name__)

Reported = Annotated[
    Path,
    typer.Argument(
        metavar="[FOLDER]",
        help="Report on this folder of predictions, scores or measurements, of a model "
        "(results/DATASET/CONFIGURATION), of a comparison (results/DATASET), of an experiment "
        "(results/DATASET/experiments/NAME) or of a plan (preprocessed/DATASET); by default "
        "the current folder.",
        show_default=False,
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the page to this file; by default report.html in the folder.",
        show_default=False,
    ),
]


@app.command(rich_help_panel="Predict", epilog="For example: autospine report out")
def report(
    folder: Reported = Path(),
    output: Page = None,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
) -> None:
    """Write one page that shows a folder: cases with pictures, the worst first, charts, and the plan.

    The page is a single file that needs no network. `plan-and-preprocess`, `train`, `predict`, `evaluate`,
    `compare`, `experiment` and `anatomy measure` write it by themselves.
    """
    shared_options.check_exists(folder, "a folder of results or of a plan")

    from autospine.report.folder_report import write_report

    elsewhere = scheduler is not None or slurm is not None
    with cluster_for(scheduler, slurm, folder) as cluster:
        page = write_report(folder.absolute() if elsewhere else folder, output, cluster=cluster)
    say(f"report: {page}")


def report_on(folder: Path, *, most_pictured: int | None = None, cluster: "Executor | None" = None) -> None:
    """Write the report of a folder at the end of another command, which does not fail without it.

    Args:
        folder: The folder.
        most_pictured: Most cases whose pictures are drawn, the worst first; None for all.
        cluster: Draws the pictures instead of this process.
    """
    try:
        from autospine.report.folder_report import REPORT, write_report

        seen = folder if cluster is None else folder.absolute()
        page = write_report(seen, folder / REPORT, most_pictured=most_pictured, cluster=cluster)
    except Exception as error:  # whatever it is, what the command was for is done
        logger.debug("where the report failed:", exc_info=error)
        logger.warning("the report of %s cannot be written: %s", folder, first_line(error))
    else:
        say(f"report: {page}")
