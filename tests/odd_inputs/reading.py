"""Compare what AutoSpine reads, and the label maps that it writes, with the volume in a file."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autospine.core.geometry import check_spacing
from autospine.dataset.inputs import find_inputs
from autospine.io.images import Volume, read_volume
from odd_inputs.trial import Right

VOXELS = 0.01
"""Share of a voxel by which places may differ."""

MM = 0.01


def read_input(source: Path) -> list[Volume]:
    """Read every case that `predict -i source` would, with a model of one channel."""
    cases, faults = find_inputs(source, ("image",))
    assert not faults, faults
    volumes = [read_volume(list(case.images)) for case in cases]
    for case, volume in zip(cases, volumes, strict=True):
        check_spacing(volume.grid.spacing_mm, str(case.images[0]))
    return volumes


def reading_difference(source: Path, expect: Right) -> str | None:
    """Describe how what is read differs from the volume in the file; None if it does not."""
    (volume,) = read_input(source)
    if sorted(volume.array.shape[1:]) != sorted(expect.array.shape):
        return f"read with {volume.array.shape[1:]} voxels instead of {expect.array.shape}"
    index = np.indices(expect.array.shape).reshape(3, -1)[::-1].T
    places = index @ expect.affine[:3, :3].T + expect.affine[:3, 3]
    found = volume.grid.index(places)
    nearest = np.rint(found).astype(int)
    off = float(np.abs(found - nearest).max())
    if off > VOXELS or nearest.min() < 0 or (nearest >= volume.array.shape[1:]).any():
        return f"read at other places, off by {off:.3g} of a voxel or by more than one"
    values = volume.array[0][tuple(nearest.T)].astype(np.float64)
    apart = float(np.abs(values - expect.array.ravel().astype(np.float64)).max())
    return f"read with other values, off by up to {apart:.6g}" if apart > expect.tolerance else None


def writing_difference(out: Path, expect: Right) -> str | None:
    """Describe how the only label map in a folder lies elsewhere than the volume; None if it does not."""
    (written,) = [path for path in out.iterdir() if path.name.endswith(".nii.gz")]
    image = sitk.ReadImage(str(written))
    ours = _corners(image.TransformContinuousIndexToPhysicalPoint, image.GetSize())
    theirs = _corners(lambda c: expect.affine[:3, :3] @ c + expect.affine[:3, 3], expect.array.shape[::-1])
    same = np.allclose(sorted(ours), sorted(theirs), atol=MM)
    return None if same else "label map written at other places"


def _corners(
    place: Callable[[np.ndarray], Sequence[float]], size: Sequence[int]
) -> Iterator[tuple[float, ...]]:
    for corner in np.ndindex(2, 2, 2):
        yield tuple(np.round(place(np.asarray(corner, dtype=float) * (np.asarray(size) - 1)), 3))
