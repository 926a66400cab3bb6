"""The preview of a predicted case: its labels over slices of its image."""

from pathlib import Path

from autospine.core.labels import LabelSpace
from autospine.core.types import ChannelArray, LabelArray, Modality, Vector3
from autospine.report.montage import Panel, write_montage


def write_preview(
    path: Path,
    image: ChannelArray,
    indices: LabelArray,
    labels: LabelSpace,
    spacing_mm: Vector3,
    modality: Modality | None,
) -> None:
    """Write the slices of one case beside the same slices with its labels, as a PNG.

    Args:
        path: Path of the PNG, which is replaced as a whole; its name without the ending is the title.
        image: Grey values (S, P, L), in HU for CT.
        indices: Predicted stored indices (S, P, L).
        labels: Label space of the indices.
        spacing_mm: Voxel size (S, P, L).
        modality: Modality, which decides the grey-value window; None is treated as MR.
    """
    panel = Panel(
        title=path.stem.removesuffix("_preview"),
        image=image,
        prediction=indices,
        spacing_mm=spacing_mm,
        modality=modality,
        score="" if indices.any() else "no labels",
    )
    write_montage(path, [panel], labels)
