"""What naming has changed in a label map, as it is stored."""

from collections.abc import Mapping, Sequence

from autospine.core.geometry import Grid
from autospine.evaluation.postprocessing import LabelChange
from autospine.vertebrae.label_naming import Renaming


def label_changes(
    renamings: Sequence[Renaming], grid: Grid, names: Mapping[str, str] | None = None
) -> tuple[LabelChange, ...]:
    """Return renamed vertebrae, and pieces of them, in voxels and ml.

    Args:
        renamings: What was renamed.
        grid: Grid of the map.
        names: Name of each level in the map's labels; None if they go by the levels.
    """
    voxel_ml = grid.spacing_mm[0] * grid.spacing_mm[1] * grid.spacing_mm[2] / 1000
    return tuple(
        LabelChange(
            from_label=each.from_label if names is None else names[each.from_label],
            to_label=each.to_label if names is None else names[each.to_label],
            voxels=round(each.ml / voxel_ml),
            ml=each.ml,
        )
        for each in renamings
    )
