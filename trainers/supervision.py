"""Deep supervision: auxiliary heads at lower resolutions that exist only in training (Dou et al., 2017)."""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from autospine.core.errors import TrainingError
from autospine.core.tensor_types import ImageBatch, LabelBatch
from autospine.network.base import SegmentationNetwork
from autospine.network.unet import Head
from trainers.losses import Loss, LossResult

HEADS = 3
"""Largest number of auxiliary heads, at 1/2, 1/4 and 1/8 of the resolution."""


class DeeplySupervised(nn.Module):
    """Network with an auxiliary head on each of several levels of its decoder.

    Args:
        network: Network whose decoder has several levels; it is not changed.
        classes: Number of channels of the logits.

    Raises:
        TrainingError: If the network has no decoder with several levels.
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
        """Compute the logits of the network and of the auxiliary heads.

        Args:
            image: Normalised image (B, C, S, P, L).

        Returns:
            The logits of the network (B, K, S, P, L), then those of each auxiliary head, finest first.
        """
        logits, coarse = self.network.with_coarse(image)
        return [logits, *(head(maps) for head, maps in zip(self.heads, coarse, strict=False))]


def supervise(
    loss: Loss, outputs: Sequence[Float[Tensor, "B K _ _ _"]], labels: LabelBatch
) -> tuple[Float[Tensor, ""], LossResult]:
    """Average the loss over all resolutions, weighted by 1/2^i from the finest on.

    Args:
        loss: Loss of one resolution.
        outputs: Logits (B, K, s, p, l) of each resolution, finest first; with a single one, the average is
            its loss.
        labels: Stored indices (B, S, P, L) at full resolution; coarser ones are their nearest neighbours.

    Returns:
        The average, to learn from; and the result of the finest resolution, to log.
    """
    every = levels(outputs, labels)
    finest = loss(*next(every))
    total, weights = finest.total, 1.0
    # One resolution after the other, so that the labels of a single one are held where the loss keeps none.
    for i, (logits, stored) in enumerate(every, start=1):
        total = total + loss(logits, stored).total / 2**i
        weights += 1 / 2**i
    return total / weights, finest


def levels(
    outputs: Sequence[Float[Tensor, "B K _ _ _"]], labels: LabelBatch
) -> Iterator[tuple[Float[Tensor, "B K s p l"], Integer[Tensor, "B s p l"]]]:
    """Yield the logits of each resolution with the stored indices there, finest first.

    Args:
        outputs: Logits (B, K, s, p, l) of each resolution, finest first.
        labels: Stored indices (B, S, P, L) at full resolution; coarser ones are their nearest neighbours.
    """
    yield outputs[0], labels
    for logits in outputs[1:]:
        # As bytes, which hold every stored index.
        nearest = F.interpolate(labels[:, None].byte(), logits.shape[2:], mode="nearest-exact")
        yield logits, nearest[:, 0].to(labels.dtype)
