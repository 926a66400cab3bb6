"""Stored labels as targets of the network's channels, and the soft overlap of a prediction with them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.tensor_types import LabelBatch, LogitBatch
from trainers.class_sums import ClassSums, Passes, class_sums, joined_gradient, joined_sums
from trainers.distributed import add_up
from trainers.monitors import PatchCounts, count

Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]
"""`torch.compile`, or a stand-in for it."""

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
    stored: Tensor

    def __init__(self, labels: LabelSpace) -> None:
        super().__init__()
        self.regions = labels.regions
        # The additional column is for ignored voxels, which belong to no channel.
        table = torch.from_numpy(labels.membership)
        self.register_buffer("membership", torch.cat([table, torch.zeros_like(table[:, :1])], dim=1))
        # Where every channel has a single stored index, comparing is faster than looking up.
        self._single = bool((table.sum(dim=1) == 1).all())
        stored = table.int().argmax(dim=1).to(torch.uint8)
        self.register_buffer("stored", stored[:, None, None, None], persistent=False)
        self._passes: Passes | None = None

    def forward(self, labels: LabelBatch) -> tuple[Bool[Tensor, "B K S P L"], Bool[Tensor, "B S P L"]]:
        """Look up the target of every channel, for a loss.

        Args:
            labels: Stored indices (B, S, P, L).

        Returns:
            The target of every channel (B, K, S, P, L), and a mask (B, S, P, L) of the voxels that count.
        """
        return self.channels(labels), labels != IGNORE_INDEX

    def channels(self, labels: LabelBatch) -> Bool[Tensor, "B K S P L"]:
        """Return which voxels belong to each channel; ignored ones belong to none.

        Args:
            labels: Stored indices (B, S, P, L).
        """
        if self._single:
            return labels[:, None] == self.stored
        column = labels.long().clamp_(max=self.membership.shape[1] - 1)
        return self.membership[:, column].movedim(0, 1)

    def join_passes(self, compiler: Compiler | None) -> None:
        """Let a compiler join what sums and gradients are made of; None to go through pieces again."""
        self._passes = None if compiler is None else (compiler(joined_sums), compiler(joined_gradient))

    def sums(self, logits: LogitBatch, labels: LabelBatch) -> ClassSums:
        """Sum cross-entropy, probabilities and labels over the patches of this process.

        Args:
            logits: Logits (B, K, S, P, L) of any floating-point type.
            labels: Stored indices (B, S, P, L).
        """
        return class_sums(logits, labels, self.channels, regions=self.regions, joined=self._passes)

    def foreground(self, both: Tensor, predicted: Tensor, true: Tensor) -> SoftOverlap:
        """Return the overlap of the foreground classes from sums (K) over the voxels of each channel."""
        first = 0 if self.regions else 1
        return SoftOverlap(both[first:], predicted[first:], true[first:])

    @torch.no_grad()
    def overlap_of_logits(self, logits: LogitBatch, labels: LabelBatch) -> SoftOverlap:
        """Sum the overlap over the patches of all processes.

        Args:
            logits: Logits of the network (B, K, S, P, L).
            labels: Stored indices (B, S, P, L).
        """
        _, *sums = self.sums(logits, labels)
        return self.foreground(*add_up(*sums))

    def count(self, logits: Float[Tensor, "K S P L"], labels: UInt8[Tensor, "S P L"]) -> PatchCounts:
        """Count voxels and faces of one patch for the monitors.

        Args:
            logits: Logits of the patch (K, S, P, L).
            labels: Stored indices (S, P, L).
        """
        return count(logits.detach(), labels, self.membership, regions=self.regions)
