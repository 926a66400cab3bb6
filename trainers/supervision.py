"""Deep supervision: further heads at lower resolutions, which training alone has (Dou et al., 2017)."""

import torch
import torch.nn.functional as F
from torch import nn

from autospine.core.errors import TrainingError
from autospine.core.tensor_types import ImageBatch, LabelBatch
from autospine.network.base import SegmentationNetwork
from autospine.network.unet import Head
from trainers.loss import Overlap, SegmentationLoss

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

    def forward(self, image: ImageBatch) -> list[torch.Tensor]:
        """The logits (B, K, S, P, L), then those of each head at lower resolutions, finest first."""
        logits, coarse = self.network.with_coarse(image)
        return [logits, *(head(maps) for head, maps in zip(self.heads, coarse, strict=False))]


def supervise(
    loss: SegmentationLoss, outputs: list[torch.Tensor], labels: LabelBatch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Overlap]:
    """The loss over all resolutions, weighted 1/2^i and normalised, and the parts of the finest.

    Args:
        loss: of one resolution.
        outputs: logits (B, K, s, p, l), finest first; a single one is supervised as it is.
        labels: stored indices at full resolution; coarser ones are their nearest neighbours.

    Returns:
        The loss to learn from; then the finest's loss and its parts as `SegmentationLoss` has them.
    """
    finest, entropy, overlap = loss(outputs[0], labels)
    total, weights = finest, 1.0
    for i, logits in enumerate(outputs[1:], start=1):
        nearest = F.interpolate(labels[:, None].float(), logits.shape[2:], mode="nearest-exact")
        total = total + loss(logits, nearest[:, 0].to(labels.dtype))[0] / 2**i
        weights += 1 / 2**i
    return total / weights, finest, entropy, overlap
