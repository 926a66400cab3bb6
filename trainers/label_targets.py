"""Stored labels as targets of the network's channels, and the soft overlap of a prediction with them."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.tensor_types import LabelBatch, LogitBatch
from trainers.distributed import add_up
from trainers.monitors import PatchCounts, count

SMOOTH = 1.0
"""Voxels added to numerator and denominator of Dice: 1 for a class neither present nor predicted."""


class SoftOverlap(NamedTuple):
    """Voxels of each foreground class in prediction and labels; predicted ones count by their probability."""

    both: Float[Tensor, "n"]
    """Probability of the class summed over the voxels that have it."""

    predicted: Float[Tensor, "n"]
    """Probability of the class summed over all voxels."""

    true: Float[Tensor, "n"]
    """Voxels that have the class in the labels."""

    @property
    def dice(self) -> Float[Tensor, "n"]:
        """Soft Dice of each class; 1 where it is neither present nor predicted."""
        return (2 * self.both + SMOOTH) / (self.predicted + self.true + SMOOTH)


class LabelTargets(nn.Module):
    """Table from stored label indices to the channels of a network; its buffer follows the device.

    Args:
        labels: Label space that says which stored indices belong to which channel.
    """

    membership: Tensor

    def __init__(self, labels: LabelSpace) -> None:
        super().__init__()
        self.regions = labels.regions
        # The additional column is for ignored voxels, which belong to no channel.
        table = torch.from_numpy(labels.membership)
        self.register_buffer("membership", torch.cat([table, torch.zeros_like(table[:, :1])], dim=1))

    def forward(self, labels: LabelBatch) -> tuple[Bool[Tensor, "B K S P L"], Bool[Tensor, "B S P L"]]:
        """Look up the target of every channel.

        Args:
            labels: Stored indices (B, S, P, L).

        Returns:
            The target of every channel (B, K, S, P, L), and a mask (B, S, P, L) of the voxels that count.
        """
        valid = labels != IGNORE_INDEX
        column = torch.where(valid, labels.long(), self.membership.shape[1] - 1)
        return self.membership[:, column].movedim(0, 1), valid

    def overlap(
        self,
        probabilities: Float[Tensor, "B K S P L"],
        target: Bool[Tensor, "B K S P L"],
        valid: Bool[Tensor, "B S P L"],
    ) -> SoftOverlap:
        """Sum the overlap of each foreground class over the patches of this process.

        Args:
            probabilities: Predicted probabilities (B, K, S, P, L) in [0, 1].
            target: Target of every channel (B, K, S, P, L), as `forward` returns it.
            valid: Mask of the voxels that count (B, S, P, L), as `forward` returns it.
        """
        first = 0 if self.regions else 1
        probabilities, target = probabilities[:, first:], target[:, first:]
        if not valid.all():
            probabilities = probabilities * valid[:, None]
        space = (0, 2, 3, 4)
        return SoftOverlap(
            both=(probabilities * target).sum(space),
            predicted=probabilities.sum(space),
            true=target.sum(space).to(probabilities.dtype),
        )

    @torch.no_grad()
    def overlap_of_logits(self, logits: LogitBatch, labels: LabelBatch) -> SoftOverlap:
        """Sum the overlap over the patches of all processes.

        Args:
            logits: Logits of the network (B, K, S, P, L).
            labels: Stored indices (B, S, P, L).
        """
        logits = logits.float()
        probabilities = logits.sigmoid() if self.regions else logits.softmax(dim=1)
        return SoftOverlap(*add_up(*self.overlap(probabilities, *self(labels))))

    def count(self, logits: Float[Tensor, "K S P L"], labels: UInt8[Tensor, "S P L"]) -> PatchCounts:
        """Count voxels and faces of one patch for the monitors.

        Args:
            logits: Logits of the patch (K, S, P, L).
            labels: Stored indices (S, P, L).
        """
        return count(logits.detach(), labels, self.membership, regions=self.regions)
