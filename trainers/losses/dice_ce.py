"""Weighted sum of cross-entropy and Dice loss."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from autospine.core.labels import LabelSpace
from autospine.core.tensor_types import LabelBatch, LogitBatch
from trainers.distributed import add_up
from trainers.label_targets import LabelTargets, SoftOverlap
from trainers.losses.loss import Loss, LossResult


class DiceCE(Loss):
    """Weighted sum `lambda_ce * cross-entropy + (1 - lambda_ce) * (1 - Dice)`.

    Plain labels use softmax and average Dice over the foreground classes; regions use sigmoid and binary
    cross-entropy. Ignored voxels count in neither term. Dice is taken over the whole batch, including the
    patches of other processes. The parts are `ce` and `dice_loss`, which is 1 - Dice.

    Args:
        labels: Label space that says which stored indices belong to which channel.
        lambda_ce: Weight of the cross-entropy, in [0, 1].
    """

    covers_all_processes = True

    def __init__(self, labels: LabelSpace, lambda_ce: float) -> None:
        super().__init__()
        self.lambda_ce = lambda_ce
        self.targets = LabelTargets(labels)

    def forward(self, logits: LogitBatch, labels: LabelBatch) -> LossResult:
        """Compute the loss over the patches of all processes.

        Args:
            logits: Logits (B, K, S, P, L) of any floating-point type; the loss is computed in float32.
            labels: Stored indices (B, S, P, L).
        """
        logits = logits.float()
        target, valid = self.targets(labels)
        regions = self.targets.regions
        log_probabilities = F.logsigmoid(logits) if regions else F.log_softmax(logits, dim=1)
        probabilities = log_probabilities.exp()
        entropy, n, *sums = add_up(
            self._summed_entropy(logits, log_probabilities, target, valid),
            valid.sum(),
            *self.targets.overlap(probabilities, target, valid),
        )
        entropy = entropy / n.clamp_min(1)
        overlap = SoftOverlap(*sums)
        total = self.lambda_ce * entropy + (1 - self.lambda_ce) * (1 - overlap.dice.mean())
        detached = SoftOverlap(*(voxels.detach() for voxels in overlap))
        # In float64, so that the mean over an epoch is exact to the last digit that is written.
        dice_loss = 1 - detached.dice.double().mean()
        parts = {"ce": entropy.detach(), "dice_loss": dice_loss}
        return LossResult(total=total, parts=parts, overlap=detached)

    def _summed_entropy(
        self,
        logits: Float[Tensor, "B K S P L"],
        log_probabilities: Float[Tensor, "B K S P L"],
        target: Bool[Tensor, "B K S P L"],
        valid: Bool[Tensor, "B S P L"],
    ) -> Float[Tensor, ""]:
        """Sum the cross-entropy over the voxels; for regions, sum its mean over the regions."""
        if self.targets.regions:
            entropy = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")
            return (entropy * valid[:, None]).sum() / logits.shape[1]
        # Ignored voxels have no target, so that they add nothing here.
        return -(log_probabilities * target).sum()
