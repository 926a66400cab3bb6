"""The interface of a loss: a total to learn from, and named parts to log."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.tensor_types import LabelBatch, LogitBatch
from trainers.label_targets import SoftOverlap


@dataclass(frozen=True, kw_only=True, slots=True)
class LossResult:
    """The loss of one batch."""

    total: Float[Tensor, ""]
    """Scalar to learn from."""

    parts: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Scalars by name, which are logged, plotted and sent to trackers."""

    overlap: SoftOverlap | None = None
    """Overlap with the labels where the loss has computed it anyway; the learner computes it otherwise."""


class Loss(nn.Module, ABC):
    """A loss over logits and stored labels.

    A loss is made with the `LabelSpace` as `labels` and the plan's `loss_settings` as keywords.
    """

    covers_all_processes: bool = False
    """Whether the result is already taken over the patches of all processes that train together; the results
    of other losses are averaged over the processes."""

    @abstractmethod
    def forward(self, logits: LogitBatch, labels: LabelBatch) -> LossResult:
        """Compute the loss.

        Args:
            logits: (B, K, S, P, L) of any floating-point type.
            labels: (B, S, P, L) stored indices; voxels of `IGNORE_INDEX` count for nothing.
        """
