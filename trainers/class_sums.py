"""Sums over voxels that cross-entropy and Dice are made of, with a gradient that is written by hand.

PyTorch's own functions would keep several numbers per voxel and channel in float32 until the backward pass.
Here nothing is kept but the logits as the network gave them and the labels as bytes. Both passes go through
the patches in pieces, which are converted to float32 one at a time, and the backward pass writes each piece
of the gradient in the format of the logits.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from autospine.core.labels import IGNORE_INDEX
from autospine.core.tensor_types import LabelBatch, LogitBatch
from autospine.memory.loss_memory import BACKWARD_PIECES, FORWARD_PIECES, piece_slices

EVERYWHERE = (0, 1, 2, 3, 4)
"""Axes of a batch."""

SPACE = (0, 2, 3, 4)
"""Axes of a batch other than its channels."""


class ClassSums(NamedTuple):
    """Sums over the voxels of a batch that are not ignored."""

    entropy: Float[Tensor, ""]
    """Cross-entropy; for regions its mean over the regions."""

    both: Float[Tensor, "K"]
    """Probability of each channel over the voxels that belong to it."""

    predicted: Float[Tensor, "K"]
    """Probability of each channel over all voxels."""

    true: Float[Tensor, "K"]
    """Voxels that belong to each channel."""


class _BatchPart(NamedTuple):
    """A piece of a batch, or all of it."""

    logits: LogitBatch
    target: Bool[Tensor, "B K S P L"]
    ignored: Bool[Tensor, "B 1 S P L"] | None
    """None where it is known that no voxel is ignored."""


class _Derivatives(NamedTuple):
    """Derivatives of the loss, as in `class_sums`."""

    entropy: Float[Tensor, ""]
    """e."""

    inside: Float[Tensor, "1 K 1 1 1"]
    """a_k + b_k, of the voxels of the channel."""

    outside: Float[Tensor, "1 K 1 1 1"]
    """a_k, of the others."""


Membership = Callable[[LabelBatch], Bool[Tensor, "B K S P L"]]
"""Function from stored indices to which voxels belong to each channel; ignored ones belong to none."""

Passes = tuple[Callable[..., Tensor], Callable[..., Tensor]]
"""Functions like `joined_sums` and `joined_gradient`."""


def class_sums(
    logits: LogitBatch,
    labels: LabelBatch,
    membership: Membership,
    *,
    regions: bool,
    joined: Passes | None = None,
) -> ClassSums:
    r"""Sum cross-entropy, probabilities and labels over the voxels of a batch.

    Let z be the logits of a voxel, p their softmax, t_k 1 for the channel that the voxel belongs to and 0 for
    the others. The sums over all voxels, and their derivatives by the logits of a voxel, are

        entropy      E   = - sum log p_y          dE/dz_j   = p_j - t_j
        both         I_k =   sum p_k t_k          dI_k/dz_j = t_k p_k ([j = k] - p_j)
        predicted    P_k =   sum p_k              dP_k/dz_j =     p_k ([j = k] - p_j)

    where y is the voxel's own channel. With the derivatives e, b_k and a_k of the loss by E, I_k and P_k, the
    gradient of a voxel is therefore

        u_k = p_k (a_k + b_k t_k) - e t_k         dL/dz_j = u_j - p_j sum_k u_k

    because the t_k of a voxel add up to 1. For regions p is the sigmoid of each logit, E is the mean of the
    binary cross-entropy over the K regions, and the channels do not compete:

        dL/dz_k = p_k (1 - p_k) (a_k + b_k t_k) + e (p_k - t_k) / K

    Ignored voxels add nothing to the sums, and their gradient is 0.

    Args:
        logits: Logits (B, K, S, P, L) of any floating-point type. Sums are computed in float32, those of
            float64 in float64.
        labels: Stored indices (B, S, P, L).
        membership: Function from stored indices to which voxels belong to each channel.
        regions: Whether the channels overlap.
        joined: `joined_sums` and `joined_gradient`, compiled: they take the batch at once, in a few kernels
            that write nothing between. By default both passes go through the batch in pieces.
    """
    function = _SumInPieces if joined is None else _SumAtOnce
    return ClassSums(*function.apply(logits, labels, membership, regions, joined))  # type: ignore[no-untyped-call]


def joined_sums(
    logits: LogitBatch, labels: LabelBatch, membership: Membership, regions: bool
) -> Float[Tensor, "n"]:
    """Return entropy, `both`, `predicted` and `true` one after the other, written out for a compiler."""
    wide, target = logits.to(_wide(logits)), membership(labels)
    counts = (labels != IGNORE_INDEX)[:, None]
    if regions:
        # log(1 + exp(z)) - t z, without overflow.
        losses = torch.where(target, 0.0, wide) - F.logsigmoid(wide)
        entropy = torch.where(counts, losses, 0.0).sum() / logits.shape[1]
        probabilities = wide.sigmoid()
    else:
        logarithms = F.log_softmax(wide, dim=1)
        entropy = -torch.where(target, logarithms, 0.0).sum()
        probabilities = logarithms.exp()
    predicted = torch.where(counts, probabilities, 0.0).sum(SPACE)
    both = torch.where(target, probabilities, 0.0).sum(SPACE)
    true = target.sum(SPACE, dtype=wide.dtype)
    return torch.cat([entropy[None], both, predicted, true])


def joined_gradient(
    logits: LogitBatch,
    labels: LabelBatch,
    membership: Membership,
    regions: bool,
    entropy: Float[Tensor, ""],
    both: Float[Tensor, "K"],
    predicted: Float[Tensor, "K"],
) -> Float[Tensor, "B K S P L"]:
    """Return the gradient of the logits, written out for a compiler.

    Args:
        logits: Logits.
        labels: Stored indices.
        membership: Function from stored indices to which voxels belong to each channel.
        regions: Whether the channels overlap.
        entropy: Derivative e of the loss; see `class_sums`.
        both: Derivatives b_k.
        predicted: Derivatives a_k.
    """
    of_batch = _region_gradient if regions else _softmax_gradient
    piece = _BatchPart(logits, membership(labels), (labels == IGNORE_INDEX)[:, None])
    # In the layout of the logits, too.
    return torch.empty_like(logits).copy_(of_batch(piece, _derivatives(entropy, both, predicted)))


def _derivatives(
    entropy: Float[Tensor, ""], both: Float[Tensor, "K"], predicted: Float[Tensor, "K"]
) -> _Derivatives:
    outside = predicted.view(1, -1, 1, 1, 1)
    return _Derivatives(entropy, outside + both.view(1, -1, 1, 1, 1), outside)


class _SumAtOnce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, membership: Membership, regions: bool, joined: Passes
    ) -> tuple[Tensor, ...]:
        """Compute the sums in one call."""
        ctx.membership, ctx.regions, ctx.gradient = membership, regions, joined[1]
        ctx.save_for_backward(logits, labels)
        sums = joined[0](logits, labels, membership, regions)
        both, predicted, true = sums[1:].view(3, -1)
        ctx.mark_non_differentiable(true)
        return sums[0], both, predicted, true

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, entropy: Tensor, both: Tensor, predicted: Tensor, _true: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Compute the gradient of the logits in one call."""
        logits, labels = ctx.saved_tensors
        gradient = ctx.gradient(logits, labels, ctx.membership, ctx.regions, entropy, both, predicted)
        return gradient, None, None, None, None


