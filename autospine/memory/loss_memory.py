"""Memory of the loss, and the pieces in which Dice and cross-entropy are computed."""

from math import ceil, prod
from typing import NamedTuple

from autospine.core.types import Shape3

CPU_PIECE = 2**19
"""Scores of a piece on a CPU: 2 MB in float32, about the size of its caches."""

FORWARD_PIECES, BACKWARD_PIECES = 3, 6
"""Pieces of each pass on a GPU where they have between `SMALLEST_GPU_PIECE` and `LARGEST_GPU_PIECE` scores.
Each piece launches some ten kernels, so that there are fewer in the forward pass, where the gradient takes no
memory yet."""

SMALLEST_GPU_PIECE, LARGEST_GPU_PIECE = 2**21, 2**24
"""Fewest and most scores of a piece on a GPU: fewer would not fill it, more would only take memory."""

LOSS_PIECE_BYTES = 17.0
"""Bytes per voxel and class of the piece that `dice_ce` is working on: its target, and up to four numbers in
float32, which is what regions take; classes take half as much."""

IGNORED_BYTES = 1.0
"""Bytes per voxel that `dice_ce` keeps: whether the voxel is ignored."""

OTHER_LOSS_BYTES = 17.0
"""Bytes per voxel and class in a loss of another distribution, as PyTorch's functions for Dice and
cross-entropy would take: logits in float32, their logarithmic softmax, probabilities and products with the
target in float32, and the target itself."""

OTHER_LOSS_BYTES_PER_VOXEL = 9.0
"""Bytes per voxel in such a loss: its label as an integer of 64 bits, and whether it counts."""

OTHER_LOSS_GRADIENT_BYTES = 20.0
"""Bytes per voxel and class in the gradient of such a loss: five float32."""


class LossBytes(NamedTuple):
    """Bytes beyond the logits of the network."""

    forward: float
    """Bytes in the forward pass of the loss."""

    gradient: float
    """Bytes in the backward pass of the loss: the gradient of the logits, and what it is made from."""


def loss_bytes(shape: Shape3, batch: int, channels: int, value_bytes: int, *, gpu: bool) -> LossBytes:
    """Return the bytes of `dice_ce`, which keeps the logits of the network as they are.

    Args:
        shape: Voxels (S, P, L) of a patch.
        batch: Patches per step.
        channels: Channels of the logits.
        value_bytes: Bytes of a logit.
        gpu: Whether the loss is computed on a GPU.
    """
    per_slice = batch * channels * shape[1] * shape[2]
    forward, backward = (
        LOSS_PIECE_BYTES * per_slice * piece_slices(shape[0], per_slice, at_least, gpu=gpu)
        for at_least in (FORWARD_PIECES, BACKWARD_PIECES)
    )
    kept = IGNORED_BYTES * batch * prod(shape)
    return LossBytes(forward=kept + forward, gradient=kept + backward + value_bytes * per_slice * shape[0])


def other_loss_bytes(shape: Shape3, batch: int, channels: int, value_bytes: int) -> LossBytes:
    """Return the bytes of a loss of another distribution; the arguments are those of `loss_bytes`."""
    voxels = batch * prod(shape)
    # In float32 the network's logits are those of the loss.
    per_class = OTHER_LOSS_BYTES - (value_bytes if value_bytes == 4 else 0)
    return LossBytes(
        forward=(per_class * channels + OTHER_LOSS_BYTES_PER_VOXEL) * voxels,
        gradient=OTHER_LOSS_GRADIENT_BYTES * channels * voxels,
    )


def piece_slices(slices: int, scores_per_slice: int, at_least: int, *, gpu: bool) -> int:
    """Return the number of slices along S of a piece, from 1 to all.

    Args:
        slices: Slices along S of a patch.
        scores_per_slice: Logits of a slice: patches of the batch x channels x P x L.
        at_least: Pieces on a GPU, unless they would be too small to fill it.
        gpu: Whether the loss is computed on a GPU.
    """
    scores = CPU_PIECE
    if gpu:
        even = ceil(slices / at_least) * scores_per_slice
        scores = min(max(even, SMALLEST_GPU_PIECE), LARGEST_GPU_PIECE)
    return min(max(1, scores // scores_per_slice), slices)
