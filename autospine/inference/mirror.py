"""Networks that see each tile from the other side, too."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from autospine.core.errors import ModelError
from autospine.core.labels import LabelSpace
from autospine.core.tensor_types import ImageBatch, LogitBatch
from autospine.plan import Augmentation

LEFT = -1
"""The axis of a batch that runs from right to left."""


class Mirrored(nn.Module):
    """What a network says of the tile with left and right exchanged, brought back.

    Args:
        network: maps tiles to logits.
        channels: of the logits, the one that takes the place of each.
    """

    def __init__(self, network: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        self.network, self.channels = network, list(channels)

    def forward(self, tiles: ImageBatch) -> LogitBatch:
        """Logits (B, K, S, P, L) of tiles (B, C, S, P, L)."""
        logits: Tensor = self.network(tiles.flip(LEFT))
        if self.channels != sorted(self.channels):
            logits = logits[:, self.channels]
        return logits.flip(LEFT)


def with_mirrored(
    networks: Sequence[nn.Module], labels: LabelSpace, strength: Augmentation
) -> list[nn.Module]:
    """Every network, and after it the same one seeing the mirror image.

    Args:
        networks: of a plan.
        labels: the plan's.
        strength: the plan's augmentation, which says whether and how training has mirrored.

    Raises:
        ModelError: if it has not.
    """
    channels = exchanged_channels(labels, strength)
    return [view for network in networks for view in (network, Mirrored(network, channels))]


def exchanged_channels(labels: LabelSpace, strength: Augmentation) -> list[int]:
    """For each channel the one that has its indices in the mirror.

    Raises:
        ModelError: if training has not mirrored, or a channel has no counterpart.
    """
    swapped = np.arange(len(labels.integers) + 1)
    for a, b in strength.mirror_pairs:
        swapped[[a, b]] = b, a
    rows = [tuple(row) for row in labels.membership]
    mirrored = [tuple(row) for row in labels.membership[:, swapped]]
    if not strength.mirror_axes or set(mirrored) != set(rows):
        raise ModelError(
            "expected a model that was trained with left and right mirrored, found one that was not (why: "
            "mirror_axes of its plan); leave --mirror out"
        )
    return [rows.index(row) for row in mirrored]
