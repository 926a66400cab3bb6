"""Dice and cross-entropy written with PyTorch's own functions: what the trainers' loss is compared with."""

import torch
import torch.nn.functional as F

from autospine.core.labels import IGNORE_INDEX, LabelSpace
from trainers.label_targets import SMOOTH


def plain_dice_ce(
    labels: LabelSpace, lambda_ce: float, logits: torch.Tensor, stored: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Total, cross-entropy and Dice by class of logits (B, K, S, P, L) with stored indices (B, S, P, L)."""
    valid = stored != IGNORE_INDEX
    table = torch.from_numpy(labels.membership)
    target = table[:, torch.where(valid, stored, 0).long()].movedim(0, 1) & valid[:, None]
    wanted = target.to(logits.dtype)
    if labels.regions:
        probabilities = logits.sigmoid()
        entropies = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)
        entropy = (entropies * valid).sum()
    else:
        probabilities = logits.softmax(dim=1)
        entropy = -(logits.log_softmax(dim=1) * wanted).sum()
    entropy = entropy / valid.sum().clamp_min(1)
    first = 0 if labels.regions else 1
    probabilities, wanted = (probabilities * valid[:, None])[:, first:], wanted[:, first:]
    space = (0, 2, 3, 4)
    dice = (2 * (probabilities * wanted).sum(space) + SMOOTH) / (
        probabilities.sum(space) + wanted.sum(space) + SMOOTH
    )
    return lambda_ce * entropy + (1 - lambda_ce) * (1 - dice.mean()), entropy, dice
