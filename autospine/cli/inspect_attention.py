"""`autospine attention`."""

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autospine.cli import shared_options
from autospine.cli.app import app
from autospine.cli.screen import say, show_table, table_of
from autospine.storage.atomic import check_writable
from autospine.storage.trained_models import named_model
from autospine.system.hardware import check_device_name

if TYPE_CHECKING:
    from autospine.prediction.attention_maps import AttentionResult

FIGURE = "attention.png"

TELLS_BOUNDARIES = 0.8
"""Area under the ROC curve from which a map is said to look at boundaries; one less it, to look away."""


class StatedModality(StrEnum):
    """Modality of an image, as the user states it."""

    CT = "CT"
    MR = "MR"


@app.command(
    rich_help_panel="Train", epilog="For example: autospine attention -m starter -i scan.nii.gz -o attention"
)
def attention(
    model: Annotated[
        Path,
        typer.Option(
            "--model", "-m", help="Look into this model: a folder, an .autospine file or `starter`."
        ),
    ],
    image: Annotated[
        Path, typer.Option("--input", "-i", help="Take this image: a file, or a folder of DICOM slices.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the files into this folder.")],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            "-l",
            help="Take the boundaries of this label map, on the image's grid; by default those of the "
            "model's own prediction.",
            show_default=False,
        ),
    ] = None,
    heads: Annotated[
        bool, typer.Option("--heads", help="Write the saliency of each head, too, not their mean alone.")
    ] = False,
    fold: Annotated[
        list[str] | None,
        typer.Option(
            "--fold",
            "-f",
            metavar="FOLD",
            help="Take the networks of this fold. Repeat it for several; by default of all that predict "
            "together.",
            show_default=False,
        ),
    ] = None,
    modality: Annotated[
        StatedModality | None,
        typer.Option(
            help="State the modality; by default it is told by the intensities.", show_default=False
        ),
    ] = None,
    device: shared_options.Device = "auto",
) -> None:
    """Show where a model's attention looks in an image, and whether that is at boundaries.

    Saliency and received attention of each stage on the image's grid, gamma, the fusion weights, a figure,
    and how well each map tells voxels within 2 mm of a boundary from others (area under the ROC curve).
    """
    path = named_model(model)
    shared_options.check_exists(path, "a trained model")
    shared_options.check_exists(image, "an image")
    if reference is not None:
        shared_options.check_exists(reference, "a label map")
    check_device_name(device)

    from autospine.models.archive import opened_model
    from autospine.prediction.attention_maps import write_attention
    from autospine.system.devices import choose_device

    check_writable(output)
    with ExitStack() as bundles:
        found = write_attention(
            bundles.enter_context(opened_model(path)),
            image,
            output,
            device=choose_device(device),
            folds=fold,
            modality=None if modality is None else modality.value,
            reference=reference,
            heads=heads,
        )
    _write_figure(output / FIGURE, found, f"{image.name}: attention of {model}")
    _show_findings(found)
    say(f"written: {FIGURE}, {', '.join(path.name for path in found.written)}, in {output}")


def _write_figure(path: Path, found: "AttentionResult", title: str) -> None:
    """Draw the maps over the image, and the saliency of each stage by the distance to a boundary."""
    from autospine.prediction.attention_maps import MEAN
    from autospine.report.attention_figure import AttentionCurve, write_attention_figure

    curves = [
        AttentionCurve(name=f"stage {each.stage}", auc=each.auc, points=each.curve)
        for each in found.findings
        if each.map == MEAN
    ]
    write_attention_figure(
        path,
        found.volume.array[0],
        found.labels,
        found.volume.grid.spacing_mm,
        found.maps,
        curves,
        title=title,
    )


def _show_findings(found: "AttentionResult") -> None:
    """Print the figures of each map, the fusion weights, and the headline in words."""
    from autospine.prediction.attention_maps import RECEIVED

    table = table_of("stage", "map", "gamma", "spread", "AUC at boundaries")
    for each in found.findings:
        numbers = (each.gamma, each.spread, each.auc)
        table.add_row(
            str(each.stage),
            "received attention" if each.map == RECEIVED else "saliency, " + each.map,
            *("–" if number is None else f"{number:.3f}" for number in numbers),
        )
    show_table(table)
    say(f"fusion weights: {', '.join(f'{weight:.2f}' for weight in found.fusion_weights)}")
    headline = found.headline
    if headline.auc is None:
        say("no boundary was found in the image, so that nothing is said of boundaries", "yellow")
    else:
        say(_on_boundaries(headline.stage, headline.auc))


def _on_boundaries(stage: int, auc: float) -> str:
    """Say what a stage's saliency makes of boundaries."""
    figure = f"AUC {auc:.2f}; 1: keys at boundaries gain weight, 0: they lose it, 0.5: no difference"
    if auc >= TELLS_BOUNDARIES:
        return f"stage {stage} looks at boundaries ({figure})"
    if auc <= 1 - TELLS_BOUNDARIES:
        return f"stage {stage} tells boundaries from the rest, and looks away from them ({figure})"
    return f"stage {stage} hardly tells boundaries from the rest ({figure})"
