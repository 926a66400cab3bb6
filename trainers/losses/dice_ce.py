"""Weighted sum of cross-entropy and Dice loss."""

from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.tensor_types import LabelBatch, LogitBatch
from trainers.distributed import add_up
from trainers.label_targets import Compiler, LabelTargets, SoftOverlap
from trainers.losses.loss import Loss, LossResult


class DiceCE(Loss):
    """Weighted sum `lambda_ce * cross-entropy + (1 - lambda_ce) * (1 - Dice)`.

    Plain labels use softmax and average Dice over the foreground classes; regions use sigmoid and binary
    cross-entropy. Ignored voxels count in neither term. Dice is taken over the whole batch, including the
    patches of other processes. The parts are `ce` and `dice_loss`, which is 1 - Dice. The gradient is derived
    in `trainers.class_sums.class_sums`.

    Args:
        labels: Label space that says which stored indices belong to which channel.
        lambda_ce: Weight of the cross-entropy, in [0, 1].
    """

    covers_all_processes = True

    def __init__(self, labels: LabelSpace, lambda_ce: float) -> None:
        super().__init__()
        self.lambda_ce = lambda_ce
        self.targets = LabelTargets(labels)

    def join_passes(self, compiler: Compiler | None) -> None:
        """Let a compiler join the sums over voxels and their gradient."""
        self.targets.join_passes(compiler)

    def forward(self, logits: LogitBatch, labels: LabelBatch) -> LossResult:
        """Compute the loss over the patches of all processes.

        Args:
            logits: Logits (B, K, S, P, L) of any floating-point type; the loss is computed in float32, or in
                float64 if they are.
            labels: Stored indices (B, S, P, L).
        """
        sums = self.targets.sums(logits, labels)
        voxels = (labels != IGNORE_INDEX).sum()
        entropy, n, *by_channel = add_up(sums.entropy, voxels, sums.both, sums.predicted, sums.true)
        entropy = entropy / n.clamp_min(1)
        overlap = self.targets.foreground(*by_channel)
        total = self.lambda_ce * entropy + (1 - self.lambda_ce) * (1 - overlap.dice.mean())
        detached = SoftOverlap(*(voxels.detach() for voxels in overlap))
        # In float64, so that the mean over an epoch is exact to the last digit that is written.
        dice_loss = 1 - detached.dice.double().mean()
        parts = {"ce": entropy.detach(), "dice_loss": dice_loss}
        return LossResult(total=total, parts=parts, overlap=detached)
