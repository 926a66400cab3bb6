"""Conversion of tensors to another window, another merging, other strides and other channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autospine.core.types import Shape3
from autospine.network.swin.windows import relative_position_index

LARGEST_WINDOW = 32
"""Longest edge that is tried when a bias table's window is worked out."""


def resize_table(
    table: Float[Tensor, "rows heads"], window: Shape3, wanted: Shape3
) -> Float[Tensor, "wanted_rows heads"]:
    """Return a position bias table for another window, linearly interpolated over the offsets of each axis.

    The longest offsets of both windows correspond to each other, and offset zero keeps its value.
    """
    grid = table.double().view(*(2 * w - 1 for w in window), -1)
    for axis, (old, new) in enumerate(zip(window, wanted, strict=True)):
        offsets = torch.arange(1 - old, old, dtype=torch.float64)
        positions = torch.linspace(1 - old, old - 1, 2 * new - 1, dtype=torch.float64)
        if new == 1:
            positions = torch.zeros(1, dtype=torch.float64)
        weights = (1 - (positions[:, None] - offsets[None]).abs()).clamp_min(0)
        grid = torch.tensordot(weights, grid, dims=([1], [axis])).movedim(0, axis)
    return grid.reshape(-1, table.shape[1]).to(table.dtype)


def window_of_table(rows: int, index: Int[Tensor, "N N"] | None, likely: Shape3) -> Shape3 | None:
    """Return the window that a bias table was made for, None if it cannot be told.

    Args:
        rows: Rows of the table, prod(2 w - 1).
        index: The rows of all pairs of tokens, which MONAI stores beside the table; decides if it is there.
        likely: The network's window, taken where no cube fits.
    """
    edges = [w for w in range(1, LARGEST_WINDOW + 1) if rows % (2 * w - 1) == 0]
    windows = [(s, p, left) for s, p, left in product(edges, repeat=3) if _rows((s, p, left)) == rows]
    if index is not None:
        # In half precision the index is rounded, and tells nothing.
        windows = [w for w in windows if prod(w) == len(index) and _is_index_of(w, index)] or windows
    cubes = [w for w in windows if len(set(w)) == 1]
    if len(windows) == 1 or cubes:
        return (cubes or windows)[0]
    return likely if likely in windows else None


def _rows(window: Shape3) -> int:
    return prod(2 * w - 1 for w in window)


def _is_index_of(window: Shape3, index: Tensor) -> bool:
    return torch.equal(relative_position_index(window, window, torch.device("cpu")), index.flatten().long())


@dataclass(frozen=True, kw_only=True, slots=True)
class MergingWeights:
    """A layer norm over K stacked tokens of C channels and the linear layer behind it."""

    gain: Float[Tensor, "KC"]
    shift: Float[Tensor, "KC"]
    reduction: Float[Tensor, "D KC"]


def rearrange_merging(
    weights: MergingWeights, tokens: Sequence[Shape3], wanted: Sequence[Shape3]
) -> MergingWeights:
    """Return the weights for tokens that are stacked in another order, or from a smaller cell.

    Where each token has a place of its own this is a permutation, and exact. Otherwise tokens that fall on
    the same place act together on the one that is there; places that no token falls on start without weight.
    Gains go into the linear layer, and the norm's shift is chosen to leave the output's constant part as it
    was. What remains is that the norm's mean and deviation are taken over other tokens. For a cell that is
    only one token long on an axis, the result is exact where neighbours on that axis are equal.

    Args:
        weights: The layers for `tokens`.
        tokens: Offset (S, P, L) of each stacked token in its cell.
        wanted: The same for the result; an axis on which all are 0 is not merged.
    """
    longest = [max(axis) for axis in zip(*wanted, strict=True)]
    places = [
        wanted.index((min(s, longest[0]), min(p, longest[1]), min(left, longest[2]))) for s, p, left in tokens
    ]
    k, t = len(tokens), len(wanted)
    gain, shift = weights.gain.view(k, -1), weights.shift.view(k, -1)
    reduction = weights.reduction.view(-1, k, gain.shape[1])
    if sorted(places) == list(range(t)):
        order = [places.index(place) for place in range(t)]
        return MergingWeights(
            gain=gain[order].flatten(), shift=shift[order].flatten(), reduction=reduction[:, order].flatten(1)
        )
    scaled = reduction.double() * gain.double()
    joint = scaled.new_zeros(len(reduction), t, gain.shape[1])
    joint.index_add_(1, torch.tensor(places), scaled)
    constant = torch.einsum("dkc,kc->d", reduction.double(), shift.double())
    joint = joint.flatten(1)
    # The smallest solution of joint @ shift = constant.
    solved = joint.T @ (torch.linalg.pinv(joint @ joint.T, hermitian=True) @ constant)
    dtype = weights.reduction.dtype
    return MergingWeights(
        gain=torch.ones(joint.shape[1], dtype=dtype), shift=solved.to(dtype), reduction=joint.to(dtype)
    )


def adapt_channels(kernel: Float[Tensor, "D C _ _ _"], channels: int) -> Float[Tensor, "D M _ _ _"]:
    """Return a kernel for another number of input channels, with the same answer where they are all equal."""
    return kernel.sum(1, keepdim=True).div(channels).expand(-1, channels, -1, -1, -1)


def shorten(kernel: Float[Tensor, "D C _ _ _"], size: Shape3) -> Float[Tensor, "D C _ _ _"]:
    """Return a kernel that is 1 long on some axes, with the same answer where neighbours there are equal."""
    axes = [axis + 2 for axis in range(3) if size[axis] == 1 != kernel.shape[axis + 2]]
    return kernel.sum(axes, keepdim=True) if axes else kernel


def shorten_transposed(kernel: Float[Tensor, "C D _ _ _"], size: Shape3) -> Float[Tensor, "C D _ _ _"]:
    """Return an up-sampling kernel that is 1 long on some axes: the mean of what it made there."""
    axes = [axis + 2 for axis in range(3) if size[axis] == 1 != kernel.shape[axis + 2]]
    return kernel.mean(axes, keepdim=True) if axes else kernel
