"""What the prediction of one volume takes beside the networks."""

from dataclasses import dataclass
from math import prod

from autospine.core.labels import LabelSpace
from autospine.core.types import Shape3
from autospine.inference.slab import slab_bytes
from autospine.inference.tiles import Layout
from autospine.inference.to_native import seam_bytes
from autospine.preprocessing.resample import BLOCK

VOXEL_BYTES = 2
"""Of an image as most are stored: 16-bit integers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseMemory:
    """Bytes, however many networks there are."""

    image: int
    """The image as it was read, its label map, and the rows of the prepared image that tiles are cut from."""

    scores: int
    """The slab of class scores, and what brings pieces of it to the image's grid."""

    @property
    def total(self) -> int:
        """Everything."""
        return self.image + self.scores


def case_memory(
    layout: Layout,
    native: Shape3,
    channels: int,
    labels: LabelSpace,
    voxel_bytes: int = VOXEL_BYTES,
    *,
    wide: bool = False,
    resampled: bool = True,
) -> CaseMemory:
    """What a volume takes.

    Args:
        layout: the tiles that are run, on the prepared image.
        native: voxels of the volume.
        channels: of the image.
        labels: of the model.
        voxel_bytes: of the volume.
        wide: whether the slab finishes whole rows.
        resampled: whether the prepared image has other rows or columns than the volume.
    """
    rows = min(layout.shape[0], layout.tile[0] + 2 * BLOCK)
    window = channels * rows * prod(layout.shape[1:]) * VOXEL_BYTES
    stored = prod(native) * (channels * voxel_bytes + labels.dtype.itemsize)
    scores = slab_bytes(layout, labels.n_channels, wide=wide)
    if resampled:
        scores += seam_bytes(layout, labels.n_channels)
    return CaseMemory(image=stored + window, scores=scores)
