"""Options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

from autospine.core.errors import AutospineError, DatasetError, listed
from autospine.storage.workspace import Workspace as _Folders


def _dataset_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the datasets of the workspace whose names go on as a shell has begun one."""
    try:
        datasets = _Folders.locate(ctx.params.get("workspace")).datasets()
    except AutospineError:
        return []
    return [location.name for location in datasets if location.name.startswith(incomplete)]


Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        help="Work in this folder, which has raw/, preprocessed/ and results/; by default "
        "$AUTOSPINE_WORKSPACE, else the current folder.",
        show_default=False,
    ),
]
DatasetArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATASET]",
        help="The same as --dataset.",
        show_default=False,
        autocompletion=_dataset_names,
    ),
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "-d",
        help="Take this dataset, by number (1), name (Spine), whole name or folder.",
        show_default=False,
        autocompletion=_dataset_names,
    ),
]
OptionalDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "-d",
        help="Take this dataset, by number (1), name (Spine), whole name or folder; by default the one "
        "planned last.",
        show_default=False,
        autocompletion=_dataset_names,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="Plan for this much memory, such as 8GB, 500MB or 8 (GB; units are binary): that of the GPU, "
        "of which 90 % are planned for, or of the RAM. By default what the GPU has free, else half of the "
        "free RAM.",
        show_default=False,
    ),
]
Memories = Annotated[
    list[str] | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Plan for this much memory, such as 8GB, 500MB or 8 (GB; units are binary): that of the GPU, "
        "of which 90 % are planned for, or of the RAM. By default what the GPU has free, else half of the "
        "free RAM. Repeat it to compare the plans for several amounts; none"
        " is written then.",
        show_default=False,
    ),
]
OverridesFile = Annotated[
    Path | None,
    typer.Option(
        "--overrides",
        help="Read overrides from this YAML file, such as `patch_size: [96, 96, 64]`; options of the command "
        "line take precedence.",
        show_default=False,
    ),
]
Splits = Annotated[
    Path | None,
    typer.Option(
        "--splits",
        metavar="FILE",
        help="Take the folds from this splits_final.json of nnU-Net instead of making or keeping them.",
        show_default=False,
    ),
]
NewDataset = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="Write the dataset into this new folder, such as raw/Dataset900_Phantom."
    ),
]
Overwrite = Annotated[bool, typer.Option(help="Replace a dataset that exists.")]
Makers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-j",
        min=1,
        help="Make cases in this many processes; by default in one per core, at most 8.",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-j",
        min=1,
        help="Work in this many processes; by default in one for fewer than 16 cases, else in one per "
        "core, at most 8.",
        show_default=False,
    ),
]
Configurations = Annotated[
    list[str] | None,
    typer.Option(
        "--configuration",
        "-c",
        metavar="NAME",
        help="Preprocess for this configuration, by index or name. Repeat it for several; by default 0, the "
        "recommended one.",
        show_default=False,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", help="Compute on this device: auto (a GPU if there is one), cpu, cuda or cuda:N."
    ),
]
Report = Annotated[
    bool,
    typer.Option(
        "--report/--no-report",
        help="Write report.html, a page with pictures and charts of what there is, or leave it out.",
    ),
]

LABEL_SCHEMES = (
    "verse, spineps-instance, spineps-subregion, totalsegmentator, totalsegmentator-vertebrae-mr, "
    "totalsegmentator-vertebrae-body, totalsegmentator-vertebrae-pp, totalspineseg, spider-from-bottom (L5 "
    "is 1), spider-from-top (L5 is 24), ctspine1k or structures (vertebra 1, disc 2, canal 3, sacrum 4)"
)

LabelMaps = Annotated[
    list[Path],
    typer.Option(
        "--input",
        "-i",
        metavar="PATH",
        help="Take this label map, or each in this folder. Repeat it for several.",
    ),
]
DEFAULT_SCHEME = "verse"
"""Scheme of label maps of which nothing is stated."""

LabelScheme = Annotated[
    str | None,
    typer.Option(
        "--scheme",
        metavar="SCHEME",
        help=f"State the scheme of the label maps: {LABEL_SCHEMES}.",
        show_default=DEFAULT_SCHEME,
    ),
]
LabelsOf = Annotated[
    Path | None,
    typer.Option(
        "--labels-of",
        metavar="DATASET.JSON",
        help="Take the meaning of label values from this dataset.json instead of a scheme; its vertebrae "
        "are levels by their names, such as L1.",
    ),
]

For = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="gpu|cpu",
        help="Plan for a GPU, which need not be in this machine if --memory says how much it has, or for a "
        "CPU; by default for the device of --device.",
        show_default=False,
    ),
]


def either(argument: str | None, option: str | None, name: str) -> str | None:
    """Return what was given as an argument or as an option; None if neither was.

    Raises:
        typer.BadParameter: If both were given, and differ.
    """
    if argument is not None and option is not None and argument != option:
        raise typer.BadParameter(f"found {argument} and {option}; give one of them", param_hint=name)
    return argument if option is None else option


def named_dataset(argument: str | None, option: str | None, workspace: Path | None = None) -> str:
    """Return the dataset that was named as an argument or as an option.

    Args:
        argument: Name that was given as an argument.
        option: Name that was given as an option.
        workspace: Folder whose datasets are named where none was; by default the usual one.

    Raises:
        typer.BadParameter: If none was named, or two.
    """
    found = either(argument, option, "--dataset / -d")
    if found is None:
        there = [dataset.name for dataset in _Folders.locate(workspace).datasets()]
        give = f"give -d {there[0]}" if there else "give -d and its number or name"
        others = f", or another of {listed(there[1:])}" if there[1:] else ""
        raise typer.BadParameter(f"found no dataset; {give}{others}", param_hint="--dataset / -d")
    return found


def stated_scheme(scheme: str | None, dataset: Path | None) -> str:
    """Return the name of the scheme of label maps.

    Args:
        scheme: The one that was stated; None for none.
        dataset: The dataset.json that gives label values their meaning instead; None for none.

    Raises:
        DatasetError: If both were stated.
    """
    if scheme is not None and dataset is not None:
        raise DatasetError(
            f"expected one meaning of the label values, found --scheme {scheme} and --labels-of {dataset}; "
            "leave one of them out"
        )
    return scheme or DEFAULT_SCHEME


def check_exists(path: Path, what: str) -> None:
    """Refuse a path that leads nowhere.

    Args:
        path: The path that was given.
        what: Content that is expected there, and where it comes from, in words.

    Raises:
        AutospineError: If there is nothing at the path.
    """
    if not path.exists():
        raise AutospineError(f"expected {what} at {path}, found nothing there; check the path")
