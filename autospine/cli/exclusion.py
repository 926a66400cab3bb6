"""`autospine dataset`."""

from pathlib import Path
from typing import Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import App, app
from autospine.cli.screen import say, say_next
from autospine.core.errors import DatasetError, counted, listed
from autospine.storage.workspace import DatasetLocation, Workspace

dataset = App(help="Say which cases of a dataset are used.", no_args_is_help=True)
app.add_typer(dataset, name="dataset", rich_help_panel="Train, step by step")


@dataset.callback()
def _group() -> None:
    """Say which cases of a dataset are used."""


@dataset.command(epilog="For example: autospine dataset exclude -d 1 case_07 case_12 --reason 'cut labels'")
def exclude(
    cases: Annotated[
        list[str] | None, typer.Argument(metavar="[CASE]...", help="Exclude these cases.", show_default=False)
    ] = None,
    name: shared_options.DatasetName = None,
    workspace: shared_options.Workspace = None,
    marks: Annotated[
        Path | None,
        typer.Option(
            "--marks",
            metavar="FILE",
            help="Exclude the cases that are marked fail or artefact in these marks of a report, with their "
            "notes as reasons.",
            show_default=False,
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option(help="Write this reason into excluded.csv.", show_default=False)
    ] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take the cases back instead.")] = False,
) -> None:
    """Exclude cases from training, without touching their files; list the excluded ones if none is named.

    `excluded.csv` in the folder of the dataset names them. The next plan and the next training do without
    them; models that are trained already stay as they are.
    """
    location = Workspace.locate(workspace).find_dataset(shared_options.named_dataset(None, name, workspace))

    from autospine.dataset.case_marks import cases_marked
    from autospine.dataset.excluded_cases import EXCLUDED, exclude_cases, include_cases, read_excluded

    chosen = dict.fromkeys(cases or (), reason)
    if marks is not None:
        chosen |= {case: note or reason for case, note in cases_marked(marks, "fail", "artefact").items()}
    if not chosen:
        known = read_excluded(location.raw)
        for case, why in known.items():
            say(f"{case}: {why}" if why else case)
        say(f"{counted(len(known), 'case')} of {location.name} excluded")
        return
    if undo:
        done = include_cases(location.raw, chosen)
        say(f"taken back: {listed(done, len(done)) or 'none, as none of them was excluded'}")
    else:
        chosen = _known(location, chosen, leave_out=marks is not None)
        done = exclude_cases(location.raw, chosen)
        say(f"excluded: {listed(done, len(done)) or 'none, as all of them were'}")
    say(f"{counted(len(read_excluded(location.raw)), 'case')} in {location.raw / EXCLUDED}")
    if done:
        say_next("plan-and-preprocess", "-d", location.name, *location.workspace.option)


def _known(location: DatasetLocation, chosen: dict[str, str], *, leave_out: bool) -> dict[str, str]:
    """Return the cases that are training cases of the dataset, with their reasons.

    Args:
        location: The dataset.
        chosen: Reason of each case.
        leave_out: Whether other cases are named and left out: reports mark test cases, too. They are refused
            otherwise, and where no training case is left.
    """
    from autospine.dataset.case_table import meant_cases
    from autospine.dataset.excluded_cases import read_excluded
    from autospine.dataset.raw import inspect_dataset
    from autospine.storage.file_names import same_name

    cases = [case.name for case in inspect_dataset(location.raw)[0].cases]
    there = {*cases, *read_excluded(location.raw)}
    known = {same_name(name) for name in there}
    unknown = [name for name in chosen if same_name(name) not in known]
    if unknown and leave_out and len(unknown) < len(chosen):
        say(f"no training cases of {location.name}, left out: {listed(unknown)}", "yellow")
        chosen = {name: why for name, why in chosen.items() if name not in unknown}
    elif unknown:
        meant = meant_cases(unknown, there)
        raise DatasetError(
            f"expected training cases of {location.name}, found {listed(unknown)}; "
            + (meant.get(unknown[0]) or "check the names, and that -d names the dataset that they belong to")
        )
    chosen_names = {same_name(name) for name in chosen}
    if all(same_name(name) in chosen_names for name in cases):
        raise DatasetError(
            f"expected a training case of {location.name} to be left, found that all of them would be "
            "excluded; exclude fewer"
        )
    return chosen
