"""`autospine model`: export, import and inspection of models, and import of MONAI's weights."""

import errno
import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import App, app
from autospine.cli.model_tables import show_model
from autospine.cli.screen import say, say_next
from autospine.core.errors import FormatError, ModelError
from autospine.storage.file_names import folder_to_write
from autospine.storage.trained_models import (
    check_folds,
    describe_unfinished,
    find_folds,
    fold_names,
    named_model,
    unfinished_folds,
)
from autospine.storage.workspace import Workspace

if TYPE_CHECKING:
    from autospine.network import ImportReport

model = App(help="Export, import or inspect models, and import weights of MONAI.", no_args_is_help=True)
app.add_typer(model, name="model", rich_help_panel="Train")


class TokenOrder(StrEnum):
    """Orders in which the imported network stacks the tokens of a merging."""

    AUTO = "auto"
    FIXED = "fixed"
    LEGACY = "legacy"
    V2 = "v2"


CheckpointFile = Annotated[
    Path,
    typer.Argument(
        help="Convert this checkpoint of MONAI's SwinUNETR, .pt or .safetensors; model_swinvit.pt works too."
    ),
]
FilledConfiguration = Annotated[
    str,
    typer.Option("--configuration", "-c", help="Fill the network of this configuration, by index or name."),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Write this file; by default CONFIGURATION_pretrained.safetensors beside the plan.",
        show_default=False,
    ),
]
MergeOrder = Annotated[
    TokenOrder,
    typer.Option(
        help="State how mergings of the file's network stack tokens: as in MONAI since 1.5 (fixed), as "
        "before (legacy), or as `mergingv2` (v2); auto decides by the file."
    ),
]
AttentionWindow = Annotated[
    tuple[int, int, int] | None,
    typer.Option(
        help="State the attention window of the file's network, where the file does not.",
        metavar="S P L",
        show_default=False,
    ),
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Refuse conversions that change what the network computes.")
]
ArchiveFile = Annotated[
    Path, typer.Option("--output", "-o", help="Write this file; its name ends in .autospine.")
]
ExportedModel = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        help="Export this model folder; by default the model with the best cross-validation, or with most "
        "folds.",
        show_default=False,
    ),
]
ExportedFolds = Annotated[
    list[str] | None,
    typer.Option(
        "--fold",
        "-f",
        metavar="FOLD",
        help="Export this fold. Repeat it for several; by default those that predict as an ensemble.",
        show_default=False,
    ),
]
Licence = Annotated[
    str | None,
    typer.Option(
        help="State the licence by its name, such as CC-BY-4.0, or by a file with its text; by default "
        "the one that an imported model came with, else `not stated`.",
        show_default=False,
    ),
]
IntendedUse = Annotated[
    str | None,
    typer.Option(
        help="State what the model is for; by default as an imported model says, else research alone.",
        show_default=False,
    ),
]
InspectedModel = Annotated[
    Path | None,
    typer.Argument(
        metavar="[MODEL]",
        help="Inspect this .autospine file or model folder; by default the model with the best "
        "cross-validation, or with most folds.",
        show_default=False,
    ),
]
InspectedOption = Annotated[
    Path | None,
    typer.Option("--model", "-m", help="The same as the argument.", show_default=False),
]
InspectedConfiguration = Annotated[
    str | None,
    typer.Option(
        "--configuration", "-c", help="Inspect the model of this configuration, by name.", show_default=False
    ),
]
Sites = Annotated[
    bool,
    typer.Option("--sites/--no-sites", help="Export the scores by site, which have the sites' names."),
]
Half = Annotated[
    bool,
    typer.Option("--half", help="Store weights in 16 bits: half the size, and labels hardly differ."),
]


@model.command("import-weights")
def import_weights(
    file: CheckpointFile,
    dataset: shared_options.OptionalDataset = None,
    configuration: FilledConfiguration = "0",
    workspace: shared_options.Workspace = None,
    output: WeightsFile = None,
    merge_order: MergeOrder = TokenOrder.AUTO,
    window: AttentionWindow = None,
    exact: Exact = False,
) -> None:
    """Convert weights of MONAI's SwinUNETR for a planned network and list what became of each tensor.

    `autospine train --pretrained` initialises a network from them.
    """
    from autospine.pipeline.planned_dataset import read_plan

    location = Workspace.locate(workspace).dataset_or_last(dataset)
    planned = read_plan(location)
    chosen = planned.configuration(configuration)
    shared_options.check_exists(file, "weights of MONAI's SwinUNETR")

    from autospine.pipeline.weight_import import import_weights

    say(f"importing {file} for {location.name}, configuration {chosen.name}")
    report, written = import_weights(
        location,
        planned,
        chosen,
        file,
        output,
        merge_order=merge_order.value,
        window_size=window,
        exact=exact,
    )
    show_import(report)
    say(f"written: {written}")
    say_next("train", chosen.name, "--pretrained", str(written), *location.workspace.option)