class _SumInPieces(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, membership: Membership, regions: bool, _: None
    ) -> tuple[Tensor, ...]:
        """Compute the sums piece by piece."""
        ctx.membership, ctx.regions = membership, regions
        ignored = _ignored(labels)
        ctx.save_for_backward(logits, labels, ignored)
        pieces = list(_pieces(logits, FORWARD_PIECES))
        channels = logits.shape[1]
        # One row per piece: the entropy, three numbers per channel, and a 0.
        rows = torch.zeros(len(pieces), 2 + 3 * channels, dtype=_wide(logits), device=logits.device)
        sum_piece = _sum_region_piece if regions else _sum_softmax_piece
        for piece, row in zip(pieces, rows, strict=True):
            sum_piece(
                _BatchPart(logits[:, :, piece], membership(labels[:, piece]), _part(ignored, piece)), row
            )
        sums = rows.sum(dim=0)
        both, predicted, true = sums[1:-1].view(3, channels)
        ctx.mark_non_differentiable(true)
        return sums[0] / channels if regions else -sums[0], both, predicted, true

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, entropy: Tensor, both: Tensor, predicted: Tensor, _true: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Compute the gradient of the logits piece by piece, in their format and layout."""
        logits, labels, ignored = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        by = _derivatives(entropy, both, predicted)
        of_piece = _region_gradient if ctx.regions else _softmax_gradient
        for piece in _pieces(logits, BACKWARD_PIECES):
            # Nothing of a piece has a name here, so that it is released before the next one.
            gradient[:, :, piece] = of_piece(
                _BatchPart(logits[:, :, piece], ctx.membership(labels[:, piece]), _part(ignored, piece)), by
            )
        return gradient, None, None, None, None


def _sum_softmax_piece(piece: _BatchPart, row: Float[Tensor, "n"]) -> None:
    """Write the logarithm of the true probability, `both`, `predicted` and `true` of a piece into a row."""
    logarithms = F.log_softmax(_widened(piece.logits), dim=1)
    torch.sum(torch.where(piece.target, logarithms, row[-1]), EVERYWHERE, out=row[0])
    _sum_probabilities(logarithms.exp_(), piece, row)


def _sum_region_piece(piece: _BatchPart, row: Float[Tensor, "n"]) -> None:
    """Write the binary cross-entropy, `both`, `predicted` and `true` of a piece into a row."""
    wide = _widened(piece.logits)
    # log(1 + exp(z)) - t z, without overflow.
    losses = torch.where(piece.target, row[-1], wide).sub_(F.logsigmoid(wide))
    _drop(losses, piece.ignored)
    torch.sum(losses, EVERYWHERE, out=row[0])
    del losses
    _sum_probabilities(wide.sigmoid_(), piece, row)


def _sum_probabilities(probabilities: LogitBatch, piece: _BatchPart, row: Float[Tensor, "n"]) -> None:
    """Write `both`, `predicted` and `true` of a piece into a row, behind the entropy."""
    both, predicted, true = row[1:-1].view(3, -1)
    torch.sum(piece.target, SPACE, dtype=row.dtype, out=true)
    _drop(probabilities, piece.ignored)
    torch.sum(probabilities, SPACE, out=predicted)
    torch.sum(probabilities.mul_(piece.target), SPACE, out=both)


def _softmax_gradient(piece: _BatchPart, by: _Derivatives) -> Float[Tensor, "B K S P L"]:
    """Return u - p sum(u) of each voxel; see `class_sums`."""
    probabilities = F.softmax(_widened(piece.logits), dim=1)
    _drop(probabilities, piece.ignored)
    u = torch.where(piece.target, by.inside, by.outside).mul_(probabilities)
    u.addcmul_(piece.target, by.entropy, value=-1)
    u.addcmul_(probabilities, u.sum(dim=1, keepdim=True), value=-1)
    return _rounded(u, piece.logits.dtype)


def _region_gradient(piece: _BatchPart, by: _Derivatives) -> Float[Tensor, "B K S P L"]:
    """Return the gradient of each voxel where channels do not compete; see `class_sums`."""
    probabilities = _widened(piece.logits).sigmoid_()
    _drop(probabilities, piece.ignored)
    gradient = torch.where(piece.target, by.inside, by.outside).mul_(probabilities)
    gradient.addcmul_(gradient, probabilities, value=-1)
    share = by.entropy / piece.logits.shape[1]
    gradient.addcmul_(probabilities, share).addcmul_(piece.target, share, value=-1)
    return _rounded(gradient, piece.logits.dtype)


def _pieces(logits: LogitBatch, at_least: int) -> Iterator[slice]:
    """Yield the ranges along S of the pieces of a batch; see `piece_slices`."""
    batch, channels, *shape = logits.shape
    per_slice = batch * channels * shape[1] * shape[2]
    step = piece_slices(shape[0], per_slice, at_least, gpu=logits.device.type != "cpu")
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _ignored(labels: LabelBatch) -> Bool[Tensor, "B 1 S P L"] | None:
    """Return the ignored voxels; None where it is known that there are none.

    On a GPU that is not asked, since the answer would have to be waited for.
    """
    ignored = (labels == IGNORE_INDEX)[:, None]
    return None if labels.device.type == "cpu" and not bool(ignored.any()) else ignored


def _part(ignored: Bool[Tensor, "B 1 S P L"] | None, piece: slice) -> Bool[Tensor, "B 1 s P L"] | None:
    return None if ignored is None else ignored[:, :, piece]


def _drop(values: Float[Tensor, "B K S P L"], ignored: Bool[Tensor, "B 1 S P L"] | None) -> None:
    """Set the values of ignored voxels to 0, in place."""
    if ignored is not None:
        values.masked_fill_(ignored, 0)


def _widened(logits: LogitBatch) -> LogitBatch:
    """Return a copy of a piece in the format of the sums, with the channels apart from one another."""
    return torch.empty(logits.shape, dtype=_wide(logits), device=logits.device).copy_(logits)


def _rounded(gradient: LogitBatch, dtype: torch.dtype) -> LogitBatch:
    """Return a piece of the gradient as it is to be copied into the whole.

    On a CPU, changing format and layout at once takes twice as long as one after the other.
    """
    return gradient.to(dtype) if gradient.device.type == "cpu" else gradient


def _wide(logits: LogitBatch) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
