"""Import of other software's weights, for trainings that begin from them."""

from pathlib import Path
from typing import Literal

from autospine.core.errors import FormatError, PlanError
from autospine.core.types import Shape3
from autospine.models.imported_weights import save_imported
from autospine.network import AdaptiveSwinUNETR, ImportReport, StackingOrder, load_monai_file
from autospine.plan import Configuration, Plan, build_network
from autospine.storage.file_names import path_below
from autospine.storage.workspace import DatasetLocation

PRETRAINED = "_pretrained.safetensors"
"""Ending of imported weights, after the configuration's name."""


def import_weights(
    location: DatasetLocation,
    plan: Plan,
    configuration: Configuration,
    file: Path,
    output: Path | None = None,
    *,
    merge_order: StackingOrder | Literal["auto"] = "auto",
    window_size: Shape3 | None = None,
    exact: bool = False,
) -> tuple[ImportReport, Path]:
    """Convert weights of MONAI's SwinUNETR for a configuration's network and write them.

    Args:
        location: Folders of the dataset.
        plan: Plan of the dataset.
        configuration: One of the plan's, with a Swin UNETR.
        file: Path of a checkpoint.
        output: Path that ends in `.safetensors`; by default beside the plan.
        merge_order: Order of the tokens of a merging, as `autospine.network.load_monai` takes it.
        window_size: Attention window of the file's network, in tokens.
        exact: Whether to refuse conversions that change what the network computes.

    Returns:
        A report on each tensor, and the path of the written file.

    Raises:
        PlanError: If the configuration has another network.
        FormatError: If the file does not fit, or `output` has another ending.
    """
    target = output or path_below(location.preprocessed, f"{configuration.name}{PRETRAINED}")
    if target.suffix != ".safetensors":
        raise FormatError(f"expected an --output that ends in .safetensors, found {target}; name it so")
    network = build_network(plan, configuration)
    if not isinstance(network, AdaptiveSwinUNETR):
        raise PlanError(
            f"expected a configuration with a Swin UNETR to take MONAI's weights, found "
            f"{configuration.name!r} with {configuration.network.name}; choose another with -c"
        )
    report = load_monai_file(network, file, merge_order=merge_order, window_size=window_size, exact=exact)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_imported(target, network, report, plan=plan, configuration=configuration, source=file.name)
    return report, target
