"""The interface of a loss: a total to learn from, and named parts to log."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.tensor_types import LabelBatch, LogitBatch
from trainers.label_targets import Compiler, SoftOverlap

RESERVED = frozenset(
    {
        *("epoch", "step", "progress", "learning_rate", "seconds", "seconds_waited_for_data"),
        *("loss", "loss_parts", "dice", "pseudo_dice", "early_stop", "skipped_steps"),
        *("held_out_dice", "held_out_dice_by_class", "seconds_held_out"),
        *("fusion_weights", "level_weights", "gamma", "monitors", "warnings"),
    }
)
"""Names that no part of another distribution's loss may have, in any capitals: the columns of metrics.jsonl
but `ce` and `dice_loss`, which are parts, and the word `dice`, under which the training line shows the Dice
of the epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossResult:
    """The loss of one batch."""

    total: Float[Tensor, ""]
    """Scalar to learn from."""

    parts: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Scalars by name that are logged, plotted and sent to trackers."""

    overlap: SoftOverlap | None = None
    """Overlap with the labels if the loss computes it anyway; if None, the learner computes it."""


class Loss(nn.Module, ABC):
    """A loss over logits and stored labels.

    A loss is made with the `LabelSpace` as `labels` and the plan's `loss_settings` as keywords.
    """

    covers_all_processes: bool = False
    """Whether `forward` covers the patches of all processes that train together; the results of other losses
    are averaged over the processes."""

    @abstractmethod
    def forward(self, logits: LogitBatch, labels: LabelBatch) -> LossResult:
        """Compute the loss.

        Args:
            logits: Logits (B, K, S, P, L) of any floating-point type.
            labels: Stored indices (B, S, P, L); voxels of `IGNORE_INDEX` have to be left out.
        """

    def join_passes(self, compiler: Compiler | None) -> None:
        """Let a compiler join what the loss computes on a GPU, or compute it plainly again.

        Losses that are not written for a compiler do nothing.

        Args:
            compiler: `torch.compile`; None for the plain form.
        """

    def fault(self, logits: LogitBatch, labels: LabelBatch) -> str | None:
        """Say that the loss gives what is not finite for logits that are, if it can be mended or replaced.

        Args:
            logits: Logits (B, K, S, P, L) of any floating-point type.
            labels: Stored indices (B, S, P, L).

        Returns:
            What is wrong with it, and how to mend that; None for the losses of AutoSpine, which are finite
            wherever the logits are.
        """
        return None
