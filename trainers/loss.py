"""Cross-entropy and Dice, balanced by lambda."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from autospine.labels import IGNORE_INDEX, LabelSpace
from autospine.types import LabelBatch, LogitBatch
from trainers.distributed import add_up
from trainers.monitors import Counts, count

SMOOTH = 1.0
"""Added above and below in Dice, in voxels: a class neither there nor predicted costs nothing."""


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

    def forward(
        self, logits: LogitBatch, labels: LabelBatch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The loss and its parts.

        Args:
            logits: (B, K, S, P, L), any number format.
            labels: stored indices.

        Returns:
            Scalars: the loss and the cross-entropy; and the soft Dice of each foreground class (n,), 1 where
            a class is neither there nor predicted.
        """
        logits = logits.float()
        valid = labels != IGNORE_INDEX
        column = torch.where(valid, labels.long(), self.membership.shape[1] - 1)
        target = self.membership[:, column].movedim(0, 1)
        log_probabilities = F.logsigmoid(logits) if self.regions else F.log_softmax(logits, dim=1)
        probabilities = log_probabilities.exp()
        entropy, n, overlap, total = add_up(
            self._entropy(logits, log_probabilities, target, valid),
            valid.sum(),
            *self._overlap(probabilities, target, valid),
        )
        entropy = entropy / n.clamp_min(1)
        dice = (2 * overlap + SMOOTH) / (total + SMOOTH)
        loss = self.lambda_ce * entropy + (1 - self.lambda_ce) * (1 - dice.mean())
        return loss, entropy.detach(), dice.detach()

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

    def _overlap(
        self, probabilities: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each foreground class what is predicted rightly, and what is predicted or there; in voxels."""
        first = 0 if self.regions else 1
        probabilities, target = probabilities[:, first:], target[:, first:]
        if not valid.all():
            probabilities = probabilities * valid[:, None]
        space = (0, 2, 3, 4)
        return (probabilities * target).sum(space), probabilities.sum(space) + target.sum(space)