@model.command("export")
def export(
    output: ArchiveFile,
    source: ExportedModel = None,
    dataset: shared_options.OptionalDataset = None,
    fold: ExportedFolds = None,
    licence: Licence = None,
    intended_use: IntendedUse = None,
    sites: Sites = True,
    half: Half = False,
    workspace: shared_options.Workspace = None,
) -> None:
    """Write a trained model as one file that can be verified, without names of cases.

    Names of sites are in its scores unless they are left out.
    """
    folder, reason = (source, "as asked for") if source else _chosen(workspace, dataset)
    if folder.is_file():
        raise ModelError(
            f"expected a model folder to export, found the file {folder}; unpack it with "
            "`autospine model import` first"
        )
    check_folds(folder, find_folds(folder), fold or ())

    from autospine.models.model_export import export_model
    from autospine.models.model_folder import find_localizer, open_model

    say(f"model: {folder} ({reason})")
    opened = open_model(folder)
    _say_unfinished(folder)
    manifest = export_model(
        opened,
        output,
        folds=fold,
        localizer=find_localizer(opened),
        licence=None if licence is None else _licence_text(licence),
        intended_use=intended_use,
        sites=sites,
        half=half,
    )
    size, folds = sum(entry.bytes for entry in manifest.files.values()), list(manifest.training)
    which = f"fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}"
    coarse = f" and {manifest.finder} to find the spine" if manifest.finder else ""
    say(f"written: {output}, {which}{coarse}, {size / 1e6:.1f} MB")
    if manifest.scores is not None and manifest.scores.sites:
        say(f"it names sites: {', '.join(manifest.scores.sites)}; leave them out with --no-sites")
    say_next("predict", "-m", str(output), "-i", "IMAGES", "-o", "OUTPUT")


@model.command("import")
def import_model(
    file: Annotated[Path, typer.Argument(help="Import this .autospine file.")],
    workspace: shared_options.Workspace = None,
) -> None:
    """Unpack an .autospine file into the workspace after sizes, hashes and weights have been verified.

    An existing model is not replaced.
    """
    if not file.exists():
        find_folds(file)  # which says what a model is

    from autospine.models.archive import read_manifest, unpack

    manifest = read_manifest(file)
    folder = folder_to_write(Workspace.locate(workspace).results, manifest.dataset, manifest.configuration)
    unpack(file, folder)
    say(f"written: {folder}")
    say_next("predict", "-m", str(folder), "-i", "IMAGES", "-o", "OUTPUT")


@model.command("info")
def info(
    path: InspectedModel = None,
    source: InspectedOption = None,
    dataset: shared_options.OptionalDataset = None,
    configuration: InspectedConfiguration = None,
    workspace: shared_options.Workspace = None,
) -> None:
    """Show the classes of a model, its training data, cross-validated scores, licence and intended use.

    Every hash of an .autospine file is verified.
    """
    if path is not None and source is not None and path != source:
        raise typer.BadParameter(f"found {path} and {source}; give one of them", param_hint="--model / -m")
    path = path or source
    if path is None:
        path, reason = _chosen(workspace, dataset, configuration)
        say(f"model: {path} ({reason})")
    path = named_model(path)
    if not path.is_file():  # as a bundle would be
        find_folds(path)

    from autospine.models.archive import opened_model
    from autospine.models.manifest import describe

    with opened_model(path) as opened:
        show_model(opened, describe(opened))
    _say_unfinished(path)


def _chosen(
    workspace: Path | None, dataset: str | None, configuration: str | None = None
) -> tuple[Path, str]:
    """Choose the model of a dataset as `predict` does, without its ensembles; return the reason as well."""
    from autospine.models.best import choose_model

    return choose_model(Workspace.locate(workspace), dataset, configuration)


def _say_unfinished(model: Path) -> None:
    """Name the folds of a model folder that are still in training, if there are any."""
    if unfinished := unfinished_folds(model):
        say(describe_unfinished(str(model), unfinished, fold_names(model)), "yellow")


def _licence_text(given: str) -> str:
    """Return the text of the file of this name, or the words themselves if there is none."""
    try:
        return Path(given).read_text(encoding="utf-8") if Path(given).is_file() else given
    except UnicodeDecodeError:
        raise FormatError(
            f"expected a licence in UTF-8 in {given}, found other bytes; save it as UTF-8"
        ) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a text
            return given
        raise


def show_import(report: "ImportReport") -> None:
    """Print what the network computes now, and which tensors were filled, converted, missing or unused."""
    say(f"layout {report.layout}; merge order {report.merge_order}: {report.merge_reason}")
    say(f"filled: {report.encoder_share:.0%} of the encoder's tensors, {len(report.filled)} in all")
    for difference in report.differences:
        say(f"differs from the file's network: {difference}", "yellow")
    _show("matched", report.matched)
    for how in dict.fromkeys(report.converted.values()):
        _show(how, [name for name, done in report.converted.items() if done == how])
    _show("missing in the file, begin at random", report.missing)
    _show("AutoSpine's own, begin as ever", report.own)
    _show("unused keys of the file", report.unused)


def _show(title: str, names: Sequence[str]) -> None:
    """Print a title with a count, and the names below it; those that differ in a number only count as one."""
    say(f"{title}: {len(names)}", "bold")
    for name, times in Counter(re.sub(r"\.\d+", ".*", name) for name in names).items():
        say(f"  {name}" + (f"  ({times})" if times > 1 else ""), "dim")
