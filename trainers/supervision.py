"""Deep supervision: further heads at lower resolutions, which training alone has (Dou et al., 2017)."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.errors import TrainingError
from autospine.core.tensor_types import ImageBatch, LabelBatch
from autospine.network.base import SegmentationNetwork
from autospine.network.unet import Head
from trainers.losses import Loss, LossResult

HEADS = 3
"""Heads below full resolution, at most."""


class DeeplySupervised(nn.Module):
    """A network whose decoder is asked for logits on several levels.

    Args:
        network: with a decoder; it is not changed.
        classes: channels of the logits.

    Raises:
        TrainingError: if the network has no feature maps to look at.
    """

    def __init__(self, network: nn.Module, classes: int) -> None:
        if not isinstance(network, SegmentationNetwork) or not network.coarse_widths:
            raise TrainingError(
                "expected a network whose decoder has several levels for --deep-supervision, found "
                f"{type(network).__name__}; train without it"
            )
        super().__init__()
        self.network = network
        self.heads = nn.ModuleList(Head(width, classes) for width in network.coarse_widths[:HEADS])

    def forward(self, image: ImageBatch) -> list[Float[Tensor, "B K _ _ _"]]:
        """The logits (B, K, S, P, L), then those of each head at lower resolutions, finest first."""
        logits, coarse = self.network.with_coarse(image)
        return [logits, *(head(maps) for head, maps in zip(self.heads, coarse, strict=False))]


def supervise(
    loss: Loss, outputs: Sequence[Float[Tensor, "B K _ _ _"]], labels: LabelBatch
) -> tuple[Float[Tensor, ""], LossResult]:
    """Average the loss over all resolutions, weighted by 1/2^i from the finest on.

    Args:
        loss: Loss of one resolution.
        outputs: Logits (B, K, s, p, l), finest first; a single one is supervised as it is.
        labels: (B, S, P, L) stored indices at full resolution; coarser ones are their nearest neighbours.

    Returns:
        The average, to learn from; and the result of the finest resolution, to show.
    """
    finest = loss(outputs[0], labels)
    total, weights = finest.total, 1.0
    for i, logits in enumerate(outputs[1:], start=1):
        nearest = F.interpolate(labels[:, None].float(), logits.shape[2:], mode="nearest-exact")
        total = total + loss(logits, nearest[:, 0].to(labels.dtype)).total / 2**i
        weights += 1 / 2**i
    return total / weights, finest
