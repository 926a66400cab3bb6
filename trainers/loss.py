"""Cross-entropy and Dice, balanced by lambda."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.tensor_types import LabelBatch, LogitBatch
from trainers.distributed import add_up
from trainers.monitors import Counts, count

SMOOTH = 1.0
"""Added above and below in Dice, in voxels: a class neither there nor predicted costs nothing."""


class Overlap(NamedTuple):
    """Voxels of each foreground class in prediction and labels; predicted ones by their probability."""

    both: Float[Tensor, "n"]
    """Predicted where they are."""

    predicted: Float[Tensor, "n"]
    true: Float[Tensor, "n"]
    """In the labels."""

    @property
    def dice(self) -> Float[Tensor, "n"]:
        """Soft Dice of each class, 1 where it is neither there nor predicted."""
        return (2 * self.both + SMOOTH) / (self.predicted + self.true + SMOOTH)


class SegmentationLoss(nn.Module):
    """`lambda_ce * cross-entropy + (1 - lambda_ce) * (1 - Dice)`.

    Plain labels use softmax and count Dice over the foreground; regions use sigmoid and binary
    cross-entropy. Voxels of `IGNORE_INDEX` count in neither. Dice is taken over the whole batch,
    that of other processes included.

    Args:
        labels: which stored indices belong to which channel.
        lambda_ce: in [0, 1].
    """

    membership: torch.Tensor

    def __init__(self, labels: LabelSpace, lambda_ce: float) -> None:
        super().__init__()
        self.regions, self.lambda_ce = labels.regions, lambda_ce
        # One more column so that ignored voxels can be looked up too: they belong to nothing.
        table = torch.from_numpy(labels.membership)
        self.register_buffer("membership", torch.cat([table, torch.zeros_like(table[:, :1])], dim=1))

    def forward(self, logits: LogitBatch, labels: LabelBatch) -> tuple[torch.Tensor, torch.Tensor, Overlap]:
        """The loss and its parts.

        Args:
            logits: (B, K, S, P, L), any number format.
            labels: stored indices.

        Returns:
            Scalars: the loss and the cross-entropy; and what Dice is made of.
        """
        logits = logits.float()
        valid = labels != IGNORE_INDEX
        column = torch.where(valid, labels.long(), self.membership.shape[1] - 1)
        target = self.membership[:, column].movedim(0, 1)
        log_probabilities = F.logsigmoid(logits) if self.regions else F.log_softmax(logits, dim=1)
        probabilities = log_probabilities.exp()
        entropy, n, *sums = add_up(
            self._entropy(logits, log_probabilities, target, valid),
            valid.sum(),
            *self._overlap(probabilities, target, valid),
        )
        entropy = entropy / n.clamp_min(1)
        overlap = Overlap(*sums)
        loss = self.lambda_ce * entropy + (1 - self.lambda_ce) * (1 - overlap.dice.mean())
        return loss, entropy.detach(), Overlap(*(each.detach() for each in overlap))

    def count(self, logits: Float[Tensor, "K S P L"], labels: UInt8[Tensor, "S P L"]) -> Counts:
        """What the prediction for one patch and its labels have in common, for the monitors."""
        return count(logits.detach(), labels, self.membership, regions=self.regions)

    def _entropy(
        self, logits: torch.Tensor, log_probabilities: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """The cross-entropy summed over the voxels; of regions their mean."""
        if self.regions:
            each = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")
            return (each * valid[:, None]).sum() / logits.shape[1]
        return -(log_probabilities * target).sum()

    def _overlap(self, probabilities: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> Overlap:
        """What this process sees of each foreground class."""
        first = 0 if self.regions else 1
        probabilities, target = probabilities[:, first:], target[:, first:]
        if not valid.all():
            probabilities = probabilities * valid[:, None]
        space = (0, 2, 3, 4)
        return Overlap(
            both=(probabilities * target).sum(space),
            predicted=probabilities.sum(space),
            true=target.sum(space).to(probabilities.dtype),
        )
