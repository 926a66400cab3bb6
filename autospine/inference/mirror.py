"""Test-time mirroring: networks that also see each tile with left and right exchanged."""

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
    """A network that sees tiles mirrored; its logits are mirrored back.

    Args:
        network: Maps tiles to logits.
        channels: For each channel of the logits, the one that takes its place in the mirror image.
    """

    def __init__(self, network: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        self.network, self.channels = network, list(channels)

    def forward(self, tiles: ImageBatch) -> LogitBatch:
        """Return the logits (B, K, S, P, L) of tiles (B, C, S, P, L)."""
        logits: Tensor = self.network(tiles.flip(LEFT))
        if self.channels != sorted(self.channels):
            logits = logits[:, self.channels]
        return logits.flip(LEFT)


def with_mirror(
    networks: Sequence[nn.Module], labels: LabelSpace, augmentation: Augmentation
) -> list[nn.Module]:
    """Return every network, each followed by itself seeing the mirror image.

    Args:
        networks: Networks of a plan.
        labels: Labels of the plan.
        augmentation: The plan's augmentation, which says whether and how training has mirrored.

    Raises:
        ModelError: If training has not mirrored.
    """
    channels = mirrored_channels(labels, augmentation)
    return [view for network in networks for view in (network, Mirrored(network, channels))]


def mirrored_channels(labels: LabelSpace, augmentation: Augmentation) -> list[int]:
    """Return for each channel the one that has its label values in the mirror image.

    Raises:
        ModelError: If training has not mirrored, or a channel has no counterpart.
    """
    swapped = np.arange(len(labels.integers) + 1)
    for a, b in augmentation.mirror_pairs:
        swapped[[a, b]] = b, a
    rows = [tuple(row) for row in labels.membership]
    mirrored = [tuple(row) for row in labels.membership[:, swapped]]
    if not augmentation.mirror_axes or set(mirrored) != set(rows):
        raise ModelError(
            "expected a model that was trained with left and right mirrored, found one that was not (why: "
            "mirror_axes of its plan); leave --mirror out"
        )
    return [rows.index(row) for row in mirrored]
