"""Values of label maps and tissue maps, which dataset.json has to name."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from autospine.core.errors import DatasetError, counted, listed
from autospine.core.geometry import Grid, difference, turning
from autospine.io.images import read_volume

VALUES_MENTIONED = 10
"""Most unknown values that are named; an image given as labels would have thousands."""


def unnamed_values(
    start: str, voxels: Mapping[int, int], names: Collection[int], path: Path | None = None
) -> str | None:
    """Return what is wrong with values that dataset.json does not name; None if it names all of them.

    Args:
        start: Beginning of the sentence, which names the content of the map.
        voxels: Number of voxels of each value.
        names: Values that dataset.json names.
        path: File of the map, for the message; None where the case is named anyway.
    """
    unknown = [f"{value} ({counted(n, 'voxel')})" for value, n in voxels.items() if value not in names]
    if not unknown:
        return None
    return (
        f"{start} {sorted(names)} of dataset.json{f' in {path}' if path else ''}, found "
        f"{listed(unknown, VALUES_MENTIONED)}; mend either"
    )


def read_tissue_map(path: Path, grid: Grid, names: Mapping[int, str]) -> Int32[np.ndarray, "S P L"]:
    """Read the tissue map of a case.

    Args:
        path: File of the map.
        grid: Grid of the case's image or labels.
        names: Name of each tissue.

    Returns:
        The packed map, in the order of the grid's axes.

    Raises:
        ImageError: If it cannot be read.
        DatasetError: If it lies on another grid, is not of integers, or a tissue in it, be it the second one
            of a voxel, has no name.
    """
    mapped = read_volume((path,))
    if apart := difference(grid, mapped.grid):
        raise DatasetError(
            f"expected the tissue map {path} on the grid of its case, found {apart}; resample the map to the "
            "image"
        )
    if not np.issubdtype(mapped.array.dtype, np.integer):
        raise DatasetError(
            f"expected integers in the tissue map {path}, found {mapped.array.dtype}; store it as int32"
        )
    codes = turning(mapped.grid, grid).to_canonical(mapped.array[0]).astype(np.int32, copy=False)
    counts = np.zeros(1 << 16, dtype=np.int64)
    for plane in codes:
        # Without a share the integer is one tissue, as in an ordinary label map, and has to be below 256.
        mixed = plane >> 16 != 0
        for tissues in (plane[~mixed], plane[mixed] & 255, (plane[mixed] >> 8) & 255):
            counts += np.bincount(tissues, minlength=len(counts))
    present = {int(code): int(counts[code]) for code in np.flatnonzero(counts)}
    if fault := unnamed_values("expected the tissues", present, names, path):
        raise DatasetError(fault)
    return codes
