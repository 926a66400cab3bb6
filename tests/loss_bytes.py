"""Bytes that the trainers' loss takes, by the tensors that live at once."""

from typing import NamedTuple

import torch

from autospine.core.labels import LabelSpace
from autospine.memory.trace import Ledger
from trainers.losses.dice_ce import DiceCE

CLASSES, EDGE, BATCH = 5, 128, 2
"""Classes, voxels along each edge of a patch, and patches of the batch that is measured by default."""


class Peaks(NamedTuple):
    """Bytes beyond the logits of the network."""

    forward: int
    left: int
    gradient: int


def peaks(
    space: LabelSpace, batch: int, shape: tuple[int, int, int], dtype: torch.dtype, device: str
) -> Peaks:
    """Measure a forward and a backward pass of the loss on logits as the network gives them."""
    loss = DiceCE(space, lambda_ce=0.5).to(device)
    logits = torch.zeros(batch, *shape, space.n_channels, dtype=dtype, device=device).movedim(-1, 1)
    labels = torch.zeros(batch, *shape, dtype=torch.uint8, device=device)
    loss(logits.requires_grad_(), labels).total.backward()  # makes what is made once
    logits.grad = None
    ledger = Ledger()
    with ledger:
        value = loss(logits, labels).total
        forward, left, ledger.peak = ledger.peak, ledger.now, 0
        value.backward()
    few = 4096  # numbers by class and piece
    return Peaks(max(0, forward - few), left if left > few else 0, max(0, ledger.peak - few))


def loss_bytes_per_voxel_class(
    classes: int = CLASSES,
    edge: int = EDGE,
    batch: int = BATCH,
    dtype: torch.dtype = torch.bfloat16,
    device: str = "meta",
) -> float:
    """Return the most bytes per voxel and class that live at once because of the loss, logits included."""
    space = LabelSpace(
        names=tuple(f"class {i}" for i in range(1, classes)),
        members=tuple((i,) for i in range(1, classes)),
        painted=tuple(range(1, classes)),
    )
    taken = peaks(space, batch, (edge, edge, edge), dtype, device)
    return dtype.itemsize + max(taken.forward, taken.gradient) / (batch * classes * edge**3)
