"""Cross-entropy and Dice, balanced by lambda."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from autospine.core.labels import LabelSpace
from autospine.core.tensor_types import LabelBatch, LogitBatch
from trainers.distributed import add_up
from trainers.label_targets import LabelTargets, SoftOverlap
from trainers.losses.loss import Loss, LossResult


class DiceCE(Loss):
    """`lambda_ce * cross-entropy + (1 - lambda_ce) * (1 - Dice)`.

    Plain labels use softmax and average Dice over the foreground classes; regions use sigmoid and binary
    cross-entropy. Ignored voxels count in neither. Dice is taken over the whole batch, including the patches
    of other processes. The parts are `ce` and `dice_loss`, which is 1 - Dice.

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
            logits: (B, K, S, P, L) of any floating-point type; computed with in float32.
            labels: (B, S, P, L) stored indices.
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
        kept = SoftOverlap(*(each.detach() for each in overlap))
        # In float64, so that the mean over an epoch is exact to the last digit that is written.
        dice_loss = 1 - kept.dice.double().mean()
        return LossResult(total=total, parts={"ce": entropy.detach(), "dice_loss": dice_loss}, overlap=kept)

    def _summed_entropy(
        self,
        logits: Float[Tensor, "B K S P L"],
        log_probabilities: Float[Tensor, "B K S P L"],
        target: Bool[Tensor, "B K S P L"],
        valid: Bool[Tensor, "B S P L"],
    ) -> Float[Tensor, ""]:
        """Sum the cross-entropy over the voxels; for regions, sum its mean over them."""
        if self.targets.regions:
            each = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")
            return (each * valid[:, None]).sum() / logits.shape[1]
        return -(log_probabilities * target).sum()
